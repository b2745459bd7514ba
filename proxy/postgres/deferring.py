"""A client's BEGIN that the server has not seen: answered here, and sent with the first statement.

``state.deferred`` says how far it is. DEFERRED: the client has been told that its transaction is open, and
no session is held. SENT: its first statement waits for a session or runs on one, with BEGIN ahead of it
that the server has not confirmed; nothing behind that statement's unit is sent until it has, for if BEGIN
fails, the server skips to the next Sync and no further. REFUSED: there was no session, or BEGIN failed, so
the client is in a failed transaction that only we know of. Cold: while neither holds and a session is held,
no message comes here.
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.postgres import asides, naming, reading
from proxy.postgres.begin import (
    LOOK,
    NO_UNIT,
    NOT_YET,
    Begin,
    End,
    goes_to_savepoint,
    may_begin,
    may_end,
    read_begin,
    read_end,
    read_failed_end,
    text_of,
    whole_unit,
)
from proxy.postgres.messages import error, message, ready
from proxy.postgres.own import concerns, split
from proxy.postgres.state import (
    CUT,
    DEFERRED,
    FAILED,
    HOLD,
    IDLE,
    IN_TRANSACTION,
    NOT_DEFERRED,
    PASS,
    REFUSED,
    REPLACE,
    SENT,
    TRANSACTION_MODE,
    ClientState,
)

EMPTY: Final = b"I\x00\x00\x00\x04"
READY_IN_TRANSACTION: Final = b"Z\x00\x00\x00\x05T"
_BLANKS: Final = b" \t\n\r\f;"


def met(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """The verdict on a message where a BEGIN is deferred or may be; -1 hands it to the plain scan."""
    if state.answered:
        state.answered -= 1
        state.set_aside()
        return CUT
    if state.deferred == SENT:
        return asides.hold(state, kind == 81) if state.owed else -1
    if state.reads and state.session is not None:
        return reading.met(state, kind, data, pos, stop)
    if state.session is not None or state.outstanding() or kind in (72, 83, 99, 100, 102):  # H S c d f
        return -1
    if state.deferred == DEFERRED:
        return _in_transaction(state, kind, data, pos, stop)
    if state.deferred == REFUSED:
        return _in_failed(state, kind, data, pos, stop)
    if state.terms.begin == 0 or state.pool_mode != TRANSACTION_MODE:
        return -1  # it is here for another reason
    return _outside(state, kind, data, pos, stop)


def _outside(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """A message that may be a BEGIN, alone: where more has been sent behind it, to defer it gains nothing."""
    begin = _begun(kind, data, pos, stop)
    if begin is None:
        return -1
    reading.aim(state, begin)
    if state.terms.begin == LOOK:
        return -1
    if kind == 81:  # Q
        if stop != len(data):
            return -1
        asides.end_unnamed(state)
    else:
        end, count, replies = whole_unit(data, pos)
        if end == NOT_YET:
            return HOLD
        if end == NO_UNIT or end != len(data):
            return -1
        _answer_unit(state, data[pos:stop], count, replies)
    state.queries += 1
    state.begin = begin
    _open(state)
    state.reply += begin.complete + READY_IN_TRANSACTION
    return CUT


def _begun(kind: int, data: bytes, pos: int, stop: int) -> Begin | None:
    if kind == 81 and may_begin(data, pos + 5):  # Q
        return read_begin(text_of(data, pos, stop))
    if kind == 80 and stop - pos >= 8 and data[pos + 5] == 0 and may_begin(data, pos + 6):  # P
        return read_begin(asides.parsed(data, pos, stop))
    return None


def _answer_unit(state: ClientState, parse: bytes, count: int, replies: bytes) -> None:
    # The rest of the unit is here, and is not looked at again.
    state.answered = count - 1
    _parsed(state, parse)
    state.reply += replies


def _parsed(state: ClientState, parse: bytes) -> None:
    """A Parse of the unnamed statement that no session has seen."""
    state.own = None
    state.parse, state.large = parse, None
    state.pending = state.resent = False


def _open(state: ClientState) -> None:
    state.deferred, state.status = DEFERRED, IN_TRANSACTION
    state.aside = True
    if state.begin is not None:
        reading.aim(state, state.begin)


def _close(state: ClientState) -> None:
    state.deferred, state.status = NOT_DEFERRED, IDLE
    if state.reads:
        reading.over(state)
    state.set_aside()


def _complete(tag: bytes) -> bytes:
    return message(b"C", tag + b"\0")


def _first(state: ClientState) -> int:
    """This is the first statement of the transaction: BEGIN goes ahead of it, once there is a session."""
    state.deferred = SENT
    return -1


def _in_transaction(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """A message in a transaction of which the server knows nothing yet."""
    if kind == 81:  # Q
        if concerns(data, pos + 5, stop):
            verdict = asides.own_query(state, data, pos, stop)
            if verdict != PASS:
                return verdict
        end = read_end(text_of(data, pos, stop)) if may_end(data, pos + 5) else None
        if end is not None and not end.chain:
            asides.end_unnamed(state)
            return _ended(state, end)
    elif kind == 80 and stop - pos >= 8 and data[pos + 5] == 0:  # P
        return _parse_in_transaction(state, data, pos, stop)
    return _first(state)


def _parse_in_transaction(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    if concerns(data, pos + 6, stop):
        verdict = asides.own_parse(state, data, pos, stop)
        if verdict != PASS:
            return verdict
    end = read_end(asides.parsed(data, pos, stop)) if may_end(data, pos + 6) else None
    if end is None or end.chain:
        return _first(state)
    at, count, replies = whole_unit(data, pos)
    if at == NOT_YET:
        return HOLD
    if at == NO_UNIT:
        return _first(state)
    _answer_unit(state, data[pos:stop], count, replies)
    return _ended(state, end)


def _ended(state: ClientState, end: End) -> int:
    """Nothing has run, so nobody has to be asked."""
    state.queries += 1
    _close(state)
    state.reply += _complete(end.tag) + ready(IDLE)
    return CUT


# -- a failed transaction that only we know of --------------------------------------------------------


def _in_failed(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """A message in a transaction that has failed: answered as the server would."""
    if kind == 81:  # Q
        return _failed_query(state, data, pos, stop)
    if kind == 70:  # F
        state.reply += asides.aborted() + ready(FAILED)
    elif kind == 80:  # P
        return _failed_parse(state, data, pos, stop)
    elif kind == 67:  # C
        if data[pos + 5 : stop] == b"S\0":
            state.parse = state.large = None
        elif data[pos + 5] == 83:
            naming.lose(state, asides.name_in(kind, data, pos, stop))
        state.reply += asides.CLOSE_COMPLETE
    elif kind == 69:  # E
        _failed_execute(state)
    elif kind == 68 and data[pos + 5] == 80:  # D of a portal
        if state.bound is None:
            return _skip(state, error("ERROR", "34000", "portal does not exist"))
        state.reply += asides.NO_DATA
    else:
        return _failed_use(state, kind, data, pos, stop)
    return CUT


def _failed_use(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    # Bind, or Describe of a statement.
    text = _text(state, kind, data, pos, stop)
    if text is None:
        return _skip(state, error("ERROR", "26000", "prepared statement does not exist"))
    if not _may_run(text):
        return _skip(state, asides.aborted())
    if kind == 66:
        state.bound = text
        state.reply += asides.BIND_COMPLETE
    else:
        state.reply += asides.NO_PARAMETERS + asides.NO_DATA
    return CUT


def _failed_query(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    if concerns(data, pos + 5, stop):
        verdict = asides.own_query(state, data, pos, stop)
        if verdict != PASS:
            return verdict
    asides.end_unnamed(state)
    text = text_of(data, pos, stop)
    is_whole = pos + 1 + read_i32_be(data, pos + 1) == stop
    if is_whole and not text.strip(_BLANKS):
        state.queries += 1
        state.reply += EMPTY + ready(FAILED)
        return CUT
    end = read_failed_end(text) if may_end(data, pos + 5) or text[:1] in b"pP" else None
    rest = b""
    if end is None and is_whole and b";" in text:
        # What is behind the end of the failed transaction is to run, so it needs a session.
        parts = split(text)
        end = read_failed_end(parts[0]) if len(parts) > 1 else None
        rest = b";".join(parts[1:])
    if end is None:
        state.queries += 1
        state.reply += (_no_savepoint() if goes_to_savepoint(text) else asides.aborted()) + ready(FAILED)
        return CUT
    _roll_back(state, end)
    if not rest:
        state.queries += 1
        state.reply += ready(state.status)
        return CUT
    if state.deferred == DEFERRED:
        _first(state)
    state.querying()
    state.piece = message(b"Q", rest + b"\0")
    return REPLACE


def _failed_parse(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    if stop - pos < 7:
        return -1
    if concerns(data, data.find(b"\0", pos + 5, stop) + 1, stop):
        verdict = asides.own_parse(state, data, pos, stop)
        if verdict != PASS:
            return verdict
    if data[pos + 5] == 0:
        asides.end_unnamed(state)
    if not _may_run(asides.parsed(data, pos, stop)):
        return _skip(state, asides.aborted())
    if data[pos + 5] != 0:
        return naming.prepare_unseen(state, data, pos, stop)
    _parsed(state, data[pos:stop])
    state.reply += asides.PARSE_COMPLETE
    return CUT


def _failed_execute(state: ClientState) -> None:
    text, state.bound = state.bound, None
    state.queries += 1
    if text is None:
        _skip(state, error("ERROR", "34000", "portal does not exist"))
        return
    end = read_failed_end(text)
    if end is None:
        state.reply += EMPTY
    else:
        _roll_back(state, end)


def _roll_back(state: ClientState, end: End) -> None:
    state.reply += _complete(end.tag)
    if end.chain:
        _open(state)
    else:
        _close(state)


def _may_run(text: bytes) -> bool:
    return not text.strip(_BLANKS) or read_failed_end(text) is not None


def _text(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> bytes | None:
    """The text of the statement that a Bind or Describe is about; None: there is none."""
    if not asides.uses_unnamed(kind, data, pos, stop):
        named = state.named.get(asides.name_in(kind, data, pos, stop))
        return None if named is None else named.text()
    parse = state.parse
    return None if parse is None else asides.parsed(parse, 0, len(parse))


def _skip(state: ClientState, refusal: bytes) -> int:
    state.reply += refusal
    state.bound = None
    state.skipping = True
    state.set_aside()
    return CUT


def _no_savepoint() -> bytes:
    return error("ERROR", "3B001", "savepoint does not exist")
