"""How a session is brought back when its client has gone in the middle of something.

``drain`` ends what runs: a copy is failed, an open segment is made to fail and synchronised, and every
answer that is owed is read and thrown away. The shell cancels what runs meanwhile and settles the session
afterwards (session.py). Where a message was cut, or what is owed is not certain, there is no way back.
"""

from typing import Final

from librt.strings import read_i32_be

from proxy.errors import BackendError, RemoteProtocolError
from proxy.postgres.messages import SYNC, cstring, message
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import CALL, ENDED, IDLE, QUERY, REFUSED, ClientState, missing_statement
from proxy.postgres.state import SYNC as SYNC_OWED
from proxy.steps import Conversation

_COPY_FAIL: Final = message(b"f", cstring("the client has gone"))


def drain(state: ClientState) -> Conversation[None] | None:
    """The conversation that ends what ``state``'s client left; None where that is not certain."""
    state.must_cancel = False
    session = state.session
    assert session is not None
    if state.need:
        session.mute = True
        return None
    if state.doubt or state.intruded or (state.copy_in and state.copy_synced):
        return None
    owed = [kind for kind in state.owed if kind < ENDED]
    send = b""
    if state.copy_in:
        send = _COPY_FAIL
        if state.copy_extended:
            send += SYNC
            owed.append(0)
    elif state.segment:
        # A Sync alone would commit what the client had not ended.
        send = missing_statement(b"penstock_client_gone") + SYNC
        owed.append(0)
    # Who says Terminate has asked for what was sent before to be done; who vanishes has not.
    state.must_cancel = bool(owed) and not state.leaving and state.deferred != REFUSED
    session.status = state.status
    if owed:
        # Nobody reads what is drained, so nobody knows what it changes.
        session.touched_by, session.deep = state.number, True
        session.doubt_prepared()
    tail, state.back_tail = state.back_tail, b""
    return _Drain(owed, send, state.back_need, tail, state.opening).run(session)


class _Drain:
    # Reads answers by their headers alone, however large they are.

    def __init__(self, owed: list[int], send: bytes, need: int, tail: bytes, opening: bool) -> None:
        self.owed = owed
        self.send = send
        self.need = need
        self.data = tail
        self.opening = opening  # the answer to a BEGIN of ours is the first

    def run(self, session: PgSessionCodec) -> Conversation[None]:
        while True:
            status = self._read()
            if status:
                session.status = status
            if not self.owed and not self.need:
                break
            send, self.send = self.send, b""
            received: bytes = yield send
            self.data += received
        why = session.unlinked(self.data)
        if why:
            raise RemoteProtocolError(why)
        if session.status not in (IDLE, 84, 69):
            raise RemoteProtocolError("the server reports no transaction status that we know")

    def _read(self) -> int:
        data, end = self.data, len(self.data)
        pos = min(self.need, end)
        self.need -= pos
        status = 0
        while self.owed and (end - pos >= 6 or (end - pos == 5 and data[pos] != 90)):
            kind = data[pos]
            length = read_i32_be(data, pos + 1)
            if length < 4:
                raise RemoteProtocolError(f"the server sent a message of {length} bytes")
            if kind == 90:
                status = data[pos + 5]
                self.owed.pop(0)
            elif kind == 71:
                self._copy_in()
            elif self.opening and (kind == 67 or kind == 69):
                self.opening = False
                if kind == 69 and (self.owed[0] == QUERY or self.owed[0] == CALL):
                    # BEGIN has failed, so that was skipped; only a Sync brings an answer.
                    self.send += SYNC
            pos += 1 + length
            if pos > end:
                self.need = pos - end
                pos = end
        self.data = data[pos:]
        return status

    def _copy_in(self) -> None:
        # A copy that was on its way when the client went. A Sync inside it would not be answered.
        if self.owed[0] != QUERY or (len(self.owed) > 1 and self.owed[1] == SYNC_OWED):
            raise BackendError("a copy began whose end cannot be told")
        self.send += _COPY_FAIL
