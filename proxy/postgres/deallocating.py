"""DEALLOCATE and DISCARD ALL in SQL, about statements that are named in the protocol.

The name on the session is ours and shared, so the server is given something of the client's alone to remove.
Cold. What takes all names away is sent as it is: see responses.py for what follows from its tag.
"""

import re
from typing import Final

from proxy.postgres import asides, naming
from proxy.postgres.messages import message
from proxy.postgres.state import AWAIT, PASS, REPLACE, ClientState
from proxy.postgres.statements import CLEAR, CLOSE, EVICT, Mark

_DEALLOCATE: Final = re.compile(
    rb'(?is)\s*(?:deallocate\s+(?:prepare\s+)?(?:(all)|"((?:[^"]|"")+)"|([a-z_\x80-\xff][a-z0-9_$\x80-\xff]*))'
    rb"|(discard)\s+all)\s*;?\s*\Z"
)
# What a DEALLOCATE of the client removes instead of the shared one.
_GONE: Final = b"penstock_gone"
_DEALLOCATE_GONE: Final = b"DEALLOCATE " + _GONE
_CLOSE_GONE: Final = message(b"C", b"S" + _GONE + b"\0")
_PARSE_GONE: Final = message(b"P", _GONE + b"\0" + b"\0\0\0")


def may_concern(data: bytes, start: int, stop: int) -> bool:
    """A text that begins so may be DEALLOCATE or DISCARD ALL: the cheap look."""
    if stop - start < 11:
        return False
    first = data[start]
    if first == 68 or first == 100:  # d
        third = data[start + 2]
        return third in b"aAsS"  # DEALLOCATE, DISCARD; not DELETE, DROP, DECLARE, DO
    return first <= 32


def query(state: ClientState, text: bytes) -> int:
    """A simple Query that may be about named ones. What follows it waits until it has been answered."""
    found = _DEALLOCATE.match(text)
    if found is None:
        return PASS
    if naming.is_uncertain(state):
        return naming.hold(state, True)
    name = _named_in(found)
    if name is None:
        if state.segment:
            return PASS  # behind an error it is skipped, and nobody would ever say that it is done
        # The server will say that they are gone: see responses.py.
        state.blocked = state.holds_names = True
        state.set_aside()
        return PASS
    if name not in state.named:
        state.own_named.pop(name, None)
        return PASS  # one of SQL's PREPARE, or none at all: the server knows
    if state.session is None:
        return AWAIT
    if state.doubt or state.intruded or state.segment:
        return PASS
    state.losing = name
    state.blocked = state.holds_names = True
    state.set_aside()
    # The tag of the first statement is swallowed.
    state.piece = message(b"Q", b"PREPARE " + _GONE + b" AS SELECT;" + _DEALLOCATE_GONE + b"\0")
    return REPLACE


def parse(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Parse of the unnamed statement that may be about named ones: who parses it executes it.

    The caller counts the step of the Parse itself.
    """
    end = data.find(b"\0", pos + 6, stop)
    found = _DEALLOCATE.match(asides.parsed(data, pos, stop))
    if found is None or end < 0:
        return PASS
    if naming.is_uncertain(state):
        return naming.hold(state)
    name = _named_in(found)
    if name is not None and name not in state.named:
        state.own_named.pop(name, None)
        return PASS
    session = state.session
    if session is None:
        return AWAIT
    if state.doubt or state.intruded:
        return PASS
    if name is None:
        mark = Mark(state.sent, state.steps, CLEAR, None, b"")
        state.marks.append(mark)
        mark.names, mark.held = dict(state.named), [*session.prepared, *session.stale]
        state.named.clear()
        state.named_size = 0
        session.forget_prepared()
        state.clearing += 1
        return PASS
    naming.mark(state, EVICT, None, b"")
    naming.mark(state, EVICT, None, b"")
    statement = state.named.pop(name)
    state.named_size -= statement.size
    state.marks.append(Mark(state.sent, state.steps, CLOSE, statement, name))
    state.piece = _CLOSE_GONE + _PARSE_GONE + message(b"P", b"\0" + _DEALLOCATE_GONE + data[end:stop])
    return REPLACE


def _named_in(found: "re.Match[bytes]") -> bytes | None:
    """The statement that a DEALLOCATE names; None: all of them."""
    if found[1] is not None or found[4] is not None:
        return None
    return found[2].replace(b'""', b'"') if found[2] is not None else found[3].lower()
