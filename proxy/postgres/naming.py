"""Named prepared statements where sessions change hands: the client's names, and the names on its session.

Each function looks at one message and returns a verdict. The rewriting does not depend on the session; that
the session has the statement is made sure of in the place where it is used. Replies that the client must
not see, or must see for something else, are found by ``state.marks``: see marking.py. Nothing here is done
before a session is held (AWAIT).
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.postgres import asides, executing, pinning, unnameable
from proxy.postgres.messages import message
from proxy.postgres.own import concerns
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import (
    AWAIT,
    CUT,
    FAILED,
    HEAD,
    INSERT_HOLD,
    PASS,
    REPLACE,
    ClientState,
)
from proxy.postgres.statements import (
    CHECK,
    CLOSE,
    CLOSE_NOTHING,
    CLOSE_TRIED,
    CREATE,
    DESCRIBE,
    ENSURE,
    EVICT,
    SHARE,
    TIDY,
    TRIED,
    TRY,
    Mark,
    Statement,
)

_FLUSH: Final = b"H\x00\x00\x00\x04"


def parse(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Parse of a named statement, whole."""
    end = data.find(b"\0", pos + 5, stop)
    name = data[pos + 5 : end]
    if end < 0:
        return PASS  # the server will say what is wrong with it
    refusal = _refusal(state, name, data, pos)
    if refusal:
        return asides.refuse_here(state, refusal, False)
    verdict = asides.own_parse(state, data, pos, stop) if concerns(data, end + 1, stop) else PASS
    if verdict == PASS and state.watches:
        verdict = pinning.met_named(state, data, end + 1, stop)
    if verdict != PASS:
        return verdict
    if state.session is None:
        return _prepare_at_once(state, name, data[end + 1 : stop])
    if state.doubt or state.intruded:
        return unnameable.uncountable(state)
    if is_uncertain(state):
        return hold(state)
    if name in state.named:
        # The server is to refuse it, in its order, or to find something else wrong with it.
        for _ in range(3):
            mark(state, EVICT, None, name)
        attempt = message(b"P", TRIED + data[end:stop])
        state.piece = CLOSE_TRIED + attempt + attempt
        state.segment = True
        return REPLACE
    return _prepare(state, state.session, name, data[end + 1 : stop])


def is_kept_whole(state: ClientState, length: int) -> bool:
    """A Parse of this length is remembered, so it is looked at when all of it is here."""
    statements = state.statements
    return state.renames and statements.cache > 0 and length <= statements.client_memory


def _refusal(state: ClientState, name: bytes, data: bytes, pos: int) -> bytes:
    if state.statements.cache <= 0:
        return unnameable.switched_off(state)
    if read_i32_be(data, pos + 1) > state.statements.client_memory:
        return unnameable.too_many(state, "stmt_client_memory")  # perhaps not all of it is here
    return unnameable.exists(name) if name in state.own_named else b""


def prepare_unseen(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Parse in a failed transaction that no server knows of: it ends that, so any server will take it."""
    end = data.find(b"\0", pos + 5, stop)
    name, body = data[pos + 5 : end], data[end + 1 : stop]
    refusal = unnameable.exists(name) if name in state.named else _refusal(state, name, data, pos)
    if refusal:
        return asides.refuse_here(state, refusal, False)
    return _name_at_once(state, name, body)


def _name_at_once(state: ClientState, name: bytes, body: bytes) -> int:
    """No server need be asked: the client has its name for this text, within its bounds."""
    registry = state.statements
    if state.named_size + len(body) > registry.client_memory:
        return asides.refuse_here(state, unnameable.too_many(state, "stmt_client_memory"), False)
    statement = registry.take(body, _path(state))
    if statement is None:
        return asides.refuse_here(state, unnameable.too_many(state, "stmt_memory"), False)
    state.named[name] = statement
    state.named_size += statement.size
    state.reply += asides.PARSE_COMPLETE
    return CUT


def _prepare_at_once(state: ClientState, name: bytes, body: bytes) -> int:
    """Without a session: what a server has taken before needs none until it is used."""
    if name in state.named or state.outstanding() or not state.statements.is_proven(body, _path(state)):
        return AWAIT
    return _name_at_once(state, name, body)


def _path(state: ClientState) -> str:
    return state.profile.settings.get("search_path", "")


def _prepare(state: ClientState, session: PgSessionCodec, name: bytes, body: bytes) -> int:
    registry = state.statements
    if state.named_size + len(body) > registry.client_memory:
        return asides.refuse_here(state, unnameable.too_many(state, "stmt_client_memory"), False)
    statement = registry.take(body, _path(state))
    if statement is None:
        return asides.refuse_here(state, unnameable.too_many(state, "stmt_memory"), False)
    state.named[name] = statement
    state.named_size += statement.size
    ahead = _current(state, session)
    is_there = statement in session.prepared
    if not is_there and not statement.description:
        ahead += _room(state, session)
    elif not is_there or state.owed or state.segment or state.status == FAILED:
        # Whether the server would take it now, and as it was described, is not certain: so it is asked, and
        # the session given the statement only when it is used.
        mark(state, EVICT, None, b"")
        mark(state, TRY, statement, name)
        state.segment = True
        state.piece = ahead + CLOSE_TRIED + statement.attempt()
        return REPLACE
    else:
        mark(state, SHARE, statement, name)
        state.segment = True
        state.piece = ahead + CLOSE_NOTHING
        return REPLACE
    mark(state, CREATE, statement, name)
    session.prepared[statement] = None
    state.segment = True
    state.piece = ahead + statement.parse()
    return REPLACE


def use(  # noqa: C901  (the warm path: calls cost)
    state: ClientState, kind: int, data: bytes, pos: int, stop: int
) -> int:
    """A Bind, or a Describe of a statement; ``stop`` is where it, or what is here of it, ends."""
    begin = pos + 6
    if kind == 66 and data[pos + 5] != 0:
        begin = data.find(b"\0", pos + 5, stop) + 1
    end = data.find(b"\0", begin, stop) if begin else -1
    if end < 0:
        return PASS  # the server will say what is wrong with it
    name = data[begin:end]
    statement = state.named.get(name)
    if statement is None:
        return hold(state) if is_uncertain(state) else unnameable.unknown(state, kind, name, data, pos, stop)
    session = state.session
    if session is None:
        return executing.ahead(state, statement, data, begin, end, stop) if pos == 0 else AWAIT
    if state.marks and is_uncertain(state):
        return hold(state)
    ahead = b""
    if session.latest is not statement:
        if state.doubt or state.intruded:
            return unnameable.uncountable(state)
        ahead = _bring(state, session, statement)
        if ahead and statement.description and not (state.segment and state.failed_at == state.sent):
            # (Where the segment has failed already the server would not answer.)
            return _check(state, ahead, statement)
    if state.misfit is not None:
        return unnameable.misfit(state)
    if statement.effects:
        pinning.used(state, statement)
    state.segment = True
    if kind == 68:
        mark(state, DESCRIBE, statement, name)
        state.piece = ahead + statement.describe
        return REPLACE
    state.resume_at = end + 1
    state.piece = ahead + executing.head(statement, data, pos, begin, end)
    return HEAD


def _check(state: ClientState, ahead: bytes, statement: Statement) -> int:
    """Clients were told what it is like: wait for the server's word on what it is like now."""
    mark(state, CHECK, statement, b"")
    state.segment = True
    state.piece = ahead + statement.describe + _FLUSH
    state.blocked = state.checking = True
    state.set_aside()
    return INSERT_HOLD


def _bring(state: ClientState, session: PgSessionCodec, statement: Statement) -> bytes:
    """What must be sent ahead so that the session has it."""
    ahead = _current(state, session)
    prepared = session.prepared
    if statement in prepared:
        # The latest is the last to go.
        del prepared[statement]
    else:
        ahead += _room(state, session) + statement.parse()
        mark(state, ENSURE, statement, b"")
    prepared[statement] = None
    session.latest = statement
    return ahead


def _current(state: ClientState, session: PgSessionCodec) -> bytes:
    """Close what is not certain to be there."""
    if not session.stale:
        return b""
    ahead = b""
    for statement in session.stale:
        mark(state, TIDY, statement, b"")
        ahead += statement.close
    session.stale.clear()
    return ahead


def _room(state: ClientState, session: PgSessionCodec) -> bytes:
    prepared = session.prepared
    if len(prepared) < state.statements.cache:
        return b""
    oldest = next(iter(prepared))
    del prepared[oldest]
    session.latest = None
    mark(state, EVICT, oldest, b"")
    return oldest.close


def mark(state: ClientState, kind: int, statement: Statement | None, name: bytes) -> Mark:
    """A message is sent whose reply means something to us."""
    made = Mark(state.sent, state.steps, kind, statement, name)
    state.marks.append(made)
    state.steps += 1
    return made


def close(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Close of a named statement: the client loses its name, and the session keeps the statement."""
    name = data[pos + 6 : stop - 1]
    if state.session is None and not state.outstanding():
        state.own_named.pop(name, None)
        lose(state, name)
        state.reply += asides.CLOSE_COMPLETE
        return CUT
    if state.doubt or state.intruded:
        return unnameable.uncountable(state)
    if is_uncertain(state):
        return hold(state)
    statement = state.named.get(name)
    mark(state, CLOSE, statement, name)
    if statement is not None:
        # Its user is counted until the server has said that it got so far.
        del state.named[name]
        state.named_size -= statement.size
    state.own_named.pop(name, None)
    state.segment = True
    state.piece = CLOSE_NOTHING
    return REPLACE


def is_uncertain(state: ClientState) -> bool:
    """Whether the server takes or skips what was sent in an earlier segment is not known yet."""
    marks = state.marks
    return bool(marks) and marks[0].sync != state.sent


def hold(state: ClientState, simple: bool = False) -> int:
    """The message, and what follows, wait until it is; ``simple``: it is a Query."""
    verdict = asides.hold(state, simple)
    state.holds_names = state.blocked
    return verdict


def lose(state: ClientState, name: bytes) -> None:
    """The client has this name no longer."""
    statement = state.named.pop(name, None)
    if statement is not None:
        state.named_size -= statement.size
        state.statements.give(statement)


def lose_all(state: ClientState) -> None:
    """The client has no names any longer."""
    for statement in state.named.values():
        state.statements.give(statement)
    state.named.clear()
    state.own_named.clear()
    state.named_size = 0
