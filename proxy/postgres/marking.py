"""What the server makes of the Parses and Closes that mean something to us: confirmed, skipped or unknown.

Cold. A reply is found by its place among those that are answered (``Mark``); after an error the server skips
the rest of a segment, and what that stood for is undone.
"""

from proxy.postgres import asides, naming
from proxy.postgres.messages import message
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import UNCLEAR, ClientState
from proxy.postgres.statements import (
    CHECK,
    CLEAR,
    CLOSE,
    CREATE,
    DESCRIBE,
    ENSURE,
    EVICT,
    SHARE,
    TIDY,
    TRIED,
    TRY,
    UNNAMED,
    Mark,
    Statement,
)


def answered(state: ClientState) -> bytes | None:
    """A ParseComplete or CloseComplete has come in the place of the first mark; what replaces it."""
    mark = state.marks.pop(0)
    what = mark.kind
    if what == SHARE:
        return asides.PARSE_COMPLETE
    if what == CLOSE and mark.statement is not None:
        state.statements.give(mark.statement)
    elif what == CLEAR and mark.names is not None:
        for statement in mark.names.values():
            state.statements.give(statement)
    elif mark.statement is not None and what in (CREATE, ENSURE, TRY):
        mark.statement.is_proven = True
    return None if what in (CREATE, TRY, CLOSE, CLEAR) else b""


def described(state: ClientState, told: bytes) -> bool:
    """The first mark's statement has been described; whether that is for us alone."""
    mark = state.marks.pop(0)
    statement = mark.statement
    if statement is None:
        return False
    if mark.kind == DESCRIBE:
        if not statement.description:
            _described_first(state, mark.name, statement, told)
        return False
    if told != statement.description and _shape(told) != _shape(statement.description):
        state.misfit = statement
        state.statements.renew()
    return True


def cleared(state: ClientState, session: PgSessionCodec) -> None:
    """The server has forgotten all named statements; what was sent behind that is still to come."""
    session.forget_prepared()
    coming: dict[bytes, Statement] = {}
    for mark in state.marks:
        statement = mark.statement
        if statement is not None and mark.kind in (ENSURE, CREATE):
            session.prepared[statement] = None
        if statement is not None and mark.kind in (CREATE, SHARE, TRY):
            coming[mark.name] = statement
    for name in list(state.named):
        if name not in coming:
            naming.lose(state, name)
    state.own_named.clear()


def is_ours(state: ClientState) -> bool:
    """Whether the client does not know of the first mark's Describe."""
    return state.marks[0].kind == CHECK


def _described_first(state: ClientState, name: bytes, statement: Statement, told: bytes) -> None:
    if statement.parsed <= 1:
        statement.description = told
        return
    # Other sessions were given it before, perhaps when its tables were other ones.
    if state.named.get(name) is statement:
        twin = state.statements.take_twin(statement, told)
        if twin is not None:
            state.named[name] = twin
            state.statements.give(statement)


def _shape(told: bytes) -> list[bytes]:
    """What a driver decodes by: the parameters, and of each column its name and types.

    Which table it comes from differs between servers that are otherwise alike.
    """
    end = 1 + int.from_bytes(told[1:5], "big")
    parts, columns = [told[:end]], told[end:]
    at = 7
    while columns[:1] == b"T" and at < len(columns):
        name = columns.index(b"\0", at) + 1
        parts += [columns[at:name], columns[name + 6 : name + 18]]
        at = name + 18
    return [*parts, columns[:7]]


def skipped(state: ClientState) -> None:
    """The server has skipped what these marks stand for: a segment has ended that had an error."""
    marks = state.marks
    late = 0
    while late < len(marks) and marks[late].sync < state.seen:
        late += 1
    session = state.session
    for mark in reversed(marks[:late]):
        _undo(state, mark)
        if session is not None:
            _undo_on(session, mark)
    del marks[:late]


def abandoned(state: ClientState) -> None:
    """Nobody will know what the server has made of these marks."""
    session = state.session
    for mark in reversed(state.marks):
        _undo(state, mark)
        statement = mark.statement
        if session is not None and statement is not None and mark.kind in (ENSURE, CREATE, EVICT, TIDY):
            session.prepared.pop(statement, None)
            session.stale.append(statement)
        if session is not None and mark.held is not None:
            session.stale += mark.held
    if session is not None:
        session.latest = None
    state.marks.clear()


def _undo(state: ClientState, mark: Mark) -> None:
    """Give the client back, or take from it, what the message had done to its names."""
    what, name, statement = mark.kind, mark.name, mark.statement
    if what == UNNAMED:
        state.holds = UNCLEAR
    elif what in (CREATE, SHARE, TRY):
        if state.named.get(name) is statement:
            naming.lose(state, name)
    elif what == CLOSE and statement is not None:
        if name in state.named:
            state.statements.give(statement)
        else:
            _regain(state, name, statement)
    elif what == CLEAR and mark.names is not None:
        state.clearing -= 1
        for known, had in mark.names.items():
            if known in state.named:
                state.statements.give(had)
            else:
                _regain(state, known, had)


def _regain(state: ClientState, name: bytes, statement: Statement) -> None:
    state.named[name] = statement
    state.named_size += statement.size


def _undo_on(session: PgSessionCodec, mark: Mark) -> None:
    statement = mark.statement
    session.latest = None
    if mark.held is not None:
        session.stale += mark.held
    elif statement is None:
        return
    elif mark.kind == ENSURE or mark.kind == CREATE:
        session.prepared.pop(statement, None)
    elif mark.kind == EVICT:
        session.prepared[statement] = None
    elif mark.kind == TIDY:
        session.stale.append(statement)


def failed(state: ClientState, text: bytes) -> bytes | None:
    """An ErrorResponse of a session that holds statements of ours; what replaces it, None: nothing."""
    session = state.session
    if session is None:
        return None
    if b"RRevalidateCachedQuery\0" in text:
        # A table is not what it was.
        state.statements.renew()
    if b'"penstock_' not in text:
        return None
    told = _in_its_own_words(state, text)
    if b'"penstock_' in told and (b"C26000\0" in text or b"C42P05\0" in text):
        # Somebody has meddled with our names on it.
        session.doubt_prepared()
    return told


def _in_its_own_words(state: ClientState, text: bytes) -> bytes:
    body = text[5:]
    # By our name, for one of the client's may have stood for another statement when this was sent.
    theirs = {statement.name: name for name, statement in state.named.items()}
    for mark in state.marks:
        if mark.statement is not None and mark.name:
            theirs.setdefault(mark.statement.name, mark.name)
        elif mark.names is not None:
            # A DEALLOCATE ALL that the server has not read yet.
            for name, statement in mark.names.items():
                theirs.setdefault(statement.name, name)
        elif mark.name:
            body = body.replace(b'"' + TRIED + b'"', b'"' + mark.name + b'"')
    for ours, name in theirs.items():
        body = body.replace(b'"' + ours + b'"', b'"' + name + b'"')
    return message(b"E", body)
