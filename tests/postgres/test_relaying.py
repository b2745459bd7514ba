"""Whole clients through codecs onto model sessions, compared with the same clients on the model itself.

``Town`` is an idealised pool: several clients, a few sessions, and every byte under way in the hands of a
random order. What every client reads must be what a server of its own would have said.
"""

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postgres.playbook import (
    ModelServer,
    bind,
    call,
    close,
    converse,
    copy_data,
    copy_done,
    copy_fail,
    cut,
    describe,
    execute,
    flush,
    new_codec,
    new_session,
    parse,
    sync,
    told,
    unnamed,
)
from proxy.codec import CLOSE, FORWARD, RECOVER, RELEASE, REPLY, RESUME
from proxy.embedded import EmbeddedPostgres
from proxy.errors import PoolBusy, ProxyError, RemoteProtocolError
from proxy.postgres.accounts import Account
from proxy.postgres.begin import AHEAD, DEFER, PASS_ON
from proxy.postgres.messages import query
from proxy.postgres.profile import Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session_login import Identity, open_session
from proxy.postgres.statements import Statements

FUZZ = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
MANY = settings(max_examples=20_000 if FUZZ else 150, deadline=None, suppress_health_check=list(HealthCheck))
TAG = re.compile(r"c(\d+)-")
BEGINS = (PASS_ON, DEFER, AHEAD)


class Resident:
    """One client of the town. ``units`` are (bytes, whether it waits for all answers before them)."""

    def __init__(self, number: int, codec: PgClientCodec, units: list[tuple[bytes, bool]]) -> None:
        self.number = number
        self.codec = codec
        self.rest = b"".join(unit for unit, _ in units)
        self.stops: list[tuple[int, int]] = []  # (offset in the script, ReadyForQuery to see before it)
        model, at, readies = ModelServer(proxied=True), 0, 0
        for unit, waits in units:
            if waits:
                self.stops.append((at, readies))
            readies += sum(word.startswith("Z ") for word in told(model.feed(unit)))
            at += len(unit)
        self.sent = 0
        self.got = b""
        self.house: House | None = None
        self.is_waiting = False
        self.late = b""
        self.is_gone = False

    def may_say(self) -> int:
        """How many bytes it may say now."""
        if self.is_gone:
            return 0
        limit = self.sent + len(self.rest)
        for at, readies in self.stops:
            if at >= self.sent and readies > self.readies():
                limit = min(limit, at)
        return limit - self.sent

    def readies(self) -> int:
        whole = self.got
        return sum(1 for kind, _ in loose(whole) if kind == "Z")


def loose(data: bytes) -> list[tuple[str, bytes]]:
    """The whole messages at the beginning of a stream."""
    end = 0
    while len(data) - end >= 5:
        stop = end + 1 + int.from_bytes(data[end + 1 : end + 5], "big")
        if stop > len(data):
            break
        end = stop
    return cut(data[:end])


class House:
    """One session of the town, and the bytes on its way to and from the server."""

    def __init__(self, profiles: Profiles) -> None:
        self.codec = new_session(profiles)
        self.server = ModelServer()
        self.going = b""
        self.coming = b""
        self.holder: Resident | None = None

    def deliver(self, count: int) -> None:
        data, self.going = self.going[:count], self.going[count:]
        self.server.executed.clear()
        self.coming += self.server.feed(data)
        for text in self.server.executed:
            owner = TAG.search(text)
            assert owner is None or self.holder is None or int(owner[1]) == self.holder.number, (
                f"client {self.holder.number} ran {text!r}"
            )

    def answer(self, sent: bytes) -> bytes:
        """For conversations: everything is delivered at once."""
        self.going += sent
        self.deliver(len(self.going))
        coming, self.coming = self.coming, b""
        return coming


class Town:
    """The clients, the sessions, and who waits."""

    def __init__(
        self, scripts: list[list[tuple[bytes, bool]]], sessions: int, order: Random, begin: int = PASS_ON
    ) -> None:
        self.profiles = Profiles()
        self.statements = Statements(cache=2)
        self.order = order
        self.begin = begin
        self.residents = [
            Resident(
                number,
                new_codec(self.profiles, number=number, begin=begin, statements=self.statements),
                script,
            )
            for number, script in enumerate(scripts, 1)
        ]
        self.houses = [House(self.profiles) for _ in range(sessions)]
        self.queue: list[Resident] = []
        self.dropped = 0
        self.written: list[str] = []

    def run(self, vanishing: float = 0.0, refusing: float = 0.0) -> None:
        """Until nothing more can happen."""
        for house in self.houses:
            self.rest(house)
        while True:
            moves: list[tuple[Any, Any]] = [
                (self.say, resident) for resident in self.residents if resident.may_say()
            ]
            moves += [(self.deliver, house) for house in self.houses if house.going]
            moves += [(self.bring, house) for house in self.houses if house.coming]
            if not moves:
                unsure = [house.holder for house in self.houses if house.holder and house.holder.codec.doubt]
                if not unsure or not self.queue:
                    return
                self.vanish(unsure[0])
                continue
            move, subject = self.order.choice(moves)
            move(subject)
            if vanishing and self.order.random() < vanishing:
                self.vanish(self.order.choice(self.residents))
            if refusing and self.queue and self.order.random() < refusing:
                self.refuse(self.queue[0])
            self.look_around()

    def _some(self, count: int) -> int:
        return count if self.order.random() < 0.5 else self.order.randint(1, count)

    def say(self, resident: Resident) -> None:
        count = self._some(resident.may_say())
        data, resident.rest = resident.rest[:count], resident.rest[count:]
        resident.sent += count
        self.hear(resident, data)

    def hear(self, resident: Resident, data: bytes) -> None:
        if resident.is_waiting:
            resident.late += data
            return
        codec = resident.codec
        flags = codec.client(data)
        if flags & REPLY:
            resident.got += codec.reply
        if flags & FORWARD:
            if resident.house is not None:
                resident.house.going += codec.out
            else:
                self.queue.append(resident)
                resident.is_waiting = True
                self.grant()
        assert not flags & CLOSE, codec.reply
        if flags & RELEASE:
            self.release(resident)

    def refuse(self, resident: Resident) -> None:
        """There is no session for it after all."""
        self.queue.remove(resident)
        resident.is_waiting = False
        resident.got += resident.codec.refuse(PoolBusy("every slot is taken", "the picture"))
        late, resident.late = resident.late, b""
        self.hear(resident, late)

    def rest(self, house: House) -> None:
        """The session goes idle; a transaction is begun on it where that is wanted, and again when old."""
        if self.begin == AHEAD and house.holder is None:
            for _ in range(self.order.randint(0, 2)):
                converse(house.codec.begin(), house.answer)
            if self.order.random() < 0.2:
                converse(house.codec.ping(), house.answer)

    def grant(self) -> None:
        for house in self.houses:
            if house.holder is None and self.queue:
                resident = self.queue.pop(0)
                resident.house, house.holder, resident.is_waiting = house, resident, False
                if resident.codec.join(house.codec):
                    converse(resident.codec.prepare(), house.answer)
                house.going += resident.codec.out
                if resident.codec.more:
                    self.hear(resident, b"")
                late, resident.late = resident.late, b""
                if late:
                    self.hear(resident, late)

    def deliver(self, house: House) -> None:
        house.deliver(self._some(len(house.going)))

    def bring(self, house: House) -> None:
        count = self._some(len(house.coming))
        data, house.coming = house.coming[:count], house.coming[count:]
        resident = house.holder
        if resident is None:
            assert house.codec.unlinked(data) == ""
            return
        flags = resident.codec.server(data)
        if flags & FORWARD:
            resident.got += resident.codec.out
        if flags & RELEASE:
            self.release(resident)
        if flags & RECOVER:
            self.give_back(resident)
        if flags & RESUME:
            self.hear(resident, b"")

    def release(self, resident: Resident) -> None:
        house = resident.house
        assert house is not None
        assert resident.codec.is_clean()
        # What is still on its way to the server is late copy data at most.
        house.deliver(len(house.going))
        assert not house.coming, f"released although the server still says {house.coming!r}"
        assert house.server.is_resting(), "released although the server is not at rest"
        self.part(resident)
        assert not house.codec.begun
        self.rest(house)
        self.grant()

    def part(self, resident: Resident) -> None:
        assert resident.house is not None
        resident.codec.part()
        resident.house.holder = resident.house = None

    def give_back(self, resident: Resident) -> None:
        house = resident.house
        assert house is not None
        if resident.codec.is_clean():
            self.release(resident)
            return
        recovery = resident.codec.recovery()
        coming, house.coming = house.coming, b""
        house.holder, holder = None, resident
        resident.codec.part()
        holder.house = None
        try:
            if recovery is None:
                raise RemoteProtocolError("it is not certain")
            pending = [coming]

            def answer(sent: bytes) -> bytes:
                return pending.pop() + house.answer(sent) if pending else house.answer(sent)

            converse(recovery, answer)
            converse(house.codec.settle(), house.answer)
            assert house.server.is_resting()
            assert not house.server.written
        except ProxyError:
            self.dropped += 1
            self.written += house.server.committed
            self.houses[self.houses.index(house)] = house = House(self.profiles)
        self.rest(house)
        self.grant()

    def vanish(self, resident: Resident) -> None:
        resident.is_gone = True
        if resident in self.queue:
            self.queue.remove(resident)
            resident.is_waiting = False
        elif resident.house is not None:
            self.give_back(resident)

    def look_around(self) -> None:
        """A session at rest is held by nobody."""
        for house in self.houses:
            if house.holder is None:
                assert house.server.status == ("T" if house.codec.begun else "I")
                self.look_at_names(house)
            if not house.going and not house.coming and house.server.is_resting():
                # Where a Query came without its Sync, nobody can know; the client keeps it to its end.
                assert house.holder is None or house.holder.codec.doubt, (
                    f"client {house.holder.number} holds a session at rest"
                )

    def look_at_names(self, house: House) -> None:
        """What the session is believed to hold it holds, and nothing else but what is to be closed."""
        held = {name for name in house.server.statements if name}
        believed = {statement.name.decode() for statement in house.codec.prepared}
        stale = {statement.name.decode() for statement in house.codec.stale}
        assert believed <= held
        assert held <= believed | stale | {"penstock_gone", "penstock_tried"}
        assert len(believed) <= self.statements.cache

    def committed(self) -> list[str]:
        return self.written + [text for house in self.houses for text in house.server.committed]


ENDS = ("COMMIT", "ROLLBACK", "END", "ROLLBACK; COMMIT", "COMMIT AND CHAIN")
# What may stand in a transaction besides statements.
INSIDE = [
    [],
    [],
    [query("BEGIN")],
    [query("SAVEPOINT x"), query("FAIL"), query("ROLLBACK TO x")],
    [query("ROLLBACK TO x")],
    [query("COMMIT AND CHAIN")],
    [query("COMMIT AND CHAIN"), unnamed("ROLLBACK AND CHAIN")],
    [query("SET penstock.getmode = 'nowait'"), query("SHOW penstock.getmode")],
    [query("SET penstock.getmode = 'never'")],
    [parse("SHOW penstock.getmode") + describe() + bind() + execute() + sync(), sync()],
    [parse("COMMIT") + sync(), b"", bind() + execute() + sync()],
    [parse("ROLLBACK") + bind() + execute() + unnamed("BEGIN")],
    [call(), flush(), copy_data()],
    [query("VACUUM")],
]


class Author:
    """Writes well-formed scripts. ``wild`` ones have parts whose answers depend on timing."""

    def __init__(self, draw: Any, number: int, wild: bool = False) -> None:
        self.draw = draw
        self.number = number
        self.wild = wild
        self.words = 0
        self.has_statement = False

    def word(self) -> str:
        self.words += 1
        return f"c{self.number}-{self.words}"

    def statement(self) -> str:
        kind = self.draw(st.integers(0, 11))
        if kind < 4:
            return f"SELECT {self.word()}"
        if kind < 6:
            return f"WRITE {self.word()}"
        return (
            "FAIL",
            "",
            "COPY OUT",
            "NOTICE",
            f"SET application_name = {self.word()}",
            "SHOW application_name",
        )[kind - 6]

    def script(self) -> list[tuple[bytes, bool]]:
        units: list[tuple[bytes, bool]] = []
        kinds = [self.simple, self.extended, self.prepared, self.transaction, self.copy, self.odd, self.named]
        if self.wild:
            kinds.append(self.weird)
        for _ in range(self.draw(st.integers(1, 7))):
            units += [(unit, self.draw(st.booleans())) for unit in self.draw(st.sampled_from(kinds))()]
        units.append((query("ROLLBACK"), False))
        return units

    def simple(self) -> list[bytes]:
        text = "; ".join(self.statement() for _ in range(self.draw(st.integers(1, 3))))
        return [query(text)]

    def extended(self) -> list[bytes]:
        return [self.segment() + sync()]

    def segment(self) -> bytes:
        out = b""
        for _ in range(self.draw(st.integers(1, 2))):
            text = "WRONG" if self.draw(st.integers(0, 7)) == 0 else self.statement()
            out += parse(text)
            out += describe() if self.draw(st.booleans()) else b""
            out += bind() + (flush() if self.draw(st.booleans()) else b"")
            out += describe(kind="P") if self.draw(st.booleans()) else b""
            out += execute() * self.draw(st.integers(1, 2))
        return out

    def prepared(self) -> list[bytes]:
        # The second part waits for the first: it is marked by the empty unit between them.
        uses = [bind() + execute() + sync() for _ in range(self.draw(st.integers(1, 3)))]
        return [parse(self.statement()) + describe() + sync(), b"", *uses]

    def transaction(self) -> list[bytes]:
        end = self.draw(st.sampled_from(ENDS))
        inside = [query(self.statement()) for _ in range(self.draw(st.integers(0, 2)))]
        inside += self.extended() if self.draw(st.booleans()) else []
        inside += self.draw(st.sampled_from(INSIDE))
        text = self.draw(st.sampled_from(("BEGIN", "BEGIN", "BEGIN;", "START TRANSACTION READ ONLY")))
        begin = query(text) if self.draw(st.booleans()) else unnamed(text)
        return [begin, *inside, unnamed(end) if self.draw(st.booleans()) and ";" not in end else query(end)]

    def copy(self) -> list[bytes]:
        fails = self.draw(st.sampled_from(["", " 1", " 2", " EARLY"]))
        data = [copy_data() for _ in range(self.draw(st.integers(0, 3)))]
        end = self.draw(st.sampled_from([copy_done(), copy_fail()]))
        if self.draw(st.booleans()):
            return [query("COPY IN" + fails), *data, end]
        start = parse("COPY IN" + fails) + bind() + execute() + flush()
        return [start + b"".join(data) + end + sync()]

    def odd(self) -> list[bytes]:
        return [
            self.draw(
                st.sampled_from(
                    [
                        call(),
                        sync(),
                        flush(),
                        query(""),
                        copy_data(),
                        copy_done(),
                        close("x") + sync(),
                        close("", "P") + execute() + sync(),
                        query("RESET ALL"),
                        query("VACUUM"),
                        query("BEGIN; COMMIT"),
                        query("COMMIT AND CHAIN"),
                        query("SET penstock.getmode = 'nowait'"),
                        query("SHOW penstock.getmode"),
                        sync() + sync(),
                    ]
                )
            )
        ]

    def named(self) -> list[bytes]:
        """Named statements: few names and few texts, so that they meet."""
        units = []
        for _ in range(self.draw(st.integers(1, 4))):
            out = b"".join(self.about_names() for _ in range(self.draw(st.integers(1, 4))))
            units.append(out + sync())
            if self.draw(st.integers(0, 5)) == 0:
                units.append(
                    query(self.draw(st.sampled_from(("DEALLOCATE ALL", "DEALLOCATE a", "DISCARD ALL"))))
                )
        return units

    def about_names(self) -> bytes:
        name = self.draw(st.sampled_from("abc"))
        kind = self.draw(st.integers(0, 10))
        if kind < 3:
            texts = (
                "SELECT one",
                "SELECT two",
                "SELECT three",
                "WRONG",
                "",
                f"WRITE {self.word()}",
                "ROLLBACK",
            )
            return parse(self.draw(st.sampled_from(texts)), name)
        if kind < 7:
            return bind(name) + execute() * self.draw(st.integers(1, 2))
        return (
            describe(name),
            close(name),
            unnamed("SELECT four")[:-5],
            parse(self.draw(st.sampled_from(("DEALLOCATE ALL", "DEALLOCATE a")))) + bind() + execute(),
        )[kind - 7]

    def weird(self) -> list[bytes]:
        return self.draw(
            st.sampled_from(
                [
                    [execute("nosuch") + parse(f"SELECT {self.word()}") + sync()],
                    [bind() + execute() + sync()],
                    [parse(f"SELECT {self.word()}") + sync(), bind() + execute() + sync()],
                    [close() + sync(), bind() + execute() + sync()],
                    [execute("nosuch") + close() + sync(), bind() + execute() + sync()],
                    [execute("nosuch") + query(f"SELECT {self.word()}") + sync()],
                    [parse(f"SELECT {self.word()}") + query("FAIL") + bind() + execute() + sync()],
                    [execute("nosuch") + call() + sync(), bind() + execute() + sync()],
                    [parse("COPY IN EARLY") + bind() + execute() + sync(), copy_data(), copy_done() + sync()],
                    [parse("COPY IN 1") + bind() + execute() + sync(), copy_data(), copy_done() + sync()],
                    [parse("COPY IN") + bind() + execute() + sync() + copy_data() + copy_done() + sync()],
                    [query("COPY IN; COPY IN 1"), copy_data(), copy_done(), copy_data(), copy_fail()],
                    [query("COPY IN"), sync(), copy_data(), copy_done()],
                ]
            )
        )


@st.composite
def scripts(draw: Any, wild: bool = False) -> list[list[tuple[bytes, bool]]]:
    return [Author(draw, number, wild).script() for number in range(1, draw(st.integers(2, 4)))]


def plain(data: bytes) -> list[str]:
    """What a client reads, without what may come at any time."""
    return [word for word in told(data) if not word.startswith("S ")]


def with_pauses(script: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    """The unit behind an empty one waits."""
    found: list[tuple[bytes, bool]] = []
    waits = False
    for unit, may_wait in script:
        if unit:
            found.append((unit, may_wait or waits))
        waits = not unit
    return found


@MANY
@pytest.mark.parametrize("begin", BEGINS)
@given(scripts(), st.integers(1, 2), st.integers(0, 1 << 32))
def test_every_client_reads_what_a_server_of_its_own_would_say(
    begin: int, written: list[list[tuple[bytes, bool]]], sessions: int, seed: int
) -> None:
    written = [with_pauses(script) for script in written]
    town = Town(written, sessions, Random(seed), begin)
    town.run()
    for script, resident in zip(written, town.residents, strict=True):
        assert not resident.rest
        expected = ModelServer(proxied=True).feed(b"".join(unit for unit, _ in script))
        assert plain(resident.got) == plain(expected)
    assert town.dropped == 0


@MANY
@pytest.mark.parametrize("begin", BEGINS)
@given(scripts(wild=True), st.integers(1, 2), st.integers(0, 1 << 32))
def test_no_client_runs_or_reads_what_is_another_s_whatever_they_send(
    begin: int, written: list[list[tuple[bytes, bool]]], sessions: int, seed: int
) -> None:
    # Whose statement runs is checked by the houses, and what is released by the town.
    town = Town([with_pauses(script) for script in written], sessions, Random(seed), begin)
    town.run()
    for resident in town.residents:
        for word in told(resident.got):
            owner = TAG.search(word)
            assert owner is None or int(owner[1]) == resident.number or word.startswith("S ")


@MANY
@pytest.mark.parametrize("begin", BEGINS)
@given(scripts(wild=True), st.integers(1, 2), st.integers(0, 1 << 32))
def test_what_a_client_that_vanished_had_not_ended_is_never_committed(
    begin: int, written: list[list[tuple[bytes, bool]]], sessions: int, seed: int
) -> None:
    written = [with_pauses(script) for script in written]
    town = Town(written, sessions, Random(seed), begin)
    town.run(vanishing=0.1)
    committed = town.committed()
    for script, resident in zip(written, town.residents, strict=True):
        said = b"".join(unit for unit, _ in script)[: resident.sent]
        model = ModelServer(proxied=True)
        model.feed(said)
        if model.is_dead:
            continue  # its script broke the protocol where we had refused a statement before
        mine = [text for text in committed if TAG.match(text)[1] == str(resident.number)]  # type: ignore[index]
        assert set(mine) <= set(model.committed)


@st.composite
def transactions(draw: Any) -> list[list[tuple[bytes, bool]]]:
    """Clients that only write, in transactions; they wait before each BEGIN and for its answer."""
    found = []
    for number in range(1, draw(st.integers(2, 4))):
        author = Author(draw, number)
        units: list[tuple[bytes, bool]] = []
        for turn in range(draw(st.integers(1, 4))):
            frame = query if draw(st.booleans()) else unnamed
            texts = [f"WRITE c{number}-{turn}-{word}" for word in range(draw(st.integers(0, 3)))]
            text = draw(st.sampled_from(("BEGIN", "BEGIN READ WRITE")))
            units.append((frame(text), True))  # where it is refused openly, what follows is no transaction
            inside = [frame(text) for text in texts] if draw(st.booleans()) else []
            if texts and not inside:
                inside = [b"".join(parse(text) + bind() + execute() for text in texts) + sync()]
            inside.append(frame(draw(st.sampled_from(("COMMIT", "END")))))
            units += [(unit, index == 0 or author.draw(st.booleans())) for index, unit in enumerate(inside)]
        found.append(units)
    return found


@MANY
@pytest.mark.parametrize("begin", [DEFER, AHEAD])
@given(transactions(), st.integers(1, 2), st.integers(0, 1 << 32), st.booleans())
def test_a_transaction_is_whole_or_nothing_whatever_is_refused(
    begin: int, written: list[list[tuple[bytes, bool]]], sessions: int, seed: int, is_standby: bool
) -> None:
    town = Town(written, sessions, Random(seed), begin)
    for house in town.houses:
        house.server.is_standby = is_standby
    town.run(refusing=0.3)
    committed = town.committed()
    assert len(committed) == len(set(committed))
    for script, resident in zip(written, town.residents, strict=True):
        assert not resident.rest
        words = plain(resident.got)
        assert sum(word.startswith("Z ") for word in words) == len(script)
        assert words[-1] == "Z I"
        said = b"".join(unit for unit, _ in script)
        for turn in range(4):
            mine = set(re.findall(rf"c{resident.number}-{turn}-\d+".encode(), said))
            kept = [text for text in committed if text.startswith(f"c{resident.number}-{turn}-")]
            assert len(kept) in (0, len(mine)), words


# -- the oracle itself --------------------------------------------------------------------------------

SQL = {
    "SELECT x": "SELECT 'x'",
    "FAIL": "DO $$ BEGIN RAISE 'no'; END $$",
    "WRONG": "WRONG",
    "WRITE x": "INSERT INTO model VALUES ('x')",
    "SHOW application_name": "SHOW application_name",
    "COPY IN": "COPY model FROM STDIN",
    "COPY IN EARLY": "COPY model_early FROM STDIN",
    "COPY OUT": "COPY (VALUES ('row'), ('row')) TO STDOUT",
}
TABLES = """
CREATE TABLE IF NOT EXISTS model (word text);
CREATE TABLE IF NOT EXISTS model_early (word text);
CREATE OR REPLACE FUNCTION too_early() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'too early'; END $$;
CREATE OR REPLACE TRIGGER early BEFORE INSERT ON model_early EXECUTE FUNCTION too_early()
"""
CONVERSATIONS = [
    lambda q, p: q("SELECT x") + q("") + q("FAIL") + q("SELECT x; FAIL; SELECT x") + q("BEGIN; SELECT x"),
    lambda q, p: q("BEGIN") + q("FAIL") + q("SELECT x") + q("ROLLBACK") + q("COMMIT") + q("SELECT x;;"),
    lambda q, p: p("SELECT x") + describe() + bind() + describe("", "P") + execute() + sync(),
    lambda q, p: p("SELECT x") + sync() + bind() + execute() + sync() + q("SELECT x") + bind() + sync(),
    lambda q, p: (
        p("SELECT x") + sync() + execute("nosuch") + p("FAIL") + sync() + bind() + execute() + sync()
    ),
    lambda q, p: p("SELECT x") + sync() + p("WRONG") + q("SELECT x") + bind() + sync() + bind() + sync(),
    lambda q, p: p("SELECT x") + sync() + close() + sync() + describe() + sync() + flush() + sync(),
    lambda q, p: p("SELECT x", "a") + p("SELECT x", "a") + sync() + bind("a") + execute() + sync(),
    lambda q, p: (
        p("BEGIN") + bind() + execute() + p("FAIL") + bind() + execute() + sync() + bind("a") + sync()
    ),
    lambda q, p: q("COPY IN") + copy_data() + sync() + flush() + copy_data() + copy_done() + copy_done(),
    lambda q, p: q("COPY IN") + copy_fail() + copy_data() + copy_done() + sync() + q("COPY OUT"),
    lambda q, p: q("COPY IN; COPY IN") + copy_data() + copy_done() + copy_done() + q("SELECT x"),
    lambda q, p: p("COPY IN") + bind() + execute() + sync() + copy_data() + copy_done() + sync() + sync(),
    lambda q, p: p("COPY IN") + bind() + execute() + flush() + copy_fail() + q("SELECT x") + sync() + sync(),
    lambda q, p: p("COPY IN EARLY") + bind() + execute() + sync() + copy_data() + copy_done() + sync(),
    lambda q, p: q("COPY IN EARLY") + copy_data() + copy_done() + q("SELECT x"),
    lambda q, p: q("SET application_name = one") + q("BEGIN; SET application_name = two") + q("ROLLBACK"),
    lambda q, p: (
        q("SET application_name = two") + q("SET application_name = one; FAIL") + q("SHOW application_name")
    ),
    lambda q, p: p("SELECT x") + sync() + q("PREPARE y") + q("DISCARD ALL") + bind("y") + sync(),
    lambda q, p: p("SELECT x") + sync() + p("DISCARD ALL", "d") + bind("d") + execute() + bind() + sync(),
    lambda q, p: q("COPY IN") + q("SELECT x"),
]


def real(texts: str) -> str:
    found = []
    for text in texts.split(";"):
        plain_text = text.strip()
        found.append(
            "PREPARE y AS SELECT 1" if plain_text == "PREPARE y" else SQL.get(plain_text, plain_text)
        )
    return ";".join(found)


@pytest.fixture(scope="module")
def wire(postgres: EmbeddedPostgres) -> Iterator[Callable[[bytes], bytes]]:
    """Say something to a new session of PostgreSQL; what it says until it has nothing more to say."""
    parts = urlsplit(postgres.dsn())

    def say(data: bytes) -> bytes:
        account = Account(parts.username or "", password=parts.password)
        opening = open_session(Identity(account.name, parts.path[1:], account, ()), "disable")
        with socket.create_connection((parts.hostname, parts.port)) as line:
            step = next(opening)
            with contextlib.suppress(StopIteration):
                while True:
                    if isinstance(step, bytes):
                        line.sendall(step)
                        step = opening.send(line.recv(65_536))
                    else:
                        step = opening.send(step.call())
            line.sendall(data)
            line.settimeout(0.3)
            got = b""
            with contextlib.suppress(TimeoutError):
                while chunk := line.recv(65_536):
                    got += chunk
            return got

    say(query(TABLES))
    yield say
    say(query("DROP TABLE model, model_early; DROP FUNCTION too_early"))


@pytest.mark.integration
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_model_server_answers_as_postgresql_does(
    conversation: Callable[..., bytes], wire: Callable[[bytes], bytes]
) -> None:
    model = ModelServer()
    expected = model.feed(conversation(query, parse))
    got = wire(conversation(lambda text: query(real(text)), lambda text, name="": parse(real(text), name)))
    # Which error it is differs with the SQL that stands for the statement.
    assert [re.sub("^E .*", "E", word) for word in told(got) if word != "N"] == [
        re.sub("^E .*", "E", word) for word in told(expected) if word != "N"
    ]
