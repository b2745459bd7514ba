"""Plays a script on one connection, and makes two recordings comparable.

``Straight`` is a connection to the server itself. ``Neighbour`` is another client of the same pool: between
two units of a script it takes the session that the script's client had last, so that this one finds itself
on the other, and it leaves there what only it may see.
"""

import re
import struct
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Self
from urllib.parse import urlsplit

from differential.speaking import END, SYNC, THE_END, Unit, bind, close, execute, parse
from integration.raw import FLUSH, PATIENCE, Raw, message
from proxy.postgres.accounts import Account
from proxy.postgres.session_login import Identity, Opened, open_session

# A message as (type, body); b"" is the end of the connection.
Heard = tuple[bytes, bytes]
CLOSED: Heard = (b"", b"")
PLACE = re.compile(rb"\0F[^\0]*\0L\d+\0R[^\0]*(?=\0\0$)")


class Straight(Raw):
    """A connection to the server itself, logged in as whoever the DSN names."""

    @classmethod
    def to(cls, dsn: str, **parameters: str) -> Self:
        """Log in, with these parameters besides user and database."""
        parts = urlsplit(dsn)
        client = cls(parts.port or 5432)
        account = Account(parts.username or "", password=parts.password)
        opening = open_session(
            Identity(account.name, parts.path[1:], account, tuple(parameters.items())), "disable"
        )
        step = next(opening)
        try:
            while True:
                if isinstance(step, bytes):
                    if step:
                        client.send(step)
                    step = opening.send(client.sock.recv(65_536))
                else:
                    step = opening.send(step.call())  # type: ignore[union-attr]
        except StopIteration as end:
            opened: Opened = end.value
            client.parameters = dict(opened.parameters)
        return client


class Neighbour:
    """Another client of the pool, with a session of its own now and then."""

    NAMES = ("a", "b", "c")

    def __init__(self, port: int) -> None:
        self.client = Raw.logged_in(port, application_name="the neighbour", DateStyle="German")
        self.holds = False

    def move(self) -> None:
        """Take the session that is had next, or give back the one that is held."""
        if self.holds:
            self.client.send(SYNC)
            self.client.until_ready()
        else:
            names = b"".join(close(name) + parse("SELECT 'not yours'", name) for name in self.NAMES)
            mine = parse("SELECT 'not yours either'") + bind() + execute() + FLUSH
            self.client.send(names + mine)
            while self.client.read()[0] != b"C":
                pass
        self.holds = not self.holds

    def leave(self) -> None:
        """Go away."""
        if self.holds:
            self.move()
        self.client.close()


def play(client: Raw, units: Iterable[Unit], between: Callable[[], None] = lambda: None) -> list[list[Heard]]:
    """Send each unit and read what it awaits; then see that nothing else was said."""
    found = []
    for unit in units:
        found.append(_play(client, unit))
        if found[-1][-1:] == [CLOSED]:
            return found
        between()
    client.send(THE_END)
    found.append(_to_the_end(client))
    return found


def _play(client: Raw, unit: Unit) -> list[Heard]:
    heard: list[Heard] = []
    left = unit.awaits
    client.send(unit.data)
    while left:
        one = _hear(client, heard)
        if one is CLOSED:
            break
        heard.append(one)
        if one[0] == left[:1].encode():
            left = left[1:]
    else:
        return heard
    return [*heard, CLOSED]


def _to_the_end(client: Raw) -> list[Heard]:
    heard: list[Heard] = []
    is_asked = False
    while not (is_asked and heard[-1][0] == b"Z"):
        heard.append(_hear(client, heard))
        is_asked = is_asked or (heard[-1][0] == b"E" and END.encode() in heard[-1][1])
        if heard[-1] is CLOSED:
            break
    return heard


def _hear(client: Raw, heard: list[Heard]) -> Heard:
    try:
        return client.read()
    except TimeoutError:
        raise AssertionError(f"nothing came for {PATIENCE} s behind {heard}") from None
    except (EOFError, ConnectionError):
        return CLOSED


class Normaliser:
    """Makes equal what may differ between two runs of one script: numbers of processes and of new tables.

    ``known`` are the parameters that the client was told at its login. Being told again what it knows is
    left out: that comes when it gets a session on which another client had another value.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self.known = dict(known)
        self.tables: dict[bytes, int] = {}

    def __call__(self, recording: list[list[Heard]]) -> list[list[Heard]]:
        return [
            [self.one(kind, body) for kind, body in unit if kind != b"S" or self.is_news(body)]
            for unit in recording
        ]

    def is_news(self, body: bytes) -> bool:
        """A ParameterStatus says what the client does not know yet."""
        name, value = body[:-1].decode("utf-8", "replace").split("\0")
        was, self.known[name] = self.known.get(name), value
        return was != value

    def one(self, kind: bytes, body: bytes) -> Heard:
        """One message."""
        if kind == b"A":
            return kind, b"\0\0\0\0" + body[4:]
        if kind == b"T":
            return kind, self.columns(body)
        return kind, body

    def columns(self, body: bytes) -> bytes:
        """A RowDescription whose tables are numbered in the order in which they are met."""
        made, at = body[:2], 2
        while at < len(body):
            end = body.index(b"\0", at) + 1
            table = body[end : end + 4]
            number = self.tables.setdefault(table, len(self.tables) + 1) if table != b"\0\0\0\0" else 0
            made += body[at:end] + struct.pack("!i", number) + body[end + 4 : end + 18]
            at = end + 18
        return made


def without_places(expected: list[list[Heard]], told: list[list[Heard]]) -> list[list[Heard]]:
    """What is expected; file, line and routine of an error are those that were told, or none."""
    return [
        [_like(one, other) for one, other in zip_longest(unit, heard[: len(unit)], fillvalue=CLOSED)]
        for unit, heard in zip_longest(expected, told[: len(expected)], fillvalue=())
    ]


def _like(expected: Heard, told: Heard) -> Heard:
    """``told``, where the two are one error but for its place in the server's source."""
    if expected[0] == told[0] == b"E" and PLACE.sub(b"", expected[1]) == PLACE.sub(b"", told[1]):
        return told
    return expected


def shown(recording: list[list[Heard]]) -> list[str]:
    """A recording as lines, for the eye."""
    return [
        f"{number}: {kind.decode() or 'closed'} {body[:300]!r}"
        for number, unit in enumerate(recording)
        for kind, body in unit
    ]


def stream(recording: list[list[Heard]]) -> bytes:
    """A recording as the bytes that came."""
    return b"".join(message(kind, body) for unit in recording for kind, body in unit if kind)
