"""What becomes of the unusual messages of a client: the cold room beside the scan in relaying.py.

Each function looks at one message and returns a verdict (PASS, CUT, REPLACE, ...). Errors that we give
in the middle of a pipeline are left to the server to order: it is sent something that it must refuse,
and its refusal is replaced by ours (``fault``), so its skipping to Sync and its failed transaction are real.
"""

from typing import Final

from proxy.postgres.messages import READY_IDLE, error, query, ready
from proxy.postgres.own import read
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

_NAMED_HINT: Final = (
    "Switch them off in the driver (asyncpg: statement_cache_size=0; psycopg 3: prepare_threshold=None; "
    'pgbench: -M extended; JDBC: prepareThreshold=0), or set pool_mode = "session" for this pool.'
)


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


def refuse_named(state: ClientState) -> int:
    """A named prepared statement where sessions change hands between transactions."""
    return refuse_here(
        state,
        error(
            "ERROR",
            "0A000",
            "named prepared statements are not supported in this pool_mode",
            detail="A session is given to another client at the end of each transaction.",
            hint=_NAMED_HINT,
        ),
        False,
    )


def refuse_unnamed(state: ClientState) -> int:
    """The unnamed statement is used, and this client has none."""
    large = state.large is not None
    hint = "The statement was too large to be prepared again on another session." if large else ""
    refusal = error("ERROR", "26000", "unnamed prepared statement does not exist", hint=hint)
    return refuse_here(state, refusal, False)


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
    if state.own is not None and kind in (66, 68):
        return _use_own(state, kind, data, pos, stop)
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
        return hold(state)
    wrong = check(state, statement)
    if wrong:
        return refuse_here(state, wrong, True)
    end_unnamed(state)
    state.reply += run(state, statement, True) + ready(state.status)
    return CUT


def own_parse(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Parse of the unnamed statement that may be about us."""
    statement = read(parsed(data, pos, stop))
    if statement is None:
        return PASS
    if state.segment:
        return fault(state, trouble(out_of_place()), False)
    if state.owed or state.copy_in:
        return hold(state)
    end_unnamed(state)
    state.own = statement
    state.answering = True
    state.set_aside()
    return _answer(state, 80, data, pos, stop)


def parsed(data: bytes, pos: int, stop: int) -> bytes:
    """The text of a Parse of the unnamed statement, or what is here of it."""
    end = data.find(b"\0", pos + 6, stop)
    return data[pos + 6 : end if end >= 0 else stop]


def end_unnamed(state: ClientState) -> None:
    """A simple Query ends it: the server would have forgotten it; it has not seen why."""
    state.parse = state.large = None
    if state.session is not None:
        state.holds = UNCLEAR


def _use_own(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    # Bind or Describe; one that is not about the unnamed statement goes on to the plain scan.
    if not uses_unnamed(kind, data, pos, stop):
        return -1
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


def hold(state: ClientState) -> int:
    """The message and what follows wait until nothing is outstanding."""
    state.blocked = True
    state.set_aside()
    return HOLD


def _answer(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """One message of a segment that we answer ourselves."""
    statement = state.own
    assert statement is not None
    if kind == 83:  # S
        state.answering = False
        state.set_aside()
        state.reply += ready(state.status)
        return CUT
    wrong = check(state, statement)
    if kind == 80 and not wrong:  # P
        fresh = read(parsed(data, pos, stop)) if stop - pos > 5 and data[pos + 5] == 0 else None
        wrong = trouble(out_of_place()) if fresh is None else check(state, fresh)
        statement = state.own = fresh or statement
    if wrong:
        state.answering, state.own = False, None
        state.set_aside()
        return refuse_here(state, wrong, False)
    if kind == 80:
        state.reply += PARSE_COMPLETE
    elif kind == 66:  # B
        state.reply += BIND_COMPLETE
    elif kind == 68:  # D
        state.reply += NO_PARAMETERS if stop - pos > 5 and data[pos + 5] == 83 else b""
        state.reply += columns(statement) if statement.verb == "SHOW" else NO_DATA
    elif kind == 69:  # E
        state.reply += run(state, statement, False)
    elif kind == 67:  # C
        state.reply += CLOSE_COMPLETE
    return CUT


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
        state.parses = state.parses_seen
        if state.swallow:
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
