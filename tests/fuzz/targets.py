"""What is fed with anything: each target takes bytes, and raises only what it shows a mistake by.

A target asserts that nothing but the errors that are promised comes out, that what is kept is bounded by what
came in, and that each conversation ends. ``seeds`` are inputs that go deep.
"""

import struct
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from differential.scripts import SCRIPTS
from differential.speaking import kinds
from postgres.playbook import TERMS_OF_POOL, new_session
from proxy.codec import CLOSE, FORWARD, PREPARE, RECOVER, RELEASE, RESUME
from proxy.errors import BackendError, ProxyError, RemoteProtocolError
from proxy.postgres.accounts import Account
from proxy.postgres.begin import read_begin, read_end, whole_unit
from proxy.postgres.effects import effects
from proxy.postgres.fingerprint import fingerprint
from proxy.postgres.hba_reading import read_hba
from proxy.postgres.lines import WrongLines
from proxy.postgres.messages import Inbox, message
from proxy.postgres.own import concerns, read
from proxy.postgres.profile import Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session_login import Identity, open_session
from proxy.postgres.startup import packet_length, read_packet
from proxy.postgres.statements import Statements
from proxy.postgres.terms import Terms
from proxy.postgres.userlist import read_userlist
from proxy.reception import Refused
from proxy.relay.proxy_header import HeaderReader
from proxy.steps import Work

# Bytes kept, or sent on, for a byte received: named statements are sent again, with a longer name.
SLACK, TIMES = 8_192, 64
SERVED = message(b"Z", b"I")
ANSWERS = b"".join(
    (
        message(b"1", b""),
        message(b"2", b""),
        message(b"t", b"\0\0"),
        message(b"n", b""),
        message(b"T", b"\0\1x\0" + bytes(18)),
        message(b"D", b"\0\1\0\0\0\1x"),
        message(b"C", b"SELECT 1\0"),
        message(b"C", b"SET\0"),
        message(b"3", b""),
        message(b"E", b"SERROR\0VERROR\0C42601\0Mno\0\0"),
        message(b"S", b"TimeZone\0UTC\0"),
        message(b"N", b"SNOTICE\0Mhello\0\0"),
        message(b"A", b"\0\0\0\1c\0p\0"),
        message(b"G", b"\0\0\0"),
        message(b"Z", b"T"),
        SERVED,
    )
)
# ... and to each message, where all goes well.
REPLIES = {
    "P": message(b"1", b""),
    "B": message(b"2", b""),
    "D": message(b"t", b"\0\0") + message(b"n", b""),
    "E": message(b"C", b"SET\0"),
    "C": message(b"3", b""),
    "Q": message(b"C", b"SET\0") + SERVED,
    "F": message(b"V", b"\xff\xff\xff\xff") + SERVED,
    "S": SERVED,
}


class Bench:
    """One client's codec; data decides who says what, and in which pieces."""

    def __init__(self, choice: int) -> None:
        profiles = Profiles()
        begin = choice // 3 % 3
        terms = Terms("app", TERMS_OF_POOL.shown, TERMS_OF_POOL.permit, TERMS_OF_POOL.seconds, begin)
        statements = Statements(cache=2, memory=20_000, client_memory=8_000)
        empty = profiles.of({})
        self.codec = PgClientCodec(7, choice % 3, terms, profiles, empty, 1 << 20, statements)
        self.session = new_session(profiles)
        self.is_linked = self.is_over = False
        self.received = self.sent = 0

    def client(self, data: bytes) -> None:
        """The client says this; nothing may be raised."""
        self.received += len(data)
        self.act(self.codec.client(data))

    def server(self, data: bytes) -> None:
        """The session says this, if it is held."""
        self.received += len(data)
        if not self.is_linked:
            self.session.unlinked(data)
            return
        try:
            flags = self.codec.server(data)
        except RemoteProtocolError:
            self.is_over = True
            return
        self.sent += len(self.codec.out)
        self.act(flags & ~FORWARD)
        if flags & RESUME and not self.is_over:
            self.client(b"")

    def act(self, flags: int) -> None:
        """As the relay does."""
        if flags & FORWARD:
            if not self.is_linked:
                self.is_linked = True
                self.is_over = self.codec.join(self.session)
            self.sent += len(self.codec.out)
            if self.codec.more and not self.is_over:
                self.client(b"")
        if flags & (CLOSE | RECOVER | PREPARE):
            self.is_over = True
        elif flags & RELEASE and self.is_linked:
            # (A server that answers a BEGIN in its own way is believed.)
            assert self.codec.is_clean() or self.codec.deferred
            self.codec.part()
            self.is_linked = False

    def kept(self) -> int:
        """Bytes, or things of a few bytes, that the codec remembers."""
        codec = self.codec
        streams = len(codec.tail) + len(codec.held) + len(codec.back_tail) + len(codec.gathered or b"")
        return streams + len(codec.owed) + len(codec.marks) + codec.named_size + codec.statements.size

    def check(self) -> None:
        """Nothing grows beyond what came in."""
        assert self.kept() <= self.received * TIMES + SLACK
        assert self.sent <= self.received * TIMES + SLACK


def codec(data: bytes) -> None:
    """Both sides of a client's codec: a byte that chooses the mode, then pieces with side and length."""
    if not data:
        return
    bench = Bench(data[0])
    at = 1
    while at + 2 <= len(data) and not bench.is_over:
        (word,) = struct.unpack("!H", data[at : at + 2])
        piece = data[at + 2 : at + 2 + (word & 0x7FFF)]
        at += 2 + len(piece)
        (bench.server if word & 0x8000 else bench.client)(piece)
        bench.check()
    if bench.is_linked:
        with suppress(ProxyError):
            drive(bench.codec.recovery(), data)
    bench.codec.leave()


def drive(conversation: Generator[Any, Any, Any] | None, data: bytes) -> None:
    """Answer each step of a conversation with a piece of the data; it must end when that is at its end."""
    if conversation is None:
        return
    back: Any = None
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    with suppress(StopIteration):
        for _ in range(len(data) + 50):
            step = conversation.send(back)
            if isinstance(step, Work):
                back = step.call()
            elif not pieces:
                conversation.close()
                return
            else:
                back = pieces.pop(0)
        raise AssertionError("the conversation does not end")


def login(data: bytes) -> None:
    """The login of a session, against a server that says anything."""
    account = Account("app", password="secret")
    with suppress(BackendError, RemoteProtocolError):
        drive(open_session(Identity("app", "app", account), "disable"), data)


def care(data: bytes) -> None:
    """Ping, reset, settling and settings of a session, against a server that says anything."""
    profiles = Profiles()
    want = profiles.of({"application_name": "x"})
    for make in (
        lambda session: session.ping(),
        lambda session: session.reset(),
        lambda session: session.settle(),
        lambda session: session.adopt(want, 1),
    ):
        session = new_session(profiles)
        with suppress(BackendError, RemoteProtocolError):
            drive(make(session), data)


def inbox(data: bytes) -> None:
    """The cutting into messages."""
    box = Inbox(1_000, data)
    with suppress(RemoteProtocolError):
        while box.take() is not None:
            pass
    assert len(box.rest) <= len(data)


def startup(data: bytes) -> None:
    """A startup packet."""
    with suppress(Refused):
        packet_length(data[:4].ljust(4, b"\0"))
        read_packet(struct.pack("!i", len(data) + 4) + data.ljust(4, b"\0"))


def header(data: bytes) -> None:
    """A header of the PROXY protocol, whole and in pieces: they mean the same."""
    assert _header([data]) == _header([data[at : at + 1] for at in range(len(data))])


def _header(pieces: list[bytes]) -> tuple[int, bool, str]:
    reader = HeaderReader()
    taken = 0
    try:
        for piece in pieces:
            count = reader.feed(piece)
            taken += count
            if count < len(piece):
                break
    except RemoteProtocolError:
        return -1, False, ""
    return taken, reader.done, str(reader.origin)


def files(data: bytes) -> None:
    """Files of users and rules."""
    text = data.decode("utf-8", "replace")
    for reading in (read_hba, read_userlist):
        with suppress(WrongLines):
            reading(text)


def texts(data: bytes) -> None:
    """What is looked at in the text of a statement."""
    effects(data, 0, len(data))
    fingerprint(data)
    if concerns(data, 0, len(data)):
        read(data)
    read_begin(data)
    read_end(data)
    whole_unit(message(b"P", b"\0" + data), 0)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (codec, login, care, inbox, startup, header, files, texts)
}


def seeds(name: str) -> list[bytes]:
    """Where to begin."""
    if name == "codec":
        return [_played(number, units) for number, units in enumerate(_short_scripts())]
    if name in ("login", "care", "inbox"):
        opening = message(b"R", bytes(4)) + message(b"K", bytes(8)) + SERVED
        sasl = message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0") + message(b"R", b"\0\0\0\x0br=x,s=QUJD,i=4096")
        return [opening, sasl, ANSWERS, message(b"R", b"\0\0\0\5salt"), SERVED * 3]
    if name == "texts":
        return [unit[5:-1] for units in _short_scripts() for unit in units if unit[:1] == b"Q"]
    return {
        "startup": [
            b"\0\3\0\0user\0app\0database\0app\0options\0-c a=b\\ c --d=e\0\0",
            b"\x04\xd2\x16\x2f",
            bytes(9),
        ],
        "header": [
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nrest",
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
        ],
        "files": [
            b'"app" "secret"\n;no\n"x""y" "md5abc"\n',
            b'host all "all" 10.0.0.0/8 scram-sha-256 #\nlocal a,b +c peer map=m\nhostssl all /x all cert\n',
        ],
    }[name]


def _short_scripts() -> list[list[bytes]]:
    found = [[unit.data for unit in one.units] for one in SCRIPTS.values()]
    return [units for units in found if sum(map(len, units)) < 2_000]


def _played(number: int, units: list[bytes]) -> bytes:
    out = bytes((number % 9,))
    for data in units:
        answer = b"".join(REPLIES.get(kind, b"") for kind in kinds(data))
        out += struct.pack("!H", len(data)) + data + struct.pack("!H", 0x8000 | len(answer)) + answer
    return out
