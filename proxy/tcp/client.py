"""A client whose bytes are passed on unread: no more is known of them than whether there were any."""

from proxy.codec import FORWARD, SessionCodec, UnsharedCodec
from proxy.errors import LocalProtocolError
from proxy.reasons import CloseReason
from proxy.tcp.session import TcpSession


class TcpClient(UnsharedCodec):
    """Both directions of one client."""

    def __init__(self) -> None:
        super().__init__()
        self._session: TcpSession | None = None
        self._is_touched = False  # something passed, in either direction
        self._is_answered = False  # the server spoke last

    def client(self, data: bytes) -> int:
        """Everything is for the server."""
        if not data:
            return 0
        self.out = data
        self._is_touched, self._is_answered = True, False
        return FORWARD

    def server(self, data: bytes) -> int:
        """Everything is for the client."""
        self.out = data
        self._is_touched = self._is_answered = True
        return FORWARD

    def join(self, session: SessionCodec) -> bool:
        """The session's greeting, if it has one, is in ``reply``."""
        if not isinstance(session, TcpSession):
            raise LocalProtocolError(f"{session!r} belongs to another protocol")
        self._session = session
        self.out = b""
        self.reply = session.take_kept()
        self._is_touched = self._is_answered = bool(self.reply)
        return False

    def part(self) -> None:
        """The session knows whether it was used."""
        session, self._session = self._session, None
        if session is not None and self._is_touched:
            session.used = True

    def is_clean(self) -> bool:
        """Nothing passed; or the server spoke last, and the user says that nothing is kept then."""
        session = self._session
        if session is None or not self._is_touched:
            return True
        return self._is_answered and session.is_reusable()

    def is_running(self) -> bool:
        """Nothing can be cancelled."""
        return False

    def is_holding_idle(self) -> bool:
        """It holds a session as long as it is connected; whose turn it is nobody knows."""
        return self._session is not None

    def fatal(self, reason: CloseReason, detail: str) -> bytes:
        """There are no words for it."""
        return b""
