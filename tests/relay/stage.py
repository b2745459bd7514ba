"""The relay without a network: transports that note what is done to them, and a protocol of text lines.

A client sends ``q...`` (a query), ``b`` (begins a transaction), ``e`` (ends it), ``X`` (goodbye) or ``!``
(nonsense); the server answers ``row...`` and ``Z`` for each of them, and ``ok`` where the pool asks.
"""

import asyncio
import socket
from typing import Any

from proxy.codec import CLOSE, FORWARD, PREPARE, RECOVER, RELEASE, REPLY, ClientCodec, SessionCodec
from proxy.errors import BackendError, PoolError, RemoteProtocolError
from proxy.pool.limits import Limits
from proxy.pool.pool import Pool
from proxy.pool.session import Key
from proxy.reasons import CloseReason
from proxy.relay.backend import SocketBackend
from proxy.relay.client import Client
from proxy.relay.endpoint import Endpoint
from proxy.relay.opener import SocketOpener
from proxy.relay.sockets import KeepAlive
from proxy.steps import Conversation


class Transport:
    """One side of a connection that is not there. ``written`` is what was sent through it."""

    def __init__(self, protocol: Any = None) -> None:
        self.protocol = protocol
        self.written = b""
        self.paused = False
        self.closed = False
        self.ended = False  # write_eof
        self.ours, self.theirs = socket.socketpair()

    def write(self, data: bytes) -> None:
        if self.ours.fileno() < 0:
            raise RuntimeError("unable to perform operation; the handler is closed")
        if not self.closed:
            self.written += data

    def take(self) -> bytes:
        """What was written since this was asked last."""
        written, self.written = self.written, b""
        return written

    def __del__(self) -> None:
        # A test may end with it open; the collector's warning would fail whichever test runs then.
        self.ours.close()
        self.theirs.close()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        assert not self.paused, "paused twice"
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> Any:
        return self.ours if name == "socket" else None

    # What the other side does.

    def say(self, text: bytes) -> None:
        """Bytes arrive."""
        assert not self.paused, "nobody reads now"
        assert not self.closed
        self.protocol.data_received(text)

    def lose(self, error: Exception | None = None) -> None:
        """The connection ends."""
        self.closed = True
        self.ours.close()
        self.theirs.close()
        self.protocol.connection_lost(error)

    def hang_up(self) -> None:
        """The other side has gone, and nobody who reads is told."""
        self.theirs.close()


class LineSession(SessionCodec):
    """A session of the line protocol."""

    def __init__(self) -> None:
        self.owner = ""  # whose settings it has
        self.noted: list[bytes] = []
        self.ended = ""

    def last_words(self) -> str:
        return self.ended

    def _ask(self, text: bytes) -> Conversation[None]:
        answer: bytes = yield text
        while not answer.endswith(b"ok\n"):
            if b"no\n" in answer:
                raise BackendError("the server said no")
            answer += yield b""

    def log_in(self) -> Conversation[None]:
        yield from ()

    def ping(self) -> Conversation[None]:
        return self._ask(b"ping\n")

    def reset(self) -> Conversation[None]:
        return self._ask(b"reset\n")

    def begin(self) -> Conversation[None]:
        return self._ask(b"begin\n")

    def settle(self) -> Conversation[None]:
        return self._ask(b"settle\n")

    def unlinked(self, data: bytes) -> str:
        self.noted.append(data)
        return "the server said bye" if b"bye" in data else ""

    def farewell(self) -> bytes:
        return b"farewell\n"

    def cancel(self) -> Conversation[None]:
        while True:
            yield b"cancel\n"


class LineClient(ClientCodec):
    """A client of the line protocol. With a ``name``, sessions must be prepared for it."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name
        self.session: LineSession | None = None
        self.owed = 0
        self.inside = False
        self.keeps = False  # session mode
        self.again = False  # the next answer asks to be prepared again
        self.stray = False  # the next answer leaves a doubt
        self.late = False  # that the next answer was the last is noticed with the next look only

    def client(self, data: bytes) -> int:
        self.reply = self.out = b""
        flags = 0
        if not data and self.late:
            self.late = False
            return RELEASE
        for line in data.splitlines(keepends=True):
            if line[:1] in (b"q", b"b", b"e"):
                self.out += line
                self.owed += 1
                self.inside = line[:1] == b"b" or (self.inside and line[:1] != b"e")
            elif line[:1] == b"X":
                self.closing = CloseReason.CLIENT_LEFT
                flags = CLOSE
            else:
                self.closing = CloseReason.PROTOCOL_ERROR
                self.reply = b"broken\n"
                flags = CLOSE | REPLY
        return flags | (FORWARD if self.out else 0)

    def server(self, data: bytes) -> int:
        if b"nonsense" in data:
            raise RemoteProtocolError("nonsense")
        self.out = data
        self.owed -= data.count(b"Z")
        if self.owed or self.inside or b"Z" not in data:
            return FORWARD
        before, end, after = data.rpartition(b"Z\n")
        if after == b"bye\n":
            assert self.session is not None
            self.session.ended, self.out = after.decode(), before + end
            return FORWARD | RELEASE
        if self.stray:
            return FORWARD | RECOVER
        if self.late:
            return FORWARD
        if self.again:
            self.again = False
            assert self.session is not None
            self.session.owner = ""
            return FORWARD | PREPARE
        return FORWARD if self.keeps else FORWARD | RELEASE

    def join(self, session: SessionCodec) -> bool:
        assert isinstance(session, LineSession)
        self.session = session
        return session.owner != self.name

    def prepare(self) -> Conversation[bytes]:
        session = self.session
        assert session is not None
        yield from session._ask(f"prepare {self.name}\n".encode())
        session.owner = self.name
        return f"told {self.name}\n".encode()

    def part(self) -> None:
        self.session = None

    def is_clean(self) -> bool:
        return not self.owed and not self.inside and not self.stray

    def is_running(self) -> bool:
        return self.owed > 0

    def recovery(self) -> "Conversation[None] | None":
        if self.stray:
            return None
        self.must_cancel = self.owed > 0
        return self._drain(self.owed)

    def _drain(self, owed: int) -> Conversation[None]:
        answer: bytes = yield b"fail\n"
        while answer.count(b"Z") < owed:
            answer += yield b""

    def is_holding_idle(self) -> bool:
        return self.session is not None and not self.owed and self.inside

    def _forget(self) -> None:
        self.owed, self.inside = 0, False
        self.part()

    def refuse(self, error: PoolError) -> bytes:
        self._forget()
        return b"refused\n"

    def backend_refused(self, sqlstate: str, message: str, fields: dict[str, str]) -> bytes:
        self._forget()
        return b"no session\n"

    def canceled(self) -> bytes:
        self._forget()
        return b"cancelled\n"

    def session_lost(self) -> bytes | None:
        if self.inside or self.keeps:
            return None
        self.owed = 0
        return b"lost\n"

    def fatal(self, reason: CloseReason, detail: str) -> bytes:
        return f"fatal {reason}\n".encode()


class NoEndpoint(Endpoint):
    """Connects to nobody: every connection is a transport in ``made``."""

    def __init__(self) -> None:
        super().__init__("nowhere", 1, "", None, KeepAlive())
        self.made: list[Transport] = []

    async def connect(self, protocol: Any, at: str = "") -> None:
        transport = Transport(protocol)
        self.made.append(transport)
        protocol.connection_made(transport)


class Scene:
    """One pool and its clients."""

    def __init__(self, pool_mode: str = "transaction", **limits: Any) -> None:
        self.endpoint = NoEndpoint()
        opener = SocketOpener([self.endpoint], lambda session: LineSession())
        self.pool = Pool("app", Limits(**{"min": 0, "max": 1, **limits}), opener, ("app", "app"), pool_mode)
        opener.pool = self.pool
        self.ended: list[tuple[int, CloseReason]] = []
        self.transports: list[Transport] = []

    def client(self, name: str = "", **more: Any) -> tuple[Client, Transport]:
        """A client that has just logged in."""
        codec = LineClient(name)
        for field, value in more.items():
            setattr(codec, field, value)
        transport = Transport()
        client = Client(len(self.transports) + 1, transport, self.pool, self.key, codec, self._ended)
        transport.protocol = client
        self.transports.append(transport)
        return client, transport

    def _ended(self, client: Client, reason: CloseReason) -> None:
        self.ended.append((client.number, reason))

    @property
    def key(self) -> Key:
        return self.pool.key("app", "app")

    @property
    def server(self) -> Transport:
        """The other end of the latest connection to the server."""
        return self.endpoint.made[-1]

    async def warm(self) -> Transport:
        """Have one idle session."""
        session = await self.pool.acquire(self.key)
        self.pool.release(session)
        return self.server

    @property
    def backend(self) -> SocketBackend:
        backend = self.server.protocol
        assert isinstance(backend, SocketBackend)
        return backend

    def counts(self) -> dict[str, int]:
        """How many sessions are in each state, and how many wait."""
        ledger = self.pool.ledger
        ledger.check()
        return {
            "busy": len(ledger.busy),
            "idle": ledger.idle,
            "care": len(ledger.care),
            "opening": len(ledger.opening),
            "closing": len(ledger.closing),
            "waiting": len(ledger.queue),
        }

    def shows(self, **wanted: int) -> bool:
        """These counts, and 0 for all others."""
        return {name: count for name, count in self.counts().items() if count} == {
            name: count for name, count in wanted.items() if count
        }


async def turns(count: int = 10) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
