"""What becomes of the unusual messages of a client: the cold room beside the scan in relaying.py.

Each function looks at one message and returns a verdict (PASS, CUT, REPLACE, ...). Errors that we give
in the middle of a pipeline are left to the server to order: it is sent something that it must refuse,
and its refusal is replaced by ours (``fault``), so its skipping to Sync and its failed transaction are real.
"""

from typing import Final

from proxy.postgres.messages import READY_IDLE, error, query, ready
from proxy.postgres.own import OwnStatement, read
from proxy.postgres.own_answers import check, columns, out_of_place, run, trouble
from proxy.postgres.state import (
    CUT,
    ENDED,
    ENDED_INSIDE,
    FAILED,
    HOLD,
    IDLE,
    NOT_DEFERRED,
    PASS,
    QUERY,
    REFUSED,
    REPLACE,
    STATEMENT_MODE,
    STOP,
    SYNC,
    UNCLEAR,
    ClientState,
    missing_statement,
)

PARSE_COMPLETE: Final = b"1\x00\x00\x00\x04"
BIND_COMPLETE: Final = b"2\x00\x00\x00\x04"
CLOSE_COMPLETE: Final = b"3\x00\x00\x00\x04"
NO_DATA: Final = b"n\x00\x00\x00\x04"
NO_PARAMETERS: Final = b"t\x00\x00\x00\x06\x00\x00"


def fault(state: ClientState, refusal: bytes, simple: bool) -> int:
    """Refuse a message in its place among others: ``refusal`` replaces the error that the server gives."""
    state.faults_made += 1
    marker = b"penstock_refused_%d_" % state.faults_made
    state.faults[marker] = refusal
    if simple:
        state.querying()
        state.piece = query(f'EXECUTE "{marker.decode()}"')
    else:
        state.segment = True
        state.piece = missing_statement(marker)
    return REPLACE


def refuse_here(state: ClientState, refusal: bytes, simple: bool) -> int:
    """Refuse a message, by ourselves where nothing is outstanding and no session is held."""
    if state.session is not None or state.outstanding():
        return fault(state, refusal, simple)
    state.reply += refusal
    if state.deferred != NOT_DEFERRED:
        state.deferred, state.status = REFUSED, FAILED
    if simple:
        end_unnamed(state)
        state.reply += ready(state.status)
    else:
        state.skipping = True
        state.set_aside()
    return CUT


def refuse_unnamed(state: ClientState) -> int:
    """The unnamed statement is used, and this client has none."""
    large = state.large is not None
    hint = "The statement was too large to be prepared again on another session." if large else ""
    refusal = error("ERROR", "26000", "unnamed prepared statement does not exist", hint=hint)
    return refuse_here(state, refusal, False)


def aborted() -> bytes:
    """What a statement in a failed transaction is answered by."""
    text = "current transaction is aborted, commands ignored until end of transaction block"
    return error("ERROR", "25P02", text)


def set_aside_message(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """The verdict on a message while ``aside`` is set; -1 hands it back to the plain scan."""
    if state.blocked:
        return HOLD
    if kind == 88:  # X
        return STOP
    if state.skipping:
        if kind != 83:
            return CUT
        state.skipping = False
        state.set_aside()
        state.reply += ready(state.status)
        return CUT
    if state.answering and kind in (70, 81):  # F, Q: the client did not even end its segment
        state.answering = False
        state.set_aside()
    if state.answering:
        return _answer(state, kind, data, pos, stop)
    if state.own is not None and kind in (66, 68) and uses_unnamed(kind, data, pos, stop):
        return use_own(state, kind, data, pos, stop)
    if state.own is not None and kind == 81:
        state.own = None  # a simple Query ends the unnamed statement
        state.set_aside()
    return -1


def own_query(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A simple Query that may be about us."""
    statement = read(data[pos + 5 : stop])
    if statement is None:
        return PASS
    if state.segment:
        return fault(state, trouble(out_of_place()), True)
    if state.owed or state.copy_in:
        return hold(state, True)
    wrong = check(state, statement)
    if wrong:
        return refuse_here(state, wrong, True)
    end_unnamed(state)
    state.reply += run(state, statement, True) + ready(state.status)
    return CUT


def own_parse(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Parse that may be about us."""
    if read(parsed(data, pos, stop)) is None:
        return PASS
    return use_own(state, 80, data, pos, stop)


def parsed(data: bytes, pos: int, stop: int) -> bytes:
    """The text of a Parse, or what is here of it."""
    begin = data.find(b"\0", pos + 5, stop) + 1
    end = data.find(b"\0", begin, stop)
    return data[begin : end if end >= 0 else stop]


def end_unnamed(state: ClientState) -> None:
    """A simple Query ends it: the server would have forgotten it; it has not seen why."""
    state.parse = state.large = None
    if state.session is not None:
        state.holds = UNCLEAR


def use_own(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """A Parse, Bind or Describe of a statement of ours: it begins a segment that we answer."""
    if state.segment:
        return fault(state, trouble(out_of_place()), False)
    if state.owed or state.copy_in:
        return hold(state)
    state.answering = True
    state.set_aside()
    return _answer(state, kind, data, pos, stop)


def uses_unnamed(kind: int, data: bytes, pos: int, stop: int) -> bool:
    """A Bind or Describe is about the unnamed statement, or too odd to tell."""
    if kind == 68:
        return stop - pos < 7 or (data[pos + 5] == 83 and data[pos + 6] == 0)
    portal_end = data.find(b"\0", pos + 5, stop)
    return not 0 <= portal_end < stop - 1 or data[portal_end + 1] == 0


def hold(state: ClientState, simple: bool = False) -> int:
    """The message and what follows wait until nothing is outstanding; ``simple``: it is a Query.

    Where that may never be told, it is refused.
    """
    if state.doubt:
        return fault(state, uncertain(), simple)
    state.blocked = True
    state.set_aside()
    return HOLD


def uncertain() -> bytes:
    """What is told where the answers cannot be counted any more."""
    return error(
        "ERROR",
        "0A000",
        "this statement cannot follow here",
        detail="A Query or copy data was sent before the Sync that was due, so which answers are still to "
        "come is not certain.",
        hint="Send Sync first, and wait for its answer; or connect again.",
    )


def _answer(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """One message of a segment that we answer ourselves."""
    if kind == 83:  # S
        state.answering = False
        state.set_aside()
        state.reply += ready(state.status)
        return CUT
    if kind == 72:  # H
        return CUT
    statement = _spoken_of(state, kind, data, pos, stop)
    wrong = trouble(out_of_place()) if statement is None else check(state, statement)
    if statement is None or wrong:
        state.answering, state.own = False, None
        state.set_aside()
        return refuse_here(state, wrong, False)
    if kind == 80:
        _keep_own(state, name_in(kind, data, pos, stop), statement)
        state.reply += PARSE_COMPLETE
    elif kind == 66:  # B
        state.own_bound = statement
        state.reply += BIND_COMPLETE
    elif kind == 68:  # D
        state.reply += NO_PARAMETERS if data[pos + 5] == 83 else b""
        state.reply += columns(statement) if statement.verb == "SHOW" else NO_DATA
    elif kind == 69:  # E
        state.reply += run(state, statement, False)
    elif kind == 67:  # C
        state.own_named.pop(name_in(kind, data, pos, stop), None)
        state.reply += CLOSE_COMPLETE
    return CUT


def name_in(kind: int, data: bytes, pos: int, stop: int) -> bytes:
    """The statement that a message names; a Describe or Close of a portal begins with "P" instead."""
    begin = pos + 5
    if kind == 66:
        begin = data.find(b"\0", begin, stop) + 1
    elif kind != 80:
        begin += 1
    end = data.find(b"\0", begin, stop)
    return data[begin:end] if end >= 0 else b""


def _spoken_of(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> OwnStatement | None:
    """Which statement of ours a message of our segment is about; None where it is about no such."""
    if stop - pos < 6:
        return None
    if kind == 80:
        return read(parsed(data, pos, stop))
    if kind == 69 or (kind != 66 and data[pos + 5] == 80):
        return state.own_bound
    if kind == 66 or kind == 68:
        name = name_in(kind, data, pos, stop)
        return state.own_named.get(name) if name else state.own
    return state.own_bound or state.own or OwnStatement("", "", None)


def _keep_own(state: ClientState, name: bytes, statement: OwnStatement) -> None:
    if name:
        state.own_named[name] = statement
    else:
        end_unnamed(state)
        state.own = statement
        state.set_aside()


def idle_message(state: ClientState, kind: int) -> int:
    """Sync, Flush and copy data where nothing is outstanding and no session is held."""
    if kind == 83:
        state.reply += ready(state.status)
    # Copy data that comes late, after the server has ended the copy, is ignored as a server ignores it.
    return CUT


def copy_ended(state: ClientState) -> int:
    """CopyDone or CopyFail."""
    if state.copy_in:
        state.copy_in = False
    elif state.segment:
        state.owed.append(ENDED_INSIDE)
    elif state.owed:
        state.owed.append(ENDED)
    return PASS


def copy_in_started(state: ClientState) -> None:
    """The server wants copy data: a Sync that it reads from now on is not answered, so it is not owed."""
    owed = state.owed
    at = 1 if owed and owed[0] == QUERY else 0
    state.copy_extended = at == 0
    synced = False
    while len(owed) > at and owed[at] == SYNC:
        owed.pop(at)
        state.sent -= 1
        synced = True
    if synced:
        state.copy_synced = True
        # The segment goes on behind the copy.
        state.steps = state.steps_seen
        if state.marks:
            state.doubt = True
    if len(owed) > at and owed[at] >= ENDED:
        # The client has ended the copy without waiting for the server's word.
        owed.pop(at)
        if synced:
            state.doubt = True
        if state.copy_extended and not owed:
            state.segment = True
    else:
        state.copy_in = True
        if state.copy_extended:
            state.segment = True


def transaction_refused(state: ClientState) -> bytes:
    """Instead of ReadyForQuery, when a client of a statement-mode pool has opened a transaction."""
    assert state.pool_mode == STATEMENT_MODE
    state.violated = True
    return (
        error(
            "ERROR",
            "0A000",
            "transaction blocks are not supported in pool_mode statement",
            detail="It was rolled back.",
            hint=f'Set pools.{state.terms.pool}.pool_mode = "transaction".',
        )
        + READY_IDLE
    )


def is_resting(state: ClientState) -> bool:
    """The session is as it was before this client: idle, and nothing on its way."""
    return (
        state.status == IDLE
        and not state.outstanding()
        and not state.need
        and not state.back_need
        and not state.back_tail
    )
