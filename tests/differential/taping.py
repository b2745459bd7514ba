"""One client's codec on a session of a real server, in this process: recorded once, played back in pieces.

What the server says is read only when everything that is to be sent has been sent, so a tape does not depend
on timing: after so many bytes from the codec, so many bytes come from the server.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Any

from differential.playing import Straight
from differential.speaking import Unit
from proxy.codec import CLOSE, FORWARD, PREPARE, RECOVER, RELEASE, REPLY, RESUME
from proxy.postgres.profile import Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Opened
from proxy.postgres.state import POOL_MODES
from proxy.postgres.terms import Terms

Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    """Not cut at all."""
    return [data] if data else []


class Tape:
    """What the server has said after each of the writes to it."""

    def __init__(self) -> None:
        self.sent = b""
        self.marks: list[tuple[int, bytes]] = []  # how much had been sent, and what came then


class Recorder:
    """The server's side while a tape is made: ``listen`` reads at least something."""

    def __init__(self, line: Straight, tape: Tape) -> None:
        self.line, self.tape = line, tape

    def send(self, data: bytes) -> None:
        """To the server."""
        self.tape.sent += data
        self.line.send(data)

    def listen(self) -> bytes:
        """From the server; b"" at its end."""
        said = self.line.sock.recv(1 << 20)
        self.tape.marks.append((len(self.tape.sent), said))
        return said


class Player:
    """The server's side when a tape is played: whatever is sent must be what was sent then."""

    def __init__(self, tape: Tape) -> None:
        self.tape, self.sent, self.at = tape, 0, 0

    def send(self, data: bytes) -> None:
        """To the tape."""
        assert self.tape.sent[self.sent : self.sent + len(data)] == data, "another message is sent now"
        self.sent += len(data)

    def listen(self) -> bytes:
        """From the tape."""
        due, said = self.tape.marks[self.at]
        assert self.sent == due, f"sent {self.sent} bytes so far, and not {due}"
        self.at += 1
        return said


class Client:
    """One client with its codec, driven as the relay does, on one session."""

    def __init__(
        self, mode: str, reported: dict[str, str], server: Recorder | Player, cut: Cut, cut_back: Cut
    ) -> None:
        profiles = Profiles()
        terms = Terms("app", {}, lambda name, text: text, float)
        self.codec = PgClientCodec(7, POOL_MODES.index(mode), terms, profiles, profiles.of({}), 1 << 30)
        self.session = new_session(profiles, reported)
        self.server, self.cut, self.cut_back = server, cut, cut_back
        self.is_linked = self.is_over = False
        self.got = b""

    def say(self, unit: Unit) -> bytes:
        """Send a unit, and read until it is answered; what came."""
        before = len(self.got)
        for piece in self.cut(unit.data):
            self.hear(piece)
        while not self.is_over and not is_answered(self.got[before:], unit.awaits):
            self.listen()
        return self.got[before:]

    def hear(self, data: bytes) -> None:
        """The client has said this."""
        if self.is_over:
            return
        flags = self.codec.client(data)
        if flags & REPLY:
            self.got += self.codec.reply
        if flags & FORWARD:
            if not self.is_linked:
                self.link()
            else:
                self.server.send(self.codec.out)
        if flags & CLOSE:
            self.is_over = True
        elif flags & RELEASE:
            self.unlink()

    def link(self) -> None:
        """Take the session."""
        self.is_linked = True
        if self.codec.join(self.session):
            self.converse(self.codec.prepare())
        self.server.send(self.codec.out)
        if self.codec.more:
            self.hear(b"")

    def converse(self, conversation: Generator[Any, Any, bytes]) -> None:
        """Give the session the client's settings."""
        back = None
        try:
            while True:
                self.server.send(conversation.send(back))
                back = self.server.listen()
        except StopIteration as end:
            self.got += end.value

    def listen(self) -> None:
        """Read what the session says."""
        said = self.server.listen()
        if not said:
            self.is_over = True
        for piece in self.cut_back(said):
            flags = self.codec.server(piece)
            if flags & FORWARD:
                self.got += self.codec.out
            self.after(flags)

    def after(self, flags: int) -> None:
        """What follows from that."""
        if flags & RECOVER:
            self.is_over = True
        elif flags & RELEASE:
            self.unlink()
        if flags & PREPARE:
            self.converse(self.codec.prepare())
        if flags & RESUME and not self.is_over:
            self.hear(b"")

    def unlink(self) -> None:
        """Give the session back."""
        self.codec.part()
        self.is_linked = False


def is_answered(heard: bytes, awaits: str) -> bool:
    """The kinds that are awaited have come, in this order, and the last message is whole."""
    at = 0
    while at + 5 <= len(heard):
        end = at + 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
        if end > len(heard):
            return False
        awaits = awaits[1:] if heard[at : at + 1].decode() == awaits[:1] else awaits
        at = end
    return at == len(heard) and not awaits


def new_session(profiles: Profiles, reported: dict[str, str]) -> PgSessionCodec:
    """A session whose login is over."""

    def login() -> Generator[Any, Any, Opened]:
        yield b""
        return Opened(dict(reported), 4711, b"abcd", False, "trust", b"")

    session = PgSessionCodec(profiles, login)
    conversation = session.log_in()
    next(conversation)
    try:
        conversation.send(b"x")
    except StopIteration:
        return session
    raise AssertionError("the login went on")
