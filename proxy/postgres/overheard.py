"""What a held session says that is about LISTEN: beside the scan in responses.py.

Cold. Only where sessions change hands: in session mode a notification is the client's, like all else.
"""

from proxy.postgres.effects import LISTENED
from proxy.postgres.messages import READY_IDLE
from proxy.postgres.state import IDLE, NOT_DEFERRED, SESSION_MODE, ClientState


def notified(state: ClientState, whole: bytes) -> bytes | None:
    """A NotificationResponse; returns what replaces it, None to let it pass.

    One that somebody else's LISTEN has brought about is nobody's.
    """
    if state.pool_mode == SESSION_MODE:
        return None
    session = state.session
    mine = bool((state.suspects | state.pins) & LISTENED)
    if not mine and session is not None:
        mine = session.deep and session.touched_by == state.number
    if mine and (state.listening is None or state.listening.may_hear(whole)):
        return None
    return b""


def told(state: ClientState) -> None:
    """An answer has ended: what the client is told of its own accord goes in front of the end, as the server
    does it, for there are clients that look no further.
    """
    out = state.out
    if out.endswith(READY_IDLE):
        news = state.take_news()
        if news:
            state.out = out[: -len(READY_IDLE)] + news + READY_IDLE


def replied(state: ClientState) -> None:
    """As ``told``, where the answer is one of ours."""
    if state.reply.endswith(READY_IDLE):
        news = state.take_news()
        if news:
            state.reply = state.reply[: -len(READY_IDLE)] + news + READY_IDLE


def tagged(state: ClientState, tag: bytes) -> None:
    """A command has completed that may end what the client listens to."""
    listening = state.listening
    if listening is None:
        return
    if tag == b"UNLISTEN":
        listening.unlistened()
    elif tag == b"ROLLBACK":
        if state.unlistens:
            listening.failed()
    elif tag == b"DISCARD ALL":
        listening.forget(None)


def is_between(state: ClientState) -> bool:
    """The client is between two messages of the server, and outside of any transaction."""
    if state.deferred != NOT_DEFERRED or state.skipping or state.answering:
        return False
    if state.session is None:
        return True
    whole = not state.back_need and not state.back_tail
    return whole and state.status == IDLE and not state.outstanding()
