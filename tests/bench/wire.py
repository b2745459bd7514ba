"""A client made by hand: a socket, a startup message, and simple queries. For thousands of them at once.

A driver would cost more memory and time than the proxy that is measured. It knows logins without proof
only, and reads whatever comes as bytes: an error of the server or the proxy raises RuntimeError.
"""

import resource
import socket
import struct
from types import TracebackType
from typing import Self

PATIENCE = 30.0


def raise_open_files(wanted: int) -> int:
    """Let this process, and those that it starts, open so many files; return how many they really may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


class Client:
    """One connection that has logged in; use it as a context manager, or call ``close``."""

    def __init__(self, port: int, user: str, database: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        words = "\0".join(("user", user, "database", database)).encode() + b"\0\0"
        try:
            self._say(struct.pack("!II", len(words) + 8, 196608) + words)
        except BaseException:
            self.socket.close()
            raise

    def ask(self, text: str) -> bytes:
        """Send a simple query and return everything up to ReadyForQuery."""
        words = text.encode() + b"\0"
        return self._say(struct.pack("!cI", b"Q", len(words) + 4) + words)

    def close(self) -> None:
        """Say goodbye and go."""
        try:
            self.socket.sendall(b"X\0\0\0\4")
        except OSError:
            pass
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, data: bytes) -> bytes:
        self.socket.sendall(data)
        heard = b""
        # ReadyForQuery is the last word of every answer: nothing else was asked.
        while heard[-6:-1] != b"Z\0\0\0\5":
            piece = self.socket.recv(65536)
            heard += piece
            if not piece or heard.startswith(b"E"):
                raise RuntimeError(f"an error, or the end: {heard!r}")
        return heard


class Crowd:
    """Clients that have logged in and then say nothing."""

    def __init__(self, port: int, user: str, database: str) -> None:
        self._where = port, user, database
        self._clients: list[Client] = []

    def grow(self, count: int) -> None:
        """Be so many: more log in, or the latest ones leave."""
        while len(self._clients) < count:
            self._clients.append(Client(*self._where))
        while len(self._clients) > count:
            self._clients.pop().close()

    def ask(self, text: str) -> None:
        """Let each of them ask, one after the other."""
        for client in self._clients:
            client.ask(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.grow(0)
