"""A server of no particular protocol for the tests of raw TCP: what it does with a connection is a function.

Each connection runs in a thread of its own; what happened to it is in ``ends``, in the order of its ends.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from servers import Certificates

Play = Callable[[socket.socket], None]
PATIENCE = 20.0


def echo(sock: socket.socket) -> None:
    """Say back whatever comes, and ``bye`` at the end."""
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.sendall(b"bye")


def reset_on_close(sock: socket.socket) -> None:
    """Have ``close`` break the connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer where the stream ends."""
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


class Far:
    """The server. ``url`` is how a pool names it."""

    def __init__(
        self, play: Play, path: Path | None = None, certificates: Certificates | None = None
    ) -> None:
        self.play = play
        self.accepted = 0
        self.ends: list[str] = []  # "end", or the name of the error
        self._tls: ssl.SSLContext | None = None
        self.url = f"unix:{path}"
        if path is not None:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(path))
        else:
            self._listening = socket.socket()
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listening.bind(("127.0.0.1", 0))
            self.port = self._listening.getsockname()[1]
            self.url = f"tcp://127.0.0.1:{self.port}"
        if certificates is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificates.server)
            self.url = f"tls://localhost:{self.port}?sslrootcert={certificates.ca}"
        self._listening.listen(1024)
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self._open.add(sock)
        try:
            if self._tls is not None:
                plain = sock
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.discard(plain)
                self._open.add(sock)
            self.play(sock)
            self.ends.append("end")
        except OSError as error:
            self.ends.append(type(error).__name__)
        finally:
            self._open.discard(sock)
            sock.close()

    def stop(self) -> None:
        """Listen no more, and cut who is still there."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A client, closed at the end."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        yield sock
