"""What a client is told where a named prepared statement cannot be made, found or used. Cold."""

from proxy.postgres import asides
from proxy.postgres.messages import error
from proxy.postgres.state import ClientState


def misfit(state: ClientState) -> int:
    """It is not what clients were told: say so as the server does to who has prepared it on a session."""
    statement, state.misfit = state.misfit, None
    session = state.session
    if session is not None and statement is not None and session.prepared.pop(statement, statement) is None:
        # Whoever was told the same about it is to be told this, too.
        session.stale.append(statement)
        session.latest = None
    fields = {"R": "RevalidateCachedQuery"}
    text = "cached plan must not change result type"
    return asides.refuse_here(state, error("ERROR", "0A000", text, fields=fields), False)


def exists(name: bytes) -> bytes:
    """There is one of this name."""
    return error("ERROR", "42P05", f'prepared statement "{name.decode("utf-8", "replace")}" already exists')


def unknown(state: ClientState, kind: int, name: bytes, data: bytes, pos: int, stop: int) -> int:
    """The client has none of this name, unless it is a statement of ours."""
    if name in state.own_named:
        return asides.use_own(state, kind, data, pos, stop)
    text = f'prepared statement "{name.decode("utf-8", "replace")}" does not exist'
    return asides.refuse_here(state, error("ERROR", "26000", text), False)


def uncountable(state: ClientState) -> int:
    """Replies cannot be counted for now, so none can be swallowed."""
    if not state.doubt and not state.segment and not state.copy_in and state.owed:
        return asides.hold(state)
    return asides.fault(state, asides.uncertain(), False)


def switched_off(state: ClientState) -> bytes:
    """Sessions may hold none."""
    return error(
        "ERROR",
        "0A000",
        "named prepared statements are switched off",
        detail="A session is given to another client at the end of each transaction.",
        hint=f"Raise pools.{state.terms.pool}.stmt_cache, or switch them off in the driver too.",
    )


def too_many(state: ClientState, setting: str) -> bytes:
    """A bound is reached: the setting of it."""
    return error(
        "ERROR",
        "53400",
        "too much memory is taken by prepared statements",
        hint=f"Close those that are not needed any more, or raise pools.{state.terms.pool}.{setting}.",
    )
