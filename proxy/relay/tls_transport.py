"""TLS between a connection of the system and what is above it: the one's protocol, the other's transport.

Warm: what arrives is decrypted and handed on in one call, what is written is encrypted and goes out in one
write; no task, no timer, no turn of the loop. OpenSSL's buffers are fed by slices, so that a connection that
moved much once does not keep much. Reading and writing are held exactly where the protocol above holds them.

Not one byte goes out in clear from the moment it is made, and every error ends the connection. A peer that
closes without having said so (close_notify) is lost like any other that goes.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Final

from proxy.errors import LocalProtocolError

_SHAKING: Final = 1  # hands
_OPEN: Final = 2
_ENDING: Final = 3  # our end has been said, the peer's has not, or not everything has been sent
_CLOSED: Final = 4

_WHOLE: Final = 16384 + 1  # whoever reads one byte more than a record holds reads all of it
_SLICE: Final = 32768  # bytes that OpenSSL is given at once; its buffers in memory grow to this and stay so
_FAREWELL: Final = 30.0  # seconds that a peer has to take the rest and to end its side


class TlsTransport:
    """One TLS connection. Give it to a connection as its protocol; ``secured`` returns when TLS stands.

    ``protocol`` is above it, and hears of nothing before that. ``patience``, in seconds, bounds the
    handshake. ``name`` is what a server is told (SNI) and must show; there is none with ``server_side``.
    ``ahead`` is what was read of TLS already. ``announce``: the protocol is told ``connection_made``.
    Raises ValueError, OSError where the context cannot be used so.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: Any,
        patience: float,
        server_side: bool = True,
        name: str | None = None,
        ahead: bytes = b"",
        announce: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._incoming: Any = ssl.MemoryBIO()
        self._outgoing: Any = ssl.MemoryBIO()
        self._tls: Any = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        # Bound once: they are called for every message.
        self._feed: Any = self._incoming.write
        self._fetch: Any = self._outgoing.read
        self._decrypt: Any = self._tls.read
        self._encrypt: Any = self._tls.write
        self._protocol = protocol
        self._hand_on: Any = protocol.data_received
        self._transport: Any = None
        self._patience = patience
        self._ahead = ahead
        self._announce = announce
        self._state: int = _SHAKING
        self._stands = False  # the handshake is done: the protocol is told of the end
        self._held = False  # what came with the handshake waits until the protocol has been told of that
        self._paused = False
        self._over = False  # nothing more will come: the peer ended its side, or an error did
        self._error: Exception | None = None
        self._timer: Any = None  # a handle of the loop's own kind
        self._outcome: asyncio.Future[None] = self._loop.create_future()

    async def secured(self) -> None:
        """Return when the handshake is done. Raises OSError: it failed, and the connection is closed."""
        try:
            await self._outcome
        except BaseException:
            self.abort()
            raise

    # -- called by the connection ---------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The connection stands: begin. Whoever calls this on one that stood before resumes its reading."""
        self._transport = transport
        if self._state != _SHAKING:
            transport.abort()
            return
        late = TimeoutError("the handshake took too long")
        self._timer = self._loop.call_later(max(0.001, self._patience), self._fail, late)
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            self._feed(ahead)
        self._shake()

    def data_received(self, data: bytes) -> None:
        """Records arrived, or parts of them."""
        if self._state != _OPEN or self._held or len(data) > _SLICE:
            self._receive(data)
            return
        self._feed(data)
        plain = self._read(len(data))
        if self._incoming.pending or len(plain) == len(data):
            pieces = [plain]
            self._read_all(pieces)
            plain = b"".join(pieces)
        if plain:
            self._hand_on(plain)
        if self._over or self._outgoing.pending:
            self._settle()

    def eof_received(self) -> bool:
        """The peer closed, whether it said so or not; our side follows."""
        if self._state == _SHAKING:
            self._fail(ConnectionResetError("the peer closed the connection"))
        self._state = _CLOSED
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._state = _CLOSED
        self._stop_timer()
        self._tell(error if error is not None else ConnectionResetError("the connection was lost"))
        protocol, self._protocol, self._hand_on = self._protocol, None, _nobody_hears
        if self._stands:
            self._stands = False
            protocol.connection_lost(error if self._error is None else self._error)

    def pause_writing(self) -> None:
        """The peer is slow to take what it is sent."""
        if self._state == _OPEN:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._state == _OPEN:
            self._protocol.resume_writing()

    # -- the handshake --------------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except OSError as error:
            self._fail(error)
            return
        self._flush()
        self._stop_timer()
        self._state = _OPEN
        self._stands = self._held = True
        if self._announce:
            self._protocol.connection_made(self)
        if not self._outcome.done():
            self._outcome.set_result(None)
        # Behind whoever waits for it: what the handshake says of the peer is looked at before it is heard.
        self._loop.call_soon(self._begin_to_read)

    def _begin_to_read(self) -> None:
        if self._state != _OPEN or self._paused or not self._held:
            return
        self._held = False
        if self._incoming.pending:
            try:
                self._receive(b"")
            except BaseException:
                self.abort()
                raise

    def _fail(self, error: Exception) -> None:
        """No TLS. The peer is told why, as far as TLS has words for it."""
        self._stop_timer()
        self._tell(error)
        self._cut()

    def _tell(self, error: Exception) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # nobody may be waiting any more

    def _cut(self) -> None:
        state, self._state = self._state, _CLOSED
        if self._transport is not None:
            if state != _CLOSED:
                self._flush()  # OpenSSL's last word: an alert
            self._transport.abort()

    # -- what arrives ---------------------------------------------------------------------------

    def _read(self, most: int) -> bytes:
        """Plaintext of one record, b"" where none is whole; ``_over`` is set where none will follow."""
        try:
            plain: bytes = self._decrypt(most)
        except ssl.SSLWantReadError:
            return b""
        except OSError as error:
            self._error = None if isinstance(error, ssl.SSLZeroReturnError) else error
            plain = b""
        if not plain:
            self._over = True
        return plain

    def _read_all(self, pieces: list[bytes]) -> None:
        """Add the plaintext of every record that is whole."""
        while not self._over:
            piece = self._read(_WHOLE)
            if not piece:
                return
            pieces.append(piece)
            if not self._incoming.pending:
                return

    def _receive(self, data: bytes) -> None:
        """As ``data_received``, for what comes in large pieces or at another time than most."""
        if self._state == _CLOSED:
            return
        if self._state == _SHAKING or self._held:
            self._feed(data)
            if self._state == _SHAKING:
                self._shake()
            return
        pieces: list[bytes] = []
        for at in range(0, max(1, len(data)), _SLICE):
            self._feed(data[at : at + _SLICE])
            self._read_all(pieces)
        if pieces and self._state == _OPEN:
            self._hand_on(b"".join(pieces))
        if self._over or self._outgoing.pending:
            self._settle()

    def _settle(self) -> None:
        """Send what OpenSSL has to say of itself, and end what is over."""
        if self._state == _CLOSED:
            return
        self._flush()
        if not self._over:
            return
        if self._state == _ENDING:
            self._transport.close()
        elif self._error is not None:
            self._cut()
        else:
            # TLS ends both ways at once, whatever the protocol above would rather have.
            self._protocol.eof_received()
            self.close()

    # -- for the protocol above -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Encrypt and send. What is written to a connection that ends is lost.

        Raises LocalProtocolError before the handshake is done.
        """
        if self._state != _OPEN:
            if self._state == _SHAKING:
                raise LocalProtocolError("nothing can be said before the TLS handshake is done")
            return
        if not data:
            return
        try:
            if len(data) > _SLICE:
                self._write_large(data)
                return
            self._encrypt(data)
        except ssl.SSLError as error:
            self._error = error
            self._cut()
            return
        self._transport.write(self._fetch())

    def _write_large(self, data: bytes) -> None:
        view, pieces = memoryview(data), []
        for at in range(0, len(data), _SLICE):
            self._encrypt(view[at : at + _SLICE])
            pieces.append(self._fetch())
        self._transport.writelines(pieces)  # to join them would cost more than to encrypt them

    def can_write_eof(self) -> bool:
        """One direction cannot be ended alone."""
        return False

    def pause_reading(self) -> None:
        """Hand on nothing more for now."""
        self._paused = True
        if self._state == _OPEN:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self._paused = False
        if self._state == _OPEN:
            self._transport.resume_reading()
            if self._held:
                self._loop.call_soon(self._begin_to_read)

    def close(self) -> None:
        """Say the end (close_notify), send everything, wait for the peer's end, and close."""
        if self._state >= _ENDING:
            return
        if self._state == _SHAKING:
            self.abort()
            return
        self._held = False
        if self._incoming.pending:
            self._read_all([])  # or OpenSSL takes what nobody has read for an answer to our end
        self._state = _ENDING
        with contextlib.suppress(ssl.SSLError):  # the peer has not ended its side yet
            self._tls.unwrap()
            self._over = True
        self._flush()
        self._timer = self._loop.call_later(_FAREWELL, self._transport.abort)
        if self._over:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection; what was not sent yet is lost."""
        self._tell(ConnectionResetError("the connection was given up"))
        self._cut()

    def is_closing(self) -> bool:
        """It ends, or has ended."""
        return self._state >= _ENDING

    def set_protocol(self, protocol: Any) -> None:
        """Somebody else is above from now on."""
        self._protocol = protocol
        self._hand_on = protocol.data_received

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``ssl_object`` (once TLS stands), or what the connection below knows by that name."""
        if name == "ssl_object":
            return default if self._state == _SHAKING else self._tls
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._fetch())

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _nobody_hears(data: bytes) -> None:
    return
