"""A client that speaks the protocol by hand over a blocking socket, so that a test may break off anywhere.

It logs in at listeners whose auth is trust. ``read`` returns whole messages; nothing here interprets them
beyond what the tests ask.
"""

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Self

PATIENCE = 20.0
SYNC = b"S\0\0\0\4"
TERMINATE = b"X\0\0\0\4"
EXECUTE = b"E\0\0\0\x09\0\0\0\0\0"
FLUSH = b"H\0\0\0\4"


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message."""
    return kind + struct.pack("!i", len(body) + 4) + body


def query(text: str) -> bytes:
    """A simple Query."""
    return message(b"Q", text.encode() + b"\0")


def parse(text: str, name: bytes = b"") -> bytes:
    """A Parse without parameter types."""
    return message(b"P", name + b"\0" + text.encode() + b"\0\0\0")


def bind(*values: bytes, name: bytes = b"") -> bytes:
    """A Bind of text parameters to the unnamed portal."""
    packed = b"".join(struct.pack("!i", len(value)) + value for value in values)
    return message(b"B", b"\0" + name + b"\0\0\0" + struct.pack("!h", len(values)) + packed + b"\0\0")


def startup(**parameters: str) -> bytes:
    """A startup packet of protocol 3.0."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, 196608) + body


def fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse by their letters."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


class Raw:
    """One connection. Raises EOFError where the other side has closed it."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parameters: dict[str, str] = {}
        self.key = b""
        self._data = b""

    def secure(self) -> None:
        """Begin TLS; whose certificate it is does not matter here."""
        self.send(struct.pack("!ii", 8, 80877103))
        assert self.sock.recv(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock)

    @classmethod
    def logged_in(cls, port: int, patience: float = PATIENCE, tls: bool = False, **parameters: str) -> Self:
        """A client of the database app, ready for its first query. Raises AssertionError when refused."""
        client = cls(port, patience)
        try:
            if tls:
                client.secure()
            client.send(startup(**({"user": "app", "database": "app"} | parameters)))
            for kind, body in client.until_ready():
                assert kind != b"E", fields(body)
                if kind == b"S":
                    name, _, value = body[:-1].partition(b"\0")
                    client.parameters[name.decode()] = value.decode()
                elif kind == b"K":
                    client.key = body
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Write all of it."""
        self.sock.sendall(data)

    def read(self) -> tuple[bytes, bytes]:
        """The next message: its type and its body."""
        self._fill(5)
        length = struct.unpack("!i", self._data[1:5])[0]
        self._fill(1 + length)
        kind, body = self._data[:1], self._data[5 : 1 + length]
        self._data = self._data[1 + length :]
        return kind, body

    def _fill(self, size: int) -> None:
        while len(self._data) < size:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError("the connection was closed")
            self._data += more

    def until_ready(self) -> list[tuple[bytes, bytes]]:
        """All messages up to the next ReadyForQuery, which is the last of them."""
        found = []
        while not found or found[-1][0] != b"Z":
            found.append(self.read())
        return found

    def to_the_end(self) -> list[tuple[bytes, bytes]]:
        """All messages until the connection is closed."""
        found = []
        try:
            while True:
                found.append(self.read())
        except (EOFError, ConnectionError):
            return found

    def ask(self, text: str) -> list[tuple[bytes, bytes]]:
        """Run a simple Query and return its whole answer."""
        self.send(query(text))
        return self.until_ready()

    def value(self, text: str) -> str:
        """The first value of the first row of a query. Raises AssertionError when it failed."""
        for kind, body in self.ask(text):
            assert kind != b"E", fields(body)
            if kind == b"D":
                return body[6:].decode()
        raise AssertionError(f"no row: {text}")

    def error(self, text: str) -> dict[str, str]:
        """The error that a query is answered by."""
        return error_of(self.ask(text))

    def is_closed(self, patience: float = PATIENCE) -> bool:
        """Read on until the other side closes; False when it does not within ``patience``."""
        deadline = time.monotonic() + patience
        self.sock.settimeout(patience)
        try:
            while time.monotonic() < deadline:
                if not self.sock.recv(65536):
                    return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return False

    def cancel(self, port: int) -> None:
        """Send a cancel request with this client's key, and wait until it has been dealt with."""
        send_cancel(port, self.key)

    def close(self) -> None:
        """Close the socket, without a goodbye."""
        self.sock.close()


def send_cancel(port: int, key: bytes) -> None:
    """A cancel request on a connection of its own; returns when that is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(struct.pack("!ii", 16, 80877102) + key)
        sock.recv(1)


def rows(answer: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The bodies of the DataRow messages."""
    return [body for kind, body in answer if kind == b"D"]


def error_of(answer: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The first error in an answer."""
    found: Iterator[dict[str, str]] = (fields(body) for kind, body in answer if kind == b"E")
    return next(found)
