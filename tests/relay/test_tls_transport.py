"""TLS of our own: OpenSSL at the other end, below it a connection that is not there, or a real one."""

import asyncio
import hashlib
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.errors import LocalProtocolError
from proxy.reasons import TlsFailure
from proxy.relay.tls import ListenerFiles, ServerFiles
from proxy.relay.tls_failures import explain
from proxy.relay.tls_transport import TlsTransport
from relay.chacha import Sealer
from servers import Certificates

PATIENCE = 10.0
ALERT, HANDSHAKE, DATA = 21, 22, 23


class Below:
    """The connection: what was written to it must be whole records of TLS and nothing else."""

    def __init__(self) -> None:
        self.written = b""
        self.kinds: list[int] = []
        self.writes = 0
        self.reads = True
        self.is_closed = False  # in order
        self.is_cut = False

    def write(self, data: bytes) -> None:
        assert data
        assert not self.is_closed
        self.writes += 1
        self.written += data
        while data:
            kind, size = data[0], int.from_bytes(data[3:5], "big")
            assert kind in (20, ALERT, HANDSHAKE, DATA)
            # An alert about a version shows the one that the peer said.
            assert kind == ALERT or data[1:3] in (b"\x03\x01", b"\x03\x03")
            assert len(data) >= 5 + size
            self.kinds.append(kind)
            data = data[5 + size :]

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def take(self) -> bytes:
        """What was written since this was asked last."""
        written, self.written, self.kinds, self.writes = self.written, b"", [], 0
        return written

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_cut = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return "somewhere" if name == "peername" else default


class Above:
    """The protocol: keeps what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.heard: list[bytes] = []
        self.told: list[str] = []
        self.error: Exception | None = None
        self.does: Callable[[bytes], None] = lambda data: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.does(data)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return True  # TLS ends both ways all the same

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")
        self.error = error

    def pause_writing(self) -> None:
        self.told.append("full")

    def resume_writing(self) -> None:
        self.told.append("empty")


class Peer:
    """OpenSSL at the other end."""

    def __init__(self, context: ssl.SSLContext, server_side: bool = False) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side)

    def shake(self, data: bytes = b"") -> bytes:
        """One step of the handshake."""
        self.incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def say(self, *texts: bytes) -> bytes:
        """A record for each."""
        for text in texts:
            self.tls.write(text)
        return self.outgoing.read()

    def end(self) -> bytes:
        """Close_notify."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        return self.outgoing.read()

    def hear(self, data: bytes) -> bytes:
        """The plaintext of it."""
        self.incoming.write(data)
        text = b""
        while True:
            try:
                piece = self.tls.read(65536)
            except ssl.SSLWantReadError:
                return text
            if not piece:
                return text
            text += piece

    def hears_the_end(self, data: bytes) -> bool:
        """It is a close_notify, after nothing."""
        self.incoming.write(data)
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True


class Stage:
    """One connection of a client to us."""

    def __init__(self, ours: ssl.SSLContext, theirs: ssl.SSLContext, **options: Any) -> None:
        self.above, self.below = Above(), Below()
        self.peer = Peer(theirs)
        self.tls = TlsTransport(ours, self.above, options.pop("patience", PATIENCE), **options)

    async def shaken(self, more: bytes = b"") -> "Stage":
        """The handshake is done, and ``more`` came with its last flight."""
        self.tls.connection_made(self.below)
        answer = b""
        for _ in range(3):
            sent = self.peer.shake(answer)
            if more and _is_last(self.peer):
                sent += self.peer.say(more)
                more = b""
            if sent:
                self.tls.data_received(sent)
            answer = self.below.take()
        await self.tls.secured()
        return self


def _is_last(peer: Peer) -> bool:
    try:
        peer.tls.do_handshake()
    except ssl.SSLError:
        return False
    return True


def client_context(version: str = "1.3") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.fixture
def ours(certificates: Certificates) -> ssl.SSLContext:
    return ListenerFiles(*map(str, certificates.server)).load()


@pytest.fixture(params=["1.2", "1.3"])
def theirs(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return client_context(request.param)


Make = Callable[..., Stage]


@pytest.fixture
def make(ours: ssl.SSLContext, theirs: ssl.SSLContext) -> Make:
    return lambda **options: Stage(ours, theirs, **options)


async def turn() -> None:
    """Let the loop go round."""
    for _ in range(3):
        await asyncio.sleep(0)


# -- records ----------------------------------------------------------------------------------------


async def test_what_is_said_arrives_in_both_directions_in_one_write_each(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.tls.data_received(stage.peer.say(b"question"))
    assert stage.above.heard == [b"question"]
    stage.tls.write(b"answer")
    assert stage.below.writes == 1
    assert stage.below.kinds == [DATA]
    assert stage.peer.hear(stage.below.take()) == b"answer"
    stage.tls.write(b"")
    assert stage.below.writes == 0


async def test_a_stream_may_be_cut_at_every_byte(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    texts = [b"first", b"a longer second one" * 5, b"x"]
    for at in range(1, len(stage.peer.say(*texts))):
        stage = await make().shaken()
        await turn()
        sent = stage.peer.say(*texts)
        stage.tls.data_received(sent[:at])
        stage.tls.data_received(sent[at:])
        assert b"".join(stage.above.heard) == b"".join(texts), at
        assert len(stage.above.heard) <= 2


async def test_a_stream_may_come_byte_by_byte_from_its_first_one(make: Make) -> None:
    stage = make()
    stage.tls.connection_made(stage.below)
    answer = b""
    for _ in range(3):
        for byte in stage.peer.shake(answer):
            stage.tls.data_received(bytes((byte,)))
        answer = stage.below.take()
    await stage.tls.secured()
    await turn()
    for byte in stage.peer.say(b"slowly", b"y" * 1000):
        stage.tls.data_received(bytes((byte,)))
    assert stage.above.heard == [b"slowly", b"y" * 1000]


async def test_the_end_of_a_large_record_may_be_a_few_bytes(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    sent = stage.peer.say(b"z" * 16384)
    stage.tls.data_received(sent[:-7])
    assert stage.above.heard == []
    stage.tls.data_received(sent[-7:])
    assert stage.above.heard == [b"z" * 16384]


async def test_many_records_are_handed_on_in_one_call(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.tls.data_received(stage.peer.say(b"1", b"2", b"3"))
    stage.tls.data_received(stage.peer.say(*[bytes((number,)) * 16384 for number in range(20)]))
    assert stage.above.heard[0] == b"123"
    assert stage.above.heard[1:] == [b"".join(bytes((number,)) * 16384 for number in range(20))]


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768, 32769, 100_000, 1_000_000])
async def test_much_is_written_at_once(make: Make, size: int) -> None:
    stage = await make().shaken()
    text = bytes(range(256)) * (size // 256 + 1)
    stage.tls.write(text[:size])
    assert stage.below.writes == 1
    assert stage.peer.hear(stage.below.take()) == text[:size]


async def test_a_record_without_plaintext_is_nothing(ours: ssl.SSLContext, tmp_path: Path) -> None:
    theirs = client_context("1.2")
    theirs.keylog_filename = str(tmp_path / "keys")
    theirs.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    stage = Stage(ours, theirs)
    stage.tls.connection_made(stage.below)
    stage.tls.data_received(stage.peer.shake())
    answer = stage.below.take()
    stage.tls.data_received(stage.peer.shake(answer))
    await stage.tls.secured()
    await turn()
    _, client_random, master = (tmp_path / "keys").read_text().split()[-3:]
    # The random bytes of a hello stand behind the headers of record and message, and its version.
    sealer = Sealer(bytes.fromhex(master), bytes.fromhex(client_random), answer[11:43])
    for text in (b"before", b"", b"", b"after"):
        stage.tls.data_received(sealer.record(text))
    stage.tls.data_received(b"".join(map(sealer.record, (b"", b"more", b"", b"", b"and more", b""))))
    assert stage.above.heard == [b"before", b"after", b"moreand more"]
    assert not stage.tls.is_closing()


# -- the handshake ----------------------------------------------------------------------------------


async def test_nothing_can_be_said_before_the_handshake_is_done(make: Make) -> None:
    stage = make()
    stage.tls.connection_made(stage.below)
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            stage.tls.write(b"in clear")
        stage.tls.data_received(stage.peer.shake())
    assert stage.below.kinds
    assert b"in clear" not in stage.below.written
    assert stage.tls.get_extra_info("ssl_object") is None
    stage.tls.abort()
    stage.tls.write(b"nor after it")
    assert b"nor" not in stage.below.written


async def test_who_waits_for_the_handshake_is_told_before_the_first_data(
    ours: ssl.SSLContext,
) -> None:
    for announce in (False, True):
        stage = await Stage(ours, client_context("1.3"), announce=announce).shaken(b"early bird")
        assert stage.above.heard == []
        assert stage.above.told == (["made"] if announce else [])
        assert stage.tls.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert stage.tls.get_extra_info("peername") == "somewhere"
        await turn()
        assert stage.above.heard == [b"early bird"]


async def test_what_came_with_the_handshake_waits_for_a_protocol_that_does_not_read(
    ours: ssl.SSLContext,
) -> None:
    stage = await Stage(ours, client_context("1.3")).shaken(b"early bird")
    stage.tls.pause_reading()
    await turn()
    assert stage.above.heard == []
    assert not stage.below.reads
    stage.tls.resume_reading()
    assert stage.below.reads
    await turn()
    assert stage.above.heard == [b"early bird"]


async def test_what_was_read_ahead_belongs_to_the_handshake(make: Make, ours: ssl.SSLContext) -> None:
    theirs = client_context()
    peer = Peer(theirs)
    hello = peer.shake()
    below, above = Below(), Above()
    tls = TlsTransport(ours, above, PATIENCE, ahead=hello[:100])
    tls.connection_made(below)
    assert below.kinds == []
    tls.data_received(hello[100:])
    tls.data_received(peer.shake(below.take()))
    await tls.secured()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        bytes(300),
        b"\x16\x03\x01\xff\xff" + bytes(70000),
    ],
)
async def test_what_is_no_handshake_is_refused_and_answered_in_tls_only(
    ours: ssl.SSLContext, garbage: bytes
) -> None:
    stage = Stage(ours, client_context())
    stage.tls.connection_made(stage.below)
    stage.tls.data_received(garbage)
    with pytest.raises(ssl.SSLError) as caught:
        await stage.tls.secured()
    assert explain(caught.value, "client")[0] is TlsFailure.NOT_TLS
    assert set(stage.below.kinds) <= {ALERT}
    assert stage.below.is_cut
    assert stage.tls.is_closing()
    stage.tls.data_received(b"more of it")
    stage.tls.connection_lost(None)
    assert stage.above.told == []


async def test_a_handshake_that_fails_tells_the_peer_why(certificates: Certificates) -> None:
    demanding = ListenerFiles(*map(str, certificates.server), ca=str(certificates.ca), demanded=True).load()
    stage = Stage(demanding, client_context("1.2"))
    stage.tls.connection_made(stage.below)
    stage.tls.data_received(stage.peer.shake())
    stage.tls.data_received(stage.peer.shake(stage.below.take()))
    with pytest.raises(ssl.SSLError) as caught:
        await stage.tls.secured()
    assert explain(caught.value, "client")[0] is TlsFailure.NO_CERTIFICATE
    assert stage.below.kinds == [ALERT]
    with pytest.raises(ssl.SSLError, match="handshake failure"):
        stage.peer.shake(stage.below.take())


@pytest.mark.parametrize("how", ["end", "loss", "error", "silence", "given up", "closed"])
async def test_a_peer_that_goes_during_the_handshake_fails_it(make: Make, how: str) -> None:
    stage = make(patience=0.01 if how == "silence" else PATIENCE)
    stage.tls.connection_made(stage.below)
    stage.tls.data_received(stage.peer.shake())
    if how == "end":
        assert stage.tls.eof_received() is False
    elif how in ("loss", "error"):
        stage.tls.connection_lost(None if how == "loss" else BrokenPipeError("gone"))
    elif how in ("given up", "closed"):
        getattr(stage.tls, "abort" if how == "given up" else "close")()
    with pytest.raises(OSError) as caught:
        await stage.tls.secured()
    kind = explain(caught.value, "client")[0]
    assert kind is (TlsFailure.TIMEOUT if how == "silence" else TlsFailure.GONE)
    assert stage.tls.is_closing()
    stage.tls.connection_lost(None)
    assert stage.above.told == []


async def test_who_gives_up_waiting_cuts_the_connection(make: Make) -> None:
    stage = make()
    stage.tls.connection_made(stage.below)
    waiting = asyncio.ensure_future(stage.tls.secured())
    await turn()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert stage.below.is_cut


async def test_no_ticket_is_made_for_a_client(make: Make) -> None:
    stage = await make().shaken()
    stage.tls.write(b"x")
    assert stage.peer.hear(stage.below.take()) == b"x"
    session = stage.peer.tls.session
    assert session is not None
    assert not session.has_ticket


async def test_towards_a_server_the_name_is_told_and_tickets_are_taken(certificates: Certificates) -> None:
    asked: list[str | None] = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificates.server)
    server.sni_callback = lambda _connection, name, _context: asked.append(name)
    client = ServerFiles("verify-full", str(certificates.ca)).load()
    peer, above, below = Peer(server, server_side=True), Above(), Below()
    tls = TlsTransport(client, above, PATIENCE, False, "localhost")
    tls.connection_made(below)
    tls.data_received(peer.shake(below.take()))
    await tls.secured()
    assert asked == ["localhost"]
    # Tickets are records, too, and hold nothing for the protocol.
    tls.write(b"question")
    tickets = peer.shake(below.take()) + peer.say(b"answer")
    tls.data_received(tickets)
    await turn()
    assert above.heard == [b"answer"]


async def test_a_server_of_another_name_is_refused(certificates: Certificates) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificates.server)
    client = ServerFiles("verify-full", str(certificates.ca)).load()
    peer, below = Peer(server, server_side=True), Below()
    tls = TlsTransport(client, Above(), PATIENCE, False, "elsewhere")
    tls.connection_made(below)
    tls.data_received(peer.shake(below.written))
    with pytest.raises(ssl.SSLCertVerificationError):
        await tls.secured()
    assert below.is_cut


# -- ends -------------------------------------------------------------------------------------------


async def test_a_peer_that_says_the_end_is_told_the_same(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.tls.data_received(stage.peer.say(b"bye") + stage.peer.end())
    assert stage.above.heard == [b"bye"]
    assert stage.above.told == ["eof"]
    assert stage.below.is_closed
    assert not stage.below.is_cut
    assert stage.peer.hears_the_end(stage.below.take())
    stage.tls.write(b"too late")
    assert stage.below.written == b""
    stage.tls.connection_lost(None)
    assert stage.above.told == ["eof", "lost"]
    assert stage.above.error is None


async def test_an_answer_may_be_written_to_a_peer_that_said_the_end(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.above.does = lambda data: stage.tls.write(b"answer")
    stage.tls.data_received(stage.peer.say(b"question") + stage.peer.end())
    assert stage.below.kinds[0] == DATA
    assert stage.below.is_closed


@pytest.mark.parametrize("half", [False, True])
async def test_a_peer_that_closes_without_saying_so_is_lost(make: Make, half: bool) -> None:
    stage = await make().shaken()
    await turn()
    sent = stage.peer.say(b"whole")
    stage.tls.data_received(sent)
    if half:
        stage.tls.data_received(stage.peer.say(b"never")[:-1])
    assert stage.tls.eof_received() is False
    assert stage.tls.is_closing()
    stage.tls.connection_lost(None)
    assert stage.above.heard == [b"whole"]
    assert stage.above.told == ["lost"]


async def test_close_says_the_end_and_waits_for_the_peer_s(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.tls.write(b"last words")
    stage.tls.close()
    stage.tls.close()
    assert stage.tls.is_closing()
    assert not stage.below.is_closed
    stage.tls.data_received(stage.peer.say(b"it still speaks"))
    sent = stage.below.take()
    assert stage.peer.hear(sent) == b"last words"
    stage.tls.data_received(stage.peer.end())
    assert stage.below.is_closed
    assert not stage.below.is_cut
    assert stage.above.heard == []
    assert stage.above.told == []


async def test_close_while_data_is_unread_still_says_the_end(ours: ssl.SSLContext) -> None:
    stage = await Stage(ours, client_context("1.3")).shaken(b"nobody reads this")
    stage.tls.pause_reading()
    stage.tls.close()
    assert stage.below.reads  # or the peer's end would not be seen
    assert stage.peer.hears_the_end(stage.below.take())
    await turn()
    assert stage.above.heard == []
    stage.tls.data_received(stage.peer.end())
    assert stage.below.is_closed


async def test_a_protocol_may_close_from_within_what_it_hears(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.above.does = lambda data: stage.tls.close()
    stage.tls.data_received(stage.peer.say(b"X") + stage.peer.end())
    assert stage.above.heard == [b"X"]
    assert stage.above.told == []
    assert stage.below.is_closed
    assert stage.peer.hears_the_end(stage.below.take())


async def test_a_peer_that_never_ends_its_side_is_cut(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[Callable[[], None]] = []
    stage = await make().shaken()
    loop = asyncio.get_running_loop()
    plain = loop.call_later

    def call_later(delay: float, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        later.append(call)
        return plain(delay, call, *args, **options)

    monkeypatch.setattr(loop, "call_later", call_later)
    stage.tls.close()
    [call] = later
    call()
    assert stage.below.is_cut
    stage.tls.connection_lost(None)


@pytest.mark.parametrize("alone", [False, True])
async def test_a_record_that_was_touched_ends_the_connection(make: Make, alone: bool) -> None:
    stage = await make().shaken()
    await turn()
    good = b"" if alone else stage.peer.say(b"good")
    bad = bytearray(stage.peer.say(b"evil", b"never read"))
    bad[8] ^= 1
    stage.tls.data_received(good + bytes(bad))
    assert stage.above.heard == ([] if alone else [b"good"])
    assert stage.below.is_cut
    assert len(stage.below.kinds) == 1  # an alert
    stage.tls.write(b"nothing more")
    assert len(stage.below.kinds) == 1
    stage.tls.data_received(stage.peer.say(b"nor this"))
    stage.tls.connection_lost(None)
    assert b"nor this" not in b"".join(stage.above.heard)
    assert stage.above.told == ["lost"]
    assert isinstance(stage.above.error, ssl.SSLError)


async def test_plain_bytes_in_the_middle_of_a_stream_are_never_heard(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.tls.data_received(b"Q\0\0\0\x0dSELECT 1\0" * 3)
    assert stage.above.heard == []
    assert stage.below.is_cut


async def test_a_crash_above_while_the_first_data_is_heard_cuts_the_connection(ours: ssl.SSLContext) -> None:
    stage = await Stage(ours, client_context("1.3")).shaken(b"early bird")
    crashes: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: crashes.append(what))

    def crash(data: bytes) -> None:
        raise ZeroDivisionError

    stage.above.does = crash
    await turn()
    assert isinstance(crashes[0]["exception"], ZeroDivisionError)
    assert stage.below.is_cut


# -- flow -------------------------------------------------------------------------------------------


async def test_holding_is_passed_on_both_ways(make: Make) -> None:
    stage = await make().shaken()
    await turn()
    stage.tls.pause_writing()
    stage.tls.resume_writing()
    assert stage.above.told == ["full", "empty"]
    stage.tls.pause_reading()
    assert not stage.below.reads
    stage.tls.resume_reading()
    assert stage.below.reads
    other = Above()
    stage.tls.set_protocol(other)
    stage.tls.data_received(stage.peer.say(b"for the other"))
    stage.tls.pause_writing()
    assert (other.heard, other.told) == ([b"for the other"], ["full"])
    assert not stage.tls.can_write_eof()
    stage.tls.close()
    stage.tls.pause_reading()
    assert stage.below.reads


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A loop of either kind: the daemon runs on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as made:
        yield made


class Fountain(Above):
    """Writes pieces for as long as there is room, ``count`` of them, and closes."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.sent = hashlib.sha256()
        self.lost = asyncio.Event()
        self.most = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.resume_writing()

    def resume_writing(self) -> None:
        self.told.append("empty")
        while self.count and self.told[-1] == "empty":
            self.count -= 1
            piece = bytes((self.count % 256,)) * (self.count * 31 % 40_000 + 1)
            self.sent.update(piece)
            self.transport.write(piece)
        if not self.count:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.lost.set()


class Sponge(Above):
    """Stops reading whenever it has heard something, for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0
        self.paused = False
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        assert not self.paused
        super().data_received(data)
        self.paused = True
        self.pauses += 1
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(0.001, self._go_on)

    def _go_on(self) -> None:
        self.paused = False
        self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.lost.set()


async def _talk(ours: ssl.SSLContext, above: Any, play: Callable[[ssl.SSLSocket], bytes]) -> bytes:
    """Have a real client connect, and ``play`` its part in a thread; returns when both are done."""

    def connect(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as sock,
            client_context().wrap_socket(sock) as tls,
        ):
            return play(tls)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: TlsTransport(ours, above, PATIENCE, announce=True), "127.0.0.1", 0
    )
    try:
        found = await loop.run_in_executor(None, connect, server.sockets[0].getsockname()[1])
        async with asyncio.timeout(20):
            await above.lost.wait()
    finally:
        server.close()
    return found


def test_much_is_sent_to_a_real_peer_as_fast_as_that_reads(
    runner: asyncio.Runner, ours: ssl.SSLContext
) -> None:
    def read(tls: ssl.SSLSocket) -> bytes:
        time.sleep(0.2)
        found = hashlib.sha256()
        while piece := tls.recv(65536):
            found.update(piece)
        return found.digest()

    async def run() -> None:
        fountain = Fountain(1500)
        digest = await _talk(ours, fountain, read)
        assert digest == fountain.sent.digest()
        assert "full" in fountain.told
        assert fountain.error is None

    runner.run(run())


def test_much_is_read_from_a_real_peer_as_fast_as_it_is_wanted(
    runner: asyncio.Runner, ours: ssl.SSLContext
) -> None:
    text = bytes(range(251)) * 20_000

    def write(tls: ssl.SSLSocket) -> bytes:
        tls.sendall(text)
        tls.unwrap()
        return b""

    async def run() -> None:
        sponge = Sponge()
        await _talk(ours, sponge, write)
        assert b"".join(sponge.heard) == text
        assert sponge.pauses > 10
        assert sponge.told == ["made", "eof", "lost"]

    runner.run(run())


class Echo(Above):
    """Says back what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.does = lambda data: self.transport.write(data)


def test_keys_may_be_changed_in_the_middle(runner: asyncio.Runner, ours: ssl.SSLContext) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: TlsTransport(ours, Echo(), PATIENCE, announce=True), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        pipe = asyncio.subprocess.PIPE
        words = ["openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{port}"]
        client = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            async with asyncio.timeout(20):
                # A line of one K has new keys made on both sides, one of a small k on its own side.
                for line in (b"first\n", b"K\n", b"second\n", b"k\n", b"third\n"):
                    client.stdin.write(line)
                    while len(line) > 2 and await client.stdout.readline() != line:
                        pass
                    await asyncio.sleep(0.1)  # it takes what it reads at once for one line
                client.stdin.write(b"Q\n")
                await client.wait()
                said = (await client.stderr.read()).decode() if client.stderr is not None else ""
        finally:
            if client.returncode is None:
                client.kill()
            server.close()
        assert said.count("KEYUPDATE") == 2

    runner.run(run())


async def test_bytes_that_were_touched_anywhere_end_in_nothing_worse_than_the_connection(
    ours: ssl.SSLContext,
) -> None:
    chance = random.Random(7)
    for _ in range(150):
        stage = Stage(ours, client_context(chance.choice(["1.2", "1.3"])))
        stage.tls.connection_made(stage.below)
        victim, answer = chance.randrange(4), b""
        for step in range(4):
            try:
                sent = stage.peer.shake(answer) if step < 3 else stage.peer.say(b"question", b"and more")
            except ssl.SSLError:
                sent = stage.peer.outgoing.read()  # it minds an alert of ours
            if step == victim and sent:
                touched = bytearray(sent)
                for _ in range(chance.randrange(1, 4)):
                    touched[chance.randrange(len(touched))] ^= 1 << chance.randrange(8)
                sent = bytes(touched)
            if sent:
                stage.tls.data_received(sent)
            answer = stage.below.take()
            await turn()
        if stage.below.is_cut:
            stage.tls.connection_lost(None)
        heard = b"".join(stage.above.heard)
        assert b"questionand more".startswith(heard)
