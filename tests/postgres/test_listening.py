"""What clients listen to where sessions change hands: from their own session to the hub, and back."""

from collections.abc import Awaitable, Generator
from typing import Any

import pytest

from postgres.playbook import DEFAULTS, cut, done, new_codec, new_session, notice, row
from proxy.errors import RemoteProtocolError
from proxy.hearing import Hub, HubCodec
from proxy.postgres.begin import DEFER
from proxy.postgres.fanout import ABSENT, HELD, Fanout, Fanouts
from proxy.postgres.listening import GIVEN, SHARED, Listening
from proxy.postgres.messages import error, message, query, ready
from proxy.postgres.profile import Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state_rules import KEPT
from proxy.reasons import CloseReason
from proxy.steps import Wait

IDLE = ready(73)


def note(channel: str, payload: str = "") -> bytes:
    return message(b"A", b"\0\0\0\7" + channel.encode() + b"\0" + payload.encode() + b"\0")


def payloads(data: bytes) -> list[str]:
    """What a stream of notifications says: "channel payload" for each."""
    return [body[4:-1].replace(b"\0", b" ").decode() for kind, body in cut(data) if kind == "A"]


class Shell(Hub):
    """The shell of a hub whose server answers at once."""

    def __init__(self, codec: HubCodec) -> None:
        self.codec = codec
        self.said: list[bytes] = []
        self.may_reserve = True
        self.deaf = False
        self.reserved = 0
        self.is_deserted = False

    def say(self, data: bytes) -> None:
        self.said.append(data)

    async def until(self, number: int) -> bool:
        if self.deaf:
            return False
        while self.codec.answered < number:
            self.codec.heard(done("LISTEN") + IDLE)
        return True

    async def settled(self) -> None:
        return

    def reserve(self) -> bool:
        self.reserved += self.may_reserve
        return self.may_reserve

    def unreserve(self) -> None:
        self.reserved -= 1

    def deserted(self) -> None:
        self.is_deserted = True

    def statements(self) -> list[str]:
        """What was said since this was asked last."""
        said, self.said = self.said, []
        return [body[:-1].decode() for data in said for _, body in cut(data)]


class Server:
    """The held session's server, which listens to ``listens``; ``ahead`` comes before its next answer."""

    def __init__(self, *listens: str) -> None:
        self.listens = list(listens)
        self.ahead = b""
        self.asked: list[str] = []
        self.refuses = ""

    def answer(self, sent: bytes) -> bytes:
        back = b""
        for _, body in cut(sent):
            text = body[:-1].decode()
            self.asked.append(text)
            back += self.ahead
            self.ahead = b""
            if self.refuses and self.refuses in text:
                back += error("ERROR", "55000", "no") + IDLE
            elif "pg_listening_channels" in text:
                back += b"".join(row(name) for name in self.listens) + done("SELECT") + IDLE
            elif "NOTIFY" in text:
                mark, token = text.split('"')[1], text.split("'")[1]
                back += done("LISTEN") + done("NOTIFY") + note(mark, token) + IDLE
            else:
                back += done(text.split()[0]) + IDLE
        return back


def run(conversation: Generator[Any, Any, Any], server: Server) -> Any:
    """Drive a conversation to its end; a step that waits is awaited at once."""
    back: Any = None
    while True:
        try:
            step = conversation.send(back)
        except StopIteration as end:
            return end.value
        back = wait(step.call()) if isinstance(step, Wait) else server.answer(step)


def wait(work: Awaitable[Any]) -> Any:
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise AssertionError("nothing here really waits")


class Scene:
    """One pool; clients whose sessions are there for the asking."""

    def __init__(self, backlog: int = 1000, keeps: bool = False) -> None:
        self.profiles = Profiles()
        self.fanouts = Fanouts(self.profiles, backlog, keeps)
        self.fanouts.make = self._make
        self.shells: list[Shell] = []
        self.numbers = 0

    def _make(self, codec: HubCodec) -> Hub:
        self.shells.append(Shell(codec))
        return self.shells[-1]

    def client(self, database: str = "app") -> tuple[PgClientCodec, Listening, list[str]]:
        """A codec, what it listens to, and how often it was rung for."""
        self.numbers += 1
        codec = new_codec(self.profiles, number=self.numbers)
        listening = codec.listening = Listening(codec, self.fanouts, database, "app")
        rings: list[str] = []
        codec.bell = lambda: rings.append("ring")
        return codec, listening, rings

    def session(self, encoding: str = "UTF8") -> PgSessionCodec:
        return new_session(self.profiles, DEFAULTS | {"client_encoding": encoding})

    def listen(self, client: PgClientCodec, *channels: str, server: Server | None = None) -> int:
        """The client has listened on a session: what becomes of that."""
        session = client.session = self.session()
        listening = client.listening
        assert isinstance(listening, Listening)
        listening.listened()
        become: int = run(listening.settle(), server or Server(*channels))
        listening.asked(session)
        if become == GIVEN:
            shell = listening.gift()
            assert isinstance(shell, Shell)
            client.part()
            shell.codec.taken(session)
        elif become == SHARED:
            client.part()
        return become

    @property
    def fanout(self) -> Fanout:
        codec = self.shells[0].codec
        assert isinstance(codec, Fanout)
        return codec

    def hears(self, *channels: str) -> None:
        """The hub's session is notified."""
        self.fanout.heard(b"".join(note(*channel.split()) for channel in channels))


def test_the_first_who_listens_gives_its_session_and_the_next_gives_it_back() -> None:
    scene = Scene()
    first, _, first_rings = scene.client()
    second, _, _ = scene.client()
    server = Server("a")
    assert scene.listen(first, server=server) == GIVEN
    assert "RESET ALL" in server.asked[1], "what the client has SET is not for the hub"
    assert scene.fanout.state == HELD
    server = Server("a", "b")
    assert scene.listen(second, server=server) == SHARED
    assert server.asked[-1] == "UNLISTEN *"
    mark = scene.fanout.mark.decode()
    assert scene.shells[0].statements() == [f'LISTEN "{mark}";LISTEN "b"']
    scene.hears("a 1", f"{mark} 1", "b 2", "c 3")
    assert first_rings == ["ring"]
    assert payloads(first.take_news()) == ["a 1"]
    assert payloads(second.take_news()) == ["b 2"], "a 1 came before its mark"
    assert (scene.fanouts.tally.clients, scene.fanouts.tally.channels) == (2, 2)


def test_what_the_session_heard_before_its_mark_comes_first_and_nothing_comes_twice() -> None:
    scene = Scene()
    scene.listen(scene.client()[0], "a")
    client, listening, _ = scene.client()
    session = client.session = scene.session()
    listening.listened()
    server = Server("a")
    server.ahead = note("a", "1")
    settling = listening.settle()
    back = server.answer(next(settling))  # pg_listening_channels
    step = settling.send(back + note("a", "2"))
    assert isinstance(step, Wait)
    sent = settling.send(wait(step.call()))
    scene.hears("a 2")  # gated: the session hears that, too
    token = sent.decode().split("'")[1]
    mark = scene.fanout.mark.decode()
    scene.hears("a 3", f"{mark} {token}", "a 4")  # the hub is faster than the session
    others = note(mark, "4711")  # of a client that does the same, on another session
    answer = note("a", "3") + others + note(mark, token) + note("a", "4") + IDLE
    sent = settling.send(done("LISTEN") + answer)
    assert b"UNLISTEN" in sent
    with pytest.raises(StopIteration) as end:
        settling.send(note("a", "5") + done("UNLISTEN") + IDLE)
    assert end.value.value == SHARED
    listening.asked(session)
    scene.hears("a 5")
    client.part()
    assert payloads(client.take_news()) == ["a 1", "a 2", "a 3", "a 4", "a 5"]


def test_what_only_the_hub_heard_while_the_session_was_asked_is_news_when_that_is_over() -> None:
    scene = Scene()
    scene.listen(scene.client()[0], "a")
    client, listening, _ = scene.client()
    session = client.session = scene.session()
    listening.listened()
    server = Server("a")
    settling = listening.settle()
    step = settling.send(server.answer(next(settling)))
    assert isinstance(step, Wait)
    marking = settling.send(wait(step.call()))
    silencing = settling.send(server.answer(marking))
    token = marking.decode().split("'")[1]
    scene.hears(f"{scene.fanout.mark.decode()} {token}", "a 1")
    assert payloads(client.take_news()) == [], "the session may still have something older"
    with pytest.raises(StopIteration):
        settling.send(server.answer(silencing))
    listening.asked(session)
    assert client.news, "nobody rings for it a second time"
    client.part()
    assert payloads(client.take_news()) == ["a 1"]


def test_a_session_listens_to_nothing_after_a_rollback() -> None:
    scene = Scene()
    client, listening, _ = scene.client()
    assert scene.listen(client) == SHARED
    assert listening.channels() == []
    assert scene.shells == []


@pytest.mark.parametrize("why", ["full", "deaf", "refused"])
def test_where_no_hub_can_be_had_the_client_keeps_its_session(why: str) -> None:
    scene = Scene()
    scene.listen(scene.client()[0], "a")
    client, listening, _ = scene.client()
    server = Server("a", "b")
    if why == "full":
        scene.fanout.lost("gone")
        scene.fanouts._by_place[scene.fanout.place] = scene.fanout
        scene.shells[0].may_reserve = False
    elif why == "deaf":
        scene.shells[0].deaf = True
    else:
        server.refuses = "NOTIFY"
    server.ahead = note("b", "1")
    assert scene.listen(client, server=server) == KEPT
    assert listening.channels() == []
    assert client.session is not None
    assert payloads(client.take_news()) == ["b 1"], "what was said meanwhile is not lost"
    assert listening.may_hear(note("b"))


def test_notifications_wait_for_the_end_of_the_transaction_and_go_ahead_of_its_last_word() -> None:
    scene = Scene()
    client, _, rings = scene.client()
    scene.listen(client, "a")
    client.client(query("BEGIN"))
    client.join(scene.session())
    client.server(done("BEGIN") + ready(84))
    scene.hears("a 1")
    assert rings == ["ring"]
    assert client.take_news() == b""
    client.client(query("COMMIT"))
    scene.hears("a 2")
    assert client.take_news() == b""
    client.server(done("COMMIT")[:5])
    assert client.take_news() == b"", "in the middle of a message"
    client.server(done("COMMIT")[5:] + notice() + IDLE)
    kinds = "".join(kind for kind, _ in cut(client.out))
    assert kinds == "CNAAZ"
    assert client.take_news() == b""


def test_notifications_go_ahead_of_an_answer_of_ours_too() -> None:
    scene = Scene()
    client, _, _ = scene.client()
    scene.listen(client, "a")
    client.terms.begin = DEFER
    client.set_aside()
    client.client(query("BEGIN"))
    scene.hears("a 1")
    assert client.take_news() == b"", "the client believes itself in a transaction"
    client.client(query("COMMIT"))
    assert [kind for kind, _ in cut(client.reply)] == ["C", "A", "Z"]


def test_unlisten_holds_when_it_is_committed() -> None:
    scene = Scene()
    client, listening, _ = scene.client()
    scene.listen(client, "a", "b", 'Q"x', "c")
    listening.overhear(b'UNLISTEN A ; unlisten /* so */ "Q""x"')
    listening.unlistened()
    listening.ended(True, False)
    assert sorted(listening.channels()) == [b'Q"x', b"a", b"b", b"c"]
    listening.ended(False, False)
    assert sorted(listening.channels()) == [b"b", b"c"]
    assert scene.shells[0].statements() == ['UNLISTEN "a";UNLISTEN "Q""x"']
    listening.overhear(b"UNLISTEN b")
    listening.unlistened()
    listening.failed()
    listening.ended(False, False)
    assert sorted(listening.channels()) == [b"b", b"c"], "it was rolled back"
    listening.overhear(b"SELECT 'unlisten b'")
    listening.ended(False, False)
    assert listening.channels(), "no UNLISTEN has run"
    assert not client.unlistens
    listening.overhear(b"UNLISTEN *")
    listening.unlistened()
    listening.ended(False, False)
    assert listening.channels() == []
    assert scene.shells[0].is_deserted
    assert scene.fanouts.tally.clients == scene.fanouts.tally.channels == 0


def test_unlisten_behind_an_answer_that_is_due_is_not_forgotten() -> None:
    scene = Scene()
    client, listening, _ = scene.client()
    scene.listen(client, "a")
    listening.overhear(b"UNLISTEN a")
    listening.ended(False, True)
    listening.unlistened()
    listening.ended(False, False)
    assert listening.channels() == []


def test_who_leaves_gives_its_channels_back() -> None:
    scene = Scene()
    client, _, rings = scene.client()
    other, _, _ = scene.client()
    scene.listen(client, "a", "b")
    scene.listen(other, "a")
    scene.shells[0].statements()
    client.leave()
    assert scene.shells[0].statements() == ['UNLISTEN "b"']
    scene.hears("a 1", "b 1")
    assert rings == []
    assert client.take_news() == b""
    other.leave()
    assert scene.shells[0].is_deserted
    assert scene.shells[0].statements() == ['UNLISTEN "a"']


def test_who_leaves_while_its_session_is_asked_has_no_channels() -> None:
    scene = Scene()
    scene.listen(scene.client()[0], "a")
    client, listening, _ = scene.client()
    session = client.session = scene.session()
    settling = listening.settle()
    server = Server("b")
    step = settling.send(server.answer(next(settling)))
    client.leave()
    sent = settling.send(wait(step.call()))
    assert b"UNLISTEN *" in sent
    with pytest.raises(StopIteration):
        settling.send(done("UNLISTEN") + IDLE)
    client.part()
    assert session.overheard is None
    assert scene.fanouts.tally.channels == 1
    assert scene.fanouts.tally.clients == 1


def test_a_session_that_is_lost_before_the_hub_has_it_leaves_no_hub_behind() -> None:
    scene = Scene()
    client, listening, _ = scene.client()
    client.session = scene.session()
    assert run(listening.settle(), Server("a")) == GIVEN
    client.part()
    assert scene.fanout.state == ABSENT
    assert scene.shells[0].reserved == 0
    client.leave()
    assert scene.fanouts.tally.channels == 0
    other, _, _ = scene.client()
    assert scene.listen(other, "a") == GIVEN


def test_whoever_falls_behind_is_doomed_and_keeps_nothing() -> None:
    scene = Scene(backlog=100)
    client, listening, rings = scene.client()
    other, _, _ = scene.client()
    scene.listen(client, "a")
    scene.listen(other, "a")
    scene.hears(f"{scene.fanout.mark.decode()} 1")
    for _ in range(10):
        scene.hears("a " + "x" * 30)
        assert len(payloads(other.take_news())) == 1
    assert client.doom is CloseReason.LISTEN_BACKLOG
    assert client.news
    assert len(rings) <= 5
    assert listening.channels() == []
    assert client.take_news() == b""
    assert b"does not take its notifications" in client.fatal(client.doom, client.doom_detail)


def test_when_the_hub_is_lost_its_clients_are_told() -> None:
    scene = Scene()
    client, listening, rings = scene.client()
    scene.listen(client, "a")
    assert not scene.fanout.lost("the server closed the connection")
    assert client.doom is CloseReason.LISTEN_LOST
    assert rings == ["ring"]
    assert listening.channels() == []


def test_with_keep_they_get_another_hub_and_a_warning() -> None:
    scene = Scene(keeps=True)
    client, listening, _ = scene.client()
    scene.listen(client, "a", "b")
    assert scene.fanout.lost("the server closed the connection")
    assert client.doom is None
    session = scene.session()
    server = Server()
    run(scene.fanout.ready(session, []), server)
    scene.fanout.taken(session)
    scene.fanout.restored()
    assert scene.shells[0].statements() == ['LISTEN "a";LISTEN "b"']
    scene.fanout.heard(done("LISTEN") + IDLE)
    scene.hears("b 1")
    news = client.take_news()
    assert b"notifications may have been lost" in news
    assert payloads(news) == ["b 1"]
    scene.fanout.lost("again")
    scene.fanout.abandon("no session came free")
    assert client.doom is CloseReason.LISTEN_LOST
    assert listening.channels() == []


def test_databases_and_encodings_have_hubs_of_their_own() -> None:
    scene = Scene()
    scene.listen(scene.client()[0], "a")
    scene.listen(scene.client("other")[0], "a")
    assert len(scene.shells) == 2
    client, listening, _ = scene.client()
    session = client.session = scene.session("LATIN1")
    session.defaults["client_encoding"] = "UTF8"
    server = Server("a")
    assert run(listening.settle(), server) == GIVEN
    assert server.asked[-1] == "SET client_encoding = 'LATIN1'"
    assert len(scene.shells) == 3


def test_a_stream_in_pieces_is_the_same_stream() -> None:
    scene = Scene()
    client, _, _ = scene.client()
    scene.listen(client, "a")
    data = note("a", "1") + notice() + note("a", "2") + done("LISTEN") + IDLE
    for byte in data:
        scene.fanout.heard(bytes((byte,)))
    assert payloads(client.take_news()) == ["a 1", "a 2"]


@pytest.mark.parametrize(
    "nonsense", [b"A\0\0\0\3", b"A\x7f\0\0\0", message(b"D", b"\0\0"), message(b"A", b"\0\0\0\0x")]
)
def test_nonsense_from_the_server_is_an_error(nonsense: bytes) -> None:
    scene = Scene()
    scene.listen(scene.client()[0], "a")
    with pytest.raises(RemoteProtocolError):
        scene.fanout.heard(nonsense)


def test_the_hub_goes_home_listening_to_nothing() -> None:
    scene = Scene()
    client, _, _ = scene.client()
    scene.listen(client, "a")
    client.leave()
    fanout = scene.fanout
    session = fanout._session
    assert session is not None
    parting = fanout.parting(session)
    assert b"UNLISTEN *" in next(parting)
    assert fanout.state == ABSENT
    with pytest.raises(StopIteration):
        # The answer to UNLISTEN a comes first.
        parting.send(done("UNLISTEN") + IDLE + note("a") + done("UNLISTEN") + IDLE)
    assert session.deep, "what else its first client has left goes before the next one gets it"
    other, _, _ = scene.client()
    assert scene.listen(other, "a") == GIVEN
    assert len(scene.shells) == 2
