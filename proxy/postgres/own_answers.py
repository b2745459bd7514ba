"""What the statements that are for Penstock itself do, and what they are answered by.

Cold, and only about their meaning: where in the stream they may stand is the business of asides.py.
"""

from typing import Final

from proxy.postgres.messages import cstring, error, message
from proxy.postgres.own import SHARD_KEY, TAG, TARGET, OwnStatement
from proxy.postgres.state import ClientState
from proxy.postgres.terms import read_tag

_TEXT_OID: Final = 25


def check(state: ClientState, statement: OwnStatement) -> bytes:
    """The error that a statement of ours deserves, or nothing."""
    if statement.error:
        return trouble(statement)
    if state.status == 69:
        return error(
            "ERROR",
            "25P02",
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    if statement.verb != "SET":
        return b""
    if statement.name == TAG and state.session is not None:
        return error(
            "ERROR",
            "55006",
            f"{TAG} cannot be changed while a session is held",
            hint="Set it before the transaction, or in pool_mode session before the first statement; "
            f"or in the startup packet: options=-c {TAG}=...",
        )
    try:
        _kept(state, statement)
    except ValueError as mistake:
        return error(
            "ERROR",
            "22023",
            f'invalid value for parameter "{statement.name}": {statement.value or ""}',
            detail=str(mistake),
            hint=f"What clients may choose is set by pools.{state.terms.pool}.client_may_set.",
        )
    return b""


def _kept(state: ClientState, statement: OwnStatement) -> str:
    """What a SET is to set; "" for DEFAULT. Raises ValueError."""
    if statement.value is not None:
        return state.terms.check(statement.name, statement.value)
    # A pool may demand a shard key.
    return state.terms.permit(SHARD_KEY, "") if statement.name == SHARD_KEY else ""


def run(state: ClientState, statement: OwnStatement, describe: bool) -> bytes:
    """Carry out a statement that ``check`` found right; the answer without its ReadyForQuery."""
    name = statement.name
    if statement.verb == "SET":
        choices = {**state.chosen, name: _kept(state, statement)}
        choose(state, {chosen: text for chosen, text in choices.items() if text})
        return message(b"C", cstring("SET"))
    home = state.home_target if name == TARGET else ""
    text = (state.chosen.get(name) or home or state.terms.shown.get(name, "")).encode()
    row = message(b"D", b"\0\x01" + len(text).to_bytes(4, "big") + text)
    return (columns(statement) if describe else b"") + row + message(b"C", cstring("SHOW"))


def choose(state: ClientState, chosen: dict[str, str]) -> None:
    """From the next acquire on the client has chosen this. Nothing else that it has chosen holds."""
    before, after = state.chosen.get(TAG, ""), chosen.get(TAG, "")
    state.chosen = chosen
    state.terms.apply(chosen, state)
    state.target = state.target or state.home_target
    state.reads = False
    state.terms_changed = True
    if before != after:
        _retag(state, read_tag(before), read_tag(after))


def _retag(state: ClientState, before: dict[str, str], after: dict[str, str]) -> None:
    """The settings of one tag give way to those of another; what the client has SET since stays."""
    login = state.login_profile.settings
    settings = dict(state.profile.settings)
    for name, value in before.items():
        if settings.get(name) == value:
            del settings[name]
            if name in login:
                settings[name] = login[name]
    state.startup_profile = state.profiles.of({**login, **after})
    state.want(state.profiles.of({**settings, **after}))


def columns(statement: OwnStatement) -> bytes:
    """The RowDescription of a SHOW."""
    column = (
        cstring(statement.name) + b"\0" * 6 + _TEXT_OID.to_bytes(4, "big") + b"\xff\xff\xff\xff\xff\xff\0\0"
    )
    return message(b"T", b"\0\x01" + column)


def out_of_place() -> OwnStatement:
    """What stands for a statement of ours among others, where none may be."""
    return OwnStatement("", "", None, "a penstock setting must stand alone between two Sync messages")


def trouble(statement: OwnStatement) -> bytes:
    """What is wrong with a statement, as an error."""
    return error("ERROR", "0A000", statement.error, hint=statement.hint)
