"""What the server says of the session itself, not of what its client asked: settings, and its end.

Cold, beside the scan in responses.py.
"""

from typing import Final

from proxy.postgres.messages import read_fields
from proxy.postgres.state import IDLE, SESSION_MODE, ClientState

# Behind the severity in the session's language comes the one that is never translated.
_LAST: Final = (b"VFATAL\0", b"VPANIC\0")


def changed(state: ClientState, body: bytes) -> None:
    """A ParameterStatus: a setting has another value now, which the client wants from now on."""
    name, _, value = body.decode("utf-8", "replace").removesuffix("\0").partition("\0")
    session = state.session
    if session is None:
        return
    session.reported[name] = value
    session.server.note(name, value, True)
    session.profile = state.profiles.changed_if_tracked(state.profile, name.lower(), value)
    state.want(session.profile)


def has_ended(state: ClientState, message: bytes) -> bool:
    """An ErrorResponse that ends the session, where everything that its client asked for is answered.

    The client is not told, for it has no part in that: the next statement has another session.
    """
    if not message.startswith(_LAST, message.find(b"\0", 5) + 1):
        return False
    session = state.session
    if session is None or not _is_going_home(state):
        state.saw_fatal = True
        return False
    session.ended = read_fields(message[5:]).get("M", "") or "FATAL"
    return True


def _is_going_home(state: ClientState) -> bool:
    if state.seen == 0 or state.pins or state.pool_mode == SESSION_MODE:
        return False
    return state.status == IDLE and not state.owed and not state.segment and not state.doubt
