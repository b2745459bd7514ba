"""What acts ask for, done by hand over a socket that may break at any byte: the rude clients.

Each connection has a fuse: after so many bytes sent, or so many messages read, the socket is closed or
reset, whatever is under way.
"""

import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from integration.looking import reset_on_close
from integration.raw import (
    EXECUTE,
    SYNC,
    TERMINATE,
    Raw,
    bind,
    fields,
    message,
    parse,
    query,
    send_cancel,
)
from integration.soaking.asked import (
    Anew,
    Ask,
    Batch,
    Cancel,
    CopyIn,
    CopyOut,
    Do,
    Forget,
    Gone,
    Hear,
    Pause,
    Recover,
    Refused,
    Request,
    Slowly,
    Vanished,
    Wrong,
)
from integration.soaking.client import Client

PATIENCE = 120.0
INTEGERS = (20, 21, 23)
Message = tuple[bytes, bytes]


class Fused(Raw):
    """A connection that the client itself drops after so many bytes or messages."""

    bytes_left = 1 << 60
    messages_left = 1 << 60
    is_sharp = False

    def send(self, data: bytes) -> None:
        """Write all of it, or what the fuse allows."""
        if len(data) >= self.bytes_left:
            super().send(data[: self.bytes_left])
            self._vanish()
        self.bytes_left -= len(data)
        super().send(data)

    def read(self) -> Message:
        """The next message, or vanish."""
        self.messages_left -= 1
        if self.messages_left <= 0:
            self._vanish()
        return super().read()

    def _vanish(self) -> None:
        if self.is_sharp:
            reset_on_close(self.sock)
        self.close()
        raise Vanished("dropped by the client itself")


class ByWire:
    """One client's connection, in a thread. Statements are named, described each time, and reused."""

    def __init__(self, me: Client) -> None:
        self._me = me
        self._wire: Any = None
        self._status = b"I"
        self._named: dict[str, bytes] = {}
        self._heard: list[str] = []

    def serve(self, request: Request) -> Any:
        """The answer to a request; raises Refused or Gone."""
        serve: Callable[[Any], Any] = getattr(self, f"_{type(request).__name__.lower()}")
        try:
            return serve(request)
        except TimeoutError as cause:
            raise Wrong(f"no answer to {request} within {PATIENCE:g} s") from cause
        except (EOFError, OSError) as cause:
            raise Gone(repr(cause)) from cause

    def leave(self) -> None:
        """For good."""
        if self._wire is not None:
            self._wire.close()

    def _anew(self, request: Anew) -> None:
        if self._wire is not None and request.is_polite:
            try:
                self._wire.send(TERMINATE)
            except (OSError, Vanished):
                pass
        self.leave()
        self._named.clear()
        self._heard.clear()
        self._status = b"I"
        self._wire = Fused.logged_in(self._me.plan.port, PATIENCE, application_name=self._me.name)
        dice = self._me.dice
        self._wire.is_sharp = dice.random() < 0.5
        if dice.random() < 0.5:
            self._wire.bytes_left = int(dice.expovariate(1 / 8000))
        else:
            self._wire.messages_left = int(dice.expovariate(1 / 150))

    def _recover(self, request: Recover) -> None:
        if self._status != b"I":
            self._do(Do("ROLLBACK"))

    def _forget(self, request: Forget) -> None:
        closes = b"".join(message(b"C", b"S" + name + b"\0") for name in self._named.values())
        self._named.clear()
        self._wire.send(closes + SYNC)
        self._answer()

    def _pause(self, request: Pause) -> None:
        time.sleep(request.seconds)

    def _do(self, request: Do) -> None:
        if request.text.startswith("DISCARD ALL"):
            self._named.clear()
        self._wire.send(query(request.text))
        self._answer()

    def _ask(self, request: Ask) -> Any:
        return self._batch(Batch((request,)))[0]

    def _batch(self, request: Batch) -> Any:
        new: list[str] = []
        data = b""
        for ask in request.asks:
            name = self._named.get(ask.text)
            if name is None:
                name = f"s{len(self._named)}_{self._me.next_turn()}".encode()
                data += parse(ask.text, name)
                self._named[ask.text] = name
                new.append(ask.text)
            data += bind(*(str(value).encode() for value in ask.values), name=name)
            data += message(b"D", b"P\0") + EXECUTE
        self._wire.send(data + SYNC)
        try:
            return self._results(self._answer(), request.asks)
        except Refused:
            # Which of them are there now depends on where the error was: all are given new names.
            for text in new:
                self._named.pop(text, None)
            raise

    def _answer(self) -> list[Message]:
        """Up to ReadyForQuery; raises what has failed."""
        found: list[Message] = []
        while not found or found[-1][0] != b"Z":
            kind, body = self._wire.read()
            if kind == b"A":
                self._heard.append(body[4:].split(b"\0")[1].decode())
            else:
                found.append((kind, body))
        self._status = found[-1][1]
        for kind, body in found:
            if kind == b"E":
                raise Refused(fields(body)["C"], str(fields(body)))
        return found

    def _results(self, answer: list[Message], asks: tuple[Ask, ...]) -> Any:
        results: list[list[Any]] = []
        columns: list[tuple[str, int]] = []
        for kind, body in answer:
            if kind == b"2":
                results.append([])
            elif kind == b"T":
                columns = _columns(body)
            elif kind == b"D":
                row = _values(body, columns)
                is_named = asks[len(results) - 1].named
                names = [name for name, _ in columns]
                results[-1].append(dict(zip(names, row, strict=True)) if is_named else row)
        return results

    def _slowly(self, request: Slowly) -> Any:
        self._wire.send(query(request.text))
        rows, columns, kind = [], [], b""
        while kind != b"Z":
            kind, body = self._wire.read()
            if kind == b"E":
                self._answer()
                raise Refused(fields(body)["C"], str(fields(body)))
            if kind == b"T":
                columns = _columns(body)
            elif kind == b"D":
                rows.append(_values(body, columns))
                if len(rows) % 500 == 1:
                    time.sleep(0.01)
        return rows

    def _copyin(self, request: CopyIn) -> None:
        self._wire.send(query(f"COPY {request.target} FROM STDIN"))
        while True:
            kind, body = self._wire.read()
            if kind == b"E":
                self._answer()
                raise Refused(fields(body)["C"], str(fields(body)))
            if kind == b"G":
                break
        for number, row in enumerate(request.rows):
            if request.is_cut and number == len(request.rows) // 2:
                self._wire.send(message(b"f", b"not today\0"))
                break
            self._wire.send(message(b"d", ("\t".join(map(str, row)) + "\n").encode()))
        else:
            self._wire.send(message(b"c"))
        try:
            self._answer()
        except Refused as refusal:
            if not request.is_cut or refusal.sqlstate != "57014":
                raise

    def _copyout(self, request: CopyOut) -> str:
        self._wire.send(query(f"COPY ({request.text}) TO STDOUT"))
        return b"".join(body for kind, body in self._answer() if kind == b"d").decode()

    def _cancel(self, request: Cancel) -> bool:
        key = self._wire.key
        cancelling = threading.Timer(request.after, send_cancel, (self._me.plan.port, key))
        cancelling.start()
        try:
            self._wire.send(query(request.text))
            self._answer()
        except Refused as refusal:
            if refusal.sqlstate != "57014":
                raise
            return True
        finally:
            cancelling.join()
        return False

    def _hear(self, request: Hear) -> list[str]:
        self._heard.clear()
        self._do(Do(f"LISTEN {request.channel}"))
        for payload in request.payloads:
            self._ask(Ask("SELECT pg_notify($1, $2)", (request.channel, payload)))
        end = time.monotonic() + PATIENCE
        while len(self._heard) < len(request.payloads) and time.monotonic() < end:
            kind, body = self._wire.read()
            if kind == b"A":
                self._heard.append(body[4:].split(b"\0")[1].decode())
            elif kind == b"E":
                raise Gone(str(fields(body)))
        self._do(Do(f"UNLISTEN {request.channel}"))
        return list(self._heard)


def _columns(body: bytes) -> list[tuple[str, int]]:
    """Names and types of a RowDescription."""
    found, at = [], 2
    while at < len(body):
        end = body.index(b"\0", at)
        found.append((body[at:end].decode(), struct.unpack_from("!i", body, end + 7)[0]))
        at = end + 19
    return found


def _values(body: bytes, columns: list[tuple[str, int]]) -> Any:
    found: list[Any] = []
    at = 2
    for _, kind in columns:
        size = struct.unpack_from("!i", body, at)[0]
        text = body[at + 4 : at + 4 + max(size, 0)].decode()
        found.append(None if size < 0 else int(text) if kind in INTEGERS else text)
        at += 4 + max(size, 0)
    return tuple(found)
