"""One execution of a named statement that has come as a whole, as it does from nearly every driver.

Warm: it is rewritten before there is a session, which costs no second look when it has one that holds the
statement. What is not of that shape is left to naming.py.
"""

from librt.strings import read_i32_be

from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import AWAIT, SYNC, WHOLE, ClientState
from proxy.postgres.statements import Statement


def ahead(state: ClientState, statement: Statement, data: bytes, begin: int, end: int, stop: int) -> int:
    """Without a session: a read that is one execution and nothing else is rewritten at once, else AWAIT.

    The Bind ends at ``stop``; the name in it is ``data[begin:end]``. ``join`` does the rest: as nothing is
    outstanding, all that is changed here can be taken back.
    """
    if (
        begin != 6
        or statement.effects
        or state.aside
        or state.terms_changed
        or state.outstanding()
        or state.marks
        or not _is_one_execution(data, stop)
    ):
        return AWAIT
    state.queries += 1
    state.owed.append(SYNC)
    state.sent += 1
    state.steps = 0
    state.used, state.unsent = statement, data
    state.piece = head(statement, data, 0, begin, end) + data[end + 1 :]
    return WHOLE


def _is_one_execution(data: bytes, pos: int) -> bool:
    """Behind a Bind: perhaps a Describe of the portal, Execute, Sync, and no more."""
    end = len(data)
    if data[0] != 66 or end - pos < 15:  # B
        return False
    if data[pos] == 68 and data[pos + 5] == 80:  # D of a portal
        length: int = read_i32_be(data, pos + 1)
        if length < 6 or end - pos - length < 16:
            return False
        pos += 1 + length
    length = read_i32_be(data, pos + 1)
    return (
        data[pos] == 69  # E
        and length == end - pos - 6
        and data[end - 5] == 83  # S
        and read_i32_be(data, end - 4) == 4
    )


def join(state: ClientState, session: PgSessionCodec, due: bool) -> None:
    """There is a session for an execution that was rewritten ahead. Where that lacks the statement, or has to
    be given the client's settings first, it is looked at again.
    """
    statement, state.used = state.used, None
    unsent, state.unsent = state.unsent, b""
    if statement is None:
        return
    if not due and session.latest is statement:
        return
    if not due and not session.stale and statement in session.prepared:
        del session.prepared[statement]
        session.prepared[statement] = None
        session.latest = statement
        return
    state.owed.clear()
    state.sent -= 1
    state.queries -= 1
    state.tail = unsent
    state.out = b""
    state.more = True


def head(statement: Statement, data: bytes, pos: int, begin: int, end: int) -> bytes:
    """How the Bind begins with our name in it; where it follows from the statement alone, kept."""
    length = int(read_i32_be(data, pos + 1)) - (end - begin) + len(statement.name)
    if begin == pos + 6:
        if statement.bind_length != length:
            statement.bind_length = length
            statement.bind_head = b"B" + length.to_bytes(4, "big") + b"\0" + statement.name + b"\0"
        return statement.bind_head
    return b"B" + length.to_bytes(4, "big") + data[pos + 5 : begin] + statement.name + b"\0"
