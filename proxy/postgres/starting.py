"""How a deferred BEGIN reaches the session that its client is given, and what the server makes of it.

BEGIN goes ahead of the first statement without a Sync between them: where it fails, the server skips the
statement. On a session whose transaction was begun ahead it need not go at all. Cold; deferring.py has
what comes before.
"""

from proxy.codec import RECOVER, RESUME
from proxy.postgres import reading
from proxy.postgres.messages import ready
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import (
    CALL,
    ENDED,
    FAILED,
    IN_TRANSACTION,
    NOT_DEFERRED,
    QUERY,
    REFUSED,
    SENT,
    ClientState,
)


def joined(state: ClientState, session: PgSessionCodec, due: bool) -> bool:
    """A session is held: put BEGIN ahead of what waits, unless it has begun; whether it must be prepared.

    The transaction that was begun ahead is only for a client that wants just that. From any other it is
    taken before anything is sent, since not every statement may run inside one.
    """
    sent = state.deferred == SENT
    if sent and session.begun and not due and state.begin is not None and state.begin.plain:
        session.begun = False
        state.deferred = NOT_DEFERRED
        if state.blocked:
            state.resume, state.unread = RESUME, True
    elif sent:
        state.opening = True
        session.unnamed = session  # nobody's: it will be BEGIN
    state.set_aside()
    return due or session.begun


def ahead(state: ClientState) -> bytes:
    """BEGIN, unsynced: where it fails the server skips what follows, so that nothing runs outside it."""
    assert state.begin is not None
    return state.begin.unsynced


def confirmed(state: ClientState) -> None:
    """The server has begun the transaction."""
    state.opening = False
    state.deferred = NOT_DEFERRED
    if state.blocked:
        state.resume, state.unread = RESUME, True
    state.set_aside()


def begin_failed(state: ClientState, refusal: bytes) -> bytes:
    """The server has refused BEGIN, and skipped the rest: what the client is told.

    The session is to be recovered next.
    """
    owed = [kind for kind in state.owed if kind < ENDED]
    state.opening = state.intruded = False
    state.deferred, state.status = REFUSED, FAILED
    state.resume, state.unread = RESUME | RECOVER, True
    if not owed:
        state.skipping = True
        return refusal
    if owed[0] == QUERY or owed[0] == CALL:
        # It was skipped, and will not be answered before a Sync comes.
        state.owed.clear()
        state.segment = True
    return refusal + ready(FAILED)


def parted(state: ClientState) -> None:
    """The session is gone."""
    state.opening = False
    state.resume = 0
    state.bound = None
    if state.reads and state.deferred != SENT:
        reading.over(state)
    if state.deferred == REFUSED:
        state.owed.clear()
        state.faults.clear()
        state.segment = False
        state.status = FAILED
    elif state.deferred == SENT:
        state.status = IN_TRANSACTION
    state.set_aside()
