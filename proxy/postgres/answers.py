"""What Penstock itself says to a client: refusals, last words, and the answer when a session has died.

Cold. Every text names what was wrong and which setting changes it.
"""

from proxy.errors import PoolBusy, PoolClosed, PoolError, PoolPaused, PoolTimeout, QueueFull
from proxy.postgres.messages import READY_IDLE, error, ready
from proxy.postgres.state import (
    ENDED,
    FAILED,
    IDLE,
    IN_TRANSACTION,
    NOT_DEFERRED,
    REFUSED,
    SENT,
    SESSION_MODE,
    ClientState,
)
from proxy.reasons import CloseReason

_FATAL = {
    CloseReason.DRAIN: ("57P01", "Penstock is shutting down", ""),
    CloseReason.DRAIN_TIMEOUT: (
        "57P01",
        "Penstock is shutting down, and the transaction did not end in time",
        "How long it waits is drain_timeout.",
    ),
    CloseReason.IDLE_TRANSACTION: (
        "25P03",
        "terminating connection due to idle-in-transaction timeout",
        "The setting is idle_transaction_timeout of the pool, or of the user.",
    ),
    CloseReason.TRANSACTION: (
        "25P04",
        "terminating connection due to transaction timeout",
        "The setting is transaction_timeout of the pool, or of the user.",
    ),
    CloseReason.CLIENT_IDLE: (
        "57P05",
        "terminating connection due to idle-session timeout",
        "The setting is client_idle_timeout of the pool, or of the user.",
    ),
    CloseReason.SESSION_LOST: ("08006", "the session with the server was lost", ""),
    CloseReason.LISTEN_LOST: (
        "08006",
        "the session that listened for this client was lost, and notifications with it",
        "LISTEN again, and look at what may have been missed. To stay connected: listen_lost of the pool.",
    ),
    CloseReason.LISTEN_BACKLOG: (
        "53400",
        "this client does not take its notifications",
        "Read them, outside of transactions, too; or raise listen_backlog of the pool.",
    ),
    CloseReason.PROTOCOL_ERROR: ("08P01", "protocol error", ""),
}


def refusal(pool: str, cause: PoolError, severity: str = "ERROR") -> bytes:
    """No session for this unit of work: an ERROR that the connection survives."""
    sqlstate, hint = "53300", f"Raise pools.{pool}.max"
    if isinstance(cause, PoolBusy):
        hint += ", or set penstock.getmode = 'timedwait' to wait for a session."
    elif isinstance(cause, PoolTimeout):
        hint += f" or pools.{pool}.wait_timeout."
    elif isinstance(cause, QueueFull):
        hint += f" or pools.{pool}.max_waiting."
    elif isinstance(cause, PoolClosed):
        sqlstate = "57P01"
        hint = "Connect again. A pool that its operator has closed opens when Penstock is restarted."
    elif isinstance(cause, PoolPaused):
        hint = "Ask again when the operator has resumed the pool, or set penstock.getmode = 'timedwait'."
    return error(
        severity, sqlstate, f"no session available: {cause.message}", detail=cause.picture, hint=hint
    )


def unavailable(
    pool: str, sqlstate: str, text: str, fields: dict[str, str], severity: str = "ERROR"
) -> bytes:
    """The server cannot be reached or does not let us in; in its own words where it has given any."""
    if fields:
        own = {code: value for code, value in fields.items() if code not in ("S", "V")}
        return error(severity, sqlstate, text, fields=own)
    return error(
        severity,
        sqlstate,
        f"the server is not available: {text}",
        hint=f"Check the server, and pools.{pool}.backend.",
    )


def canceled() -> bytes:
    """The request was cancelled while it waited for a session."""
    return error(
        "ERROR", "57014", "canceling statement due to user request", detail="It waited for a session."
    )


def timed_out() -> bytes:
    """The query has taken too long, so we have had the server cancel it."""
    return error(
        "ERROR",
        "57014",
        "canceling statement due to query timeout",
        hint="The setting is query_timeout of the pool, or of the user.",
    )


def notice(text: str, detail: str) -> bytes:
    """Something that is no error."""
    return b"N" + error("NOTICE", "00000", text, detail=detail)[1:]


def broken(text: str) -> bytes:
    """The client broke the protocol."""
    return error("FATAL", "08P01", text)


def fatal(reason: CloseReason, detail: str) -> bytes:
    """The last words to a client."""
    sqlstate, text, hint = _FATAL.get(reason, ("57P01", "the connection is closed", ""))
    return error("FATAL", sqlstate, text, detail=detail, hint=hint)


def forget(state: ClientState, answer: bytes) -> bytes:
    """Drop what waits for a session, and answer each part of it that is owed an answer.

    Where the client has been told that its transaction is open, that has failed now.
    """
    end = READY_IDLE
    if state.more:
        # What waits is the first message of a segment, or a Query: it is looked at when it is skipped.
        state.more = False
        state.segment = True
    if state.deferred != NOT_DEFERRED:
        state.deferred = REFUSED
        end = ready(FAILED)
    reply = b"".join(answer + end for kind in state.owed if kind < ENDED)
    state.owed.clear()
    if state.segment:
        reply += answer
        state.segment = False
        state.skipping = True
    state.faults.clear()
    state.blocked = state.holds_names = state.checking = False
    state.set_aside()
    state.queries = 0
    state.part()
    return reply


def session_lost(state: ClientState) -> bytes | None:
    """The session died: an error for what was outstanding, or None where the client must be closed.

    Outside a transaction the client loses only the answer. Inside one it must not go on, for what it
    believes to be one transaction would then be two; nor in session mode, whose session is its own; nor
    where it is not certain which answers are owed. Where the server has answered nothing since its BEGIN,
    the transaction has failed and the client may go on.
    """
    begins = state.deferred == SENT or (state.seen == 0 and state.status == IN_TRANSACTION)
    in_transaction = state.status != IDLE and not begins
    if state.pool_mode == SESSION_MODE or state.pins or in_transaction or state.doubt:
        return None
    if state.back_need or state.back_tail:
        return None
    end = ready(IDLE)
    if begins:
        state.deferred = REFUSED
        end = ready(FAILED)
    answer = error(
        "ERROR",
        "08006",
        "the session with the server was lost while the statement ran",
        detail=f"{state.lost_why}{'. ' if state.lost_why else ''}Whether it took effect is not known.",
    )
    owed = [kind for kind in state.owed if kind < ENDED]
    reply = b""
    for number, _ in enumerate(owed):
        # The server's own last words, where it had any, have been forwarded as the first answer.
        reply += end if number == 0 and state.saw_fatal else answer + end
    segment = state.segment
    state.owed.clear()
    state.segment = state.copy_in = False
    if segment:
        reply += b"" if state.saw_fatal and not owed else answer
        state.skipping = True
    state.faults.clear()
    state.blocked = state.holds_names = state.checking = False
    state.set_aside()
    return reply
