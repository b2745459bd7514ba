"""What the tests of logins share: a shell for conversations that needs no socket, and a few messages."""

import asyncio
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from proxy.postgres import messages as m
from proxy.steps import StartTls, Wait, Work

Peer = Callable[[bytes], bytes]


class EndOfScript(Exception):
    """The conversation waits, and the script has nothing more to say."""


class Pump:
    """Drives one conversation. What it is fed arrives in pieces of ``chunk`` bytes (0: as it is)."""

    def __init__(
        self,
        conversation: Any,
        chunk: int = 0,
        certificate: bytes | None = None,
        served: str = "rsa-sha256",
        alpn: str = "",
    ) -> None:
        self.sent: list[bytes] = []  # what the conversation wrote, one item for each write
        self.works = 0
        self.tls = False
        self.steps = 0
        self.result: Any = None
        self.done = False
        self._conversation = conversation
        self._chunk = chunk
        self._certificate = certificate  # the peer's
        self._served, self._alpn = served, alpn  # what else TLS tells: the name of our certificate
        self.ahead = b""  # of TLS, received before it began
        self._advance(lambda: next(conversation))

    @property
    def out(self) -> bytes:
        return b"".join(self.sent)

    def feed(self, data: bytes) -> bytes:
        """Let bytes arrive; returns what was written meanwhile."""
        before = len(self.sent)
        size = self._chunk or max(len(data), 1)
        for start in range(0, len(data), size):
            if self.done:
                break
            piece = data[start : start + size]
            self._advance(lambda piece=piece: self._conversation.send(piece))
        return b"".join(self.sent[before:])

    def _advance(self, take: Callable[[], Any]) -> None:
        while True:
            self.steps += 1
            try:
                step = take()
            except StopIteration as stop:
                self.result, self.done = stop.value, True
                return
            if isinstance(step, Work):
                self.works += 1
                result = step.call()
                take = lambda result=result: self._conversation.send(result)  # noqa: E731
            elif isinstance(step, Wait):
                result = asyncio.run(_awaited(step.call()))
                take = lambda result=result: self._conversation.send(result)  # noqa: E731
            elif isinstance(step, StartTls):
                self.sent.append(step.send)
                self.tls, self.ahead = True, step.ahead
                step.served, step.protocol = certificate(self._served) if self._served else b"", self._alpn
                take = lambda: self._conversation.send(self._certificate)  # noqa: E731
            else:
                if step:
                    self.sent.append(step)
                return


async def _awaited(found: Any) -> Any:
    return await found


def run(conversation: Any, script: Iterable[bytes | Peer], **options: Any) -> Pump:
    """Feed a script: bytes, or functions that answer what was written last."""
    pump = Pump(conversation, **options)
    written = pump.out
    for item in script:
        if pump.done:
            break
        written = pump.feed(item if isinstance(item, bytes) else item(written)) or written
    if not pump.done:
        raise EndOfScript(pump.out)
    return pump


def packet(code: int, body: bytes = b"") -> bytes:
    """A packet without a type byte."""
    return struct.pack("!ii", 8 + len(body), code) + body


def startup(version: int = m.PROTOCOL_3_0, **parameters: str) -> bytes:
    return m.startup(parameters.items(), version)


def answer(text: bytes) -> bytes:
    """A message of type p."""
    return m.message(b"p", text)


def sasl_initial(mechanism: str, first: bytes) -> bytes:
    return answer(m.cstring(mechanism) + struct.pack("!i", len(first)) + first)


def messages(data: bytes) -> list[tuple[bytes, bytes]]:
    """Cut bytes into messages: type and body."""
    box = m.Inbox(rest=data)
    found = []
    while (item := box.take()) is not None:
        found.append((bytes((item[0],)), item[1]))
    assert box.rest == b""
    return found


def fields(reply: bytes) -> dict[str, str]:
    """The fields of the ErrorResponse that ends a reply."""
    kind, body = messages(reply)[-1]
    assert kind == b"E"
    return m.read_fields(body)


def sasl_data(data: bytes) -> bytes:
    """The data of the last authentication message."""
    kind, body = messages(data)[-1]
    assert kind == b"R"
    return body[4:]


def certificate(name: str) -> bytes:
    """One of the certificates in tests/postgres/certificates.txt, in DER."""
    for line in (Path(__file__).parent / "postgres" / "certificates.txt").read_text().splitlines():
        label, _, text = line.partition(" ")
        if label == name:
            return bytes.fromhex(text)
    raise KeyError(name)
