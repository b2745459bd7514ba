"""What a client was told of a statement holds on every session, or it is told that it does not any more.

Tables may change without our knowing, so that the same text is one thing on one session and another on the
next: no session may run it for a client that decodes by what it was told on another one.
"""

from postgres.playbook import (
    BOUND,
    CLOSED,
    NO_PARAMETERS,
    PARSED,
    Scene,
    bind,
    columns,
    cut,
    describe,
    done,
    execute,
    parse,
    sync,
)
from proxy.postgres.messages import message, query, ready

IDLE, OPEN = ready(73), ready(84)
OTHER = message(b"T", b"\0\x01other\0" + b"\0" * 18)


def two() -> tuple[Scene, Scene]:
    """Two clients of one pool, each with a session of its own."""
    ann, bob = Scene(), Scene()
    bob.codec.statements = ann.codec.statements
    return ann, bob


def sent(scene: Scene) -> str:
    return "".join(kind for kind, _ in cut(scene.server_got()))


def is_asked_and_misfits(ann: Scene, bob: Scene) -> None:
    """The first client gets the second one's session, which knows the text as something else."""
    ann.session = bob.session
    ann.server_got()
    ann.client(bind("a"), execute(), sync())
    assert sent(ann).endswith("PDH")
    ann.server(PARSED, NO_PARAMETERS, OTHER)
    assert "BE" in sent(ann), "what follows is the error"
    ann.server(message(b"E", b"SERROR\0C26000\0Mpenstock_refused_1_\0\0"), IDLE)
    assert b"C0A000\0" in ann.client_got()


def test_who_asks_what_a_statement_is_like_is_not_served_by_sessions_that_were_given_it_before() -> None:
    ann, bob = two()
    ann.client(parse("SELECT 1", "a"), sync()).server(PARSED, IDLE)
    bob.client(parse("SELECT 1", "b"), bind("b"), execute(), sync())
    assert sent(bob) == "PBES"
    bob.server(PARSED, BOUND, done("SELECT 0"), IDLE)
    ann.server_got()
    ann.client(describe("a"), sync())
    assert sent(ann) == "DS"
    ann.server(NO_PARAMETERS, columns(), IDLE)
    is_asked_and_misfits(ann, bob)


def test_a_statement_that_others_were_told_about_is_not_put_on_a_session_unseen() -> None:
    ann, bob = two()
    ann.client(parse("SELECT 1", "a"), describe("a"), sync())
    ann.server(PARSED, NO_PARAMETERS, columns(), IDLE)
    bob.client(query("BEGIN")).server(done("BEGIN"), OPEN)
    bob.server_got()
    bob.client(parse("SELECT 1", "b"), sync())
    assert sent(bob) == "CPS"
    bob.server(CLOSED, PARSED, OPEN).client(query("COMMIT")).server(done("COMMIT"), IDLE)
    is_asked_and_misfits(ann, bob)


def test_who_was_told_on_the_only_session_that_has_it_keeps_it() -> None:
    ann, _ = two()
    ann.client(parse("SELECT 1", "a"), describe("a"), sync())
    ann.server(PARSED, NO_PARAMETERS, columns(), IDLE)
    ann.server_got()
    ann.client(bind("a"), execute(), sync())
    assert sent(ann) == "BES"
    assert len(ann.codec.statements) == 1


def test_a_twin_counts_as_the_text_that_it_is() -> None:
    ann, bob = two()
    ann.client(parse("SELECT 1", "a"), sync()).server(PARSED, IDLE)
    bob.client(parse("SELECT 1", "b"), bind("b"), sync()).server(PARSED, BOUND, IDLE)
    statements = ann.codec.statements
    size = statements.size
    ann.client(describe("a"), sync()).server(NO_PARAMETERS, columns(), IDLE)
    assert statements.size == 2 * size
    bob.codec.leave()
    assert statements.size == size, "nobody can find the first one any more"
    ann.codec.leave()
    assert len(statements) == 1


MISFIT = message(b"E", b"SERROR\0VERROR\0C0A000\0Mcached plan\0RRevalidateCachedQuery\0\0")


def test_a_server_that_sees_only_behind_the_parameters_that_it_does_not_fit() -> None:
    ann, bob = two()
    ann.client(parse("SELECT 1", "a"), describe("a"), sync())
    ann.server(PARSED, NO_PARAMETERS, columns(), IDLE)
    ann.client_got()
    ann.session = bob.session
    ann.server_got()
    ann.client(bind("a"), execute(), sync())
    assert sent(ann) == "PDH"
    ann.server(PARSED, NO_PARAMETERS + MISFIT)
    assert sent(ann).endswith("S")
    ann.server(IDLE)
    assert ann.client_got() == MISFIT + IDLE


def test_such_an_error_is_no_description() -> None:
    ann, _ = two()
    ann.client(parse("SELECT 1", "a"), sync()).server(PARSED, IDLE)
    ann.client_got()
    statement = next(iter(ann.session.prepared))
    ann.client(describe("a"), sync()).server(NO_PARAMETERS + MISFIT, IDLE)
    assert ann.client_got() == NO_PARAMETERS + MISFIT + IDLE
    assert not statement.description
