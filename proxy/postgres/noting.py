"""Notes what a client asks while somebody measures it: see relay/watching.py. Not called otherwise.

A client that is watched has every message looked at by itself (``aside``), so the warm scan knows nothing of
this. Kept is a reference to what was received, and no copy; what a request is, is told by its number among
those that earn a ReadyForQuery.
"""

from typing import Final

from proxy.asked import Asked
from proxy.postgres.state import AWAIT, CUT, HOLD, SESSION_MODE, STOP, ClientState

# In session mode a client's names go to the server as they are: the texts of so many are remembered,
_NAMES: Final = 1_000
# and of each so many bytes.
_TEXT: Final = 4_096


def sent(state: ClientState, verdict: int, kind: int, data: bytes, pos: int, stop: int) -> None:
    """A message, or what is here of it, has got its verdict."""
    if verdict in (CUT, HOLD, AWAIT, STOP):
        return
    if kind == 81 or kind == 70:  # Q F
        one = _latest(state, state.sent - 1)
        one.count += 1
        if kind == 81:
            one.data, one.at, one.end = data, pos + 5, stop
    elif kind == 80:  # P
        end = data.find(b"\0", pos + 5, stop)
        if end < 0:
            return
        one = _latest(state, state.sent)
        if not one.count:
            one.data, one.at, one.end = data, end + 1, stop
        if end > pos + 5 and state.pool_mode == SESSION_MODE and len(state.texts) < _NAMES:
            state.texts[data[pos + 5 : end]] = data[end + 1 : min(stop, end + _TEXT)]
    elif kind == 66:  # B
        _bound(state, _latest(state, state.sent), data, pos, stop)
    elif kind == 69:  # E
        _latest(state, state.sent).count += 1


def _latest(state: ClientState, number: int) -> Asked:
    """The request with this number, which is the latest."""
    asked = state.asked
    assert asked is not None
    if asked and asked[-1].number == number:
        return asked[-1]
    one = Asked(number)
    asked.append(one)
    return one


def _bound(state: ClientState, one: Asked, data: bytes, pos: int, stop: int) -> None:
    """A Bind says which statement is meant; the first of a request is what it is known by."""
    if one.count:
        return
    begin = data.find(b"\0", pos + 5, stop) + 1
    end = data.find(b"\0", begin, stop) if begin else -1
    if end < 0:
        return
    text = b""
    if end == begin:
        # A Parse message, whose name is empty.
        whole = state.parse if state.parse is not None else state.large
        text = whole[6:] if whole is not None and len(whole) > 6 else b""
    else:
        name = data[begin:end]
        statement = state.named.get(name)
        text = statement.body if statement is not None else state.texts.get(name, b"")
    one.data, one.at, one.end = text, 0, len(text)


def completed(state: ClientState, tag: bytes) -> None:
    """A CommandComplete: how many rows it was about is the last word of its tag."""
    one = _answered(state)
    count = tag[tag.rfind(b" ") + 1 :]
    if one is not None and count.isdigit() and len(count) < 19:
        one.rows += int(count)


def failed(state: ClientState, message: bytes) -> None:
    """An ErrorResponse, as the server sent it."""
    one = _answered(state)
    if one is not None:
        at = message.find(b"\0C", 5)
        code = message[at + 2 : at + 7] if at > 0 else b""
        one.failed = code.decode("ascii", "replace") if code.isalnum() else "XX000"


def _answered(state: ClientState) -> Asked | None:
    """The request that the server speaks of. Those before it may not have been taken from the list yet."""
    for one in state.asked or ():
        if one.number >= state.seen:
            return one if one.number == state.seen else None
    return None
