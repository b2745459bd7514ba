"""The words between what a client does (acts.py) and how its driver does it (by_*.py).

An act yields requests and is sent their answers; what fails is thrown into it as one of the errors here,
whatever the driver calls it. So each act is written once, for drivers that await and for those that block.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

Value = int | str
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Do:
    """Statements without values; the answer is None."""

    text: str


@dataclass(frozen=True)
class Ask:
    """One statement with values for $1, $2, ...; the answer is its rows, ``named`` as dicts."""

    text: str
    values: tuple[Value, ...] = ()
    named: bool = False


@dataclass(frozen=True)
class Batch:
    """Several at once, in a pipeline where the driver has one; the answer is the rows of each."""

    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Slowly:
    """A large result, taken a bit at a time; the answer is its rows."""

    text: str


@dataclass(frozen=True)
class CopyIn:
    """Rows of text columns into ``target``; where ``is_cut``, the client breaks off in the middle."""

    target: str
    rows: Sequence[Row]
    is_cut: bool


@dataclass(frozen=True)
class CopyOut:
    """The answer is what COPY (text) TO STDOUT tells, as text; where ``is_cut``, the beginning of it."""

    text: str
    is_cut: bool


@dataclass(frozen=True)
class Cancel:
    """Run something long, cancel it after a while; the answer is whether it was cancelled."""

    text: str
    after: float


@dataclass(frozen=True)
class Hear:
    """LISTEN to a channel, NOTIFY these payloads there oneself, UNLISTEN; the answer is what was heard."""

    channel: str
    payloads: tuple[str, ...]


@dataclass(frozen=True)
class Forget:
    """Have the driver prepare anew what it has prepared."""


@dataclass(frozen=True)
class Recover:
    """Roll back what may be open."""


@dataclass(frozen=True)
class Anew:
    """Leave, politely where ``is_polite``, and come again; the answer is None."""

    is_polite: bool


@dataclass(frozen=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


Request = Do | Ask | Batch | Slowly | CopyIn | CopyOut | Cancel | Hear | Forget | Recover | Anew | Pause
Act = Generator[Request, Any, None]


class Refused(Exception):
    """The server or the proxy answered by an error, and the connection is still there."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(f"{sqlstate}: {text}")
        self.sqlstate = sqlstate
        self.text = text


class Gone(Exception):
    """The connection is lost; ``text`` is all that the driver says."""


class Vanished(Gone):
    """It is lost because the client itself has dropped it, as it meant to."""


class Cut(Exception):
    """What a client raises to break off a COPY."""


class Wrong(Exception):
    """An answer that is not the one that a connection of one's own would have given."""


def expect(found: object, wanted: object, what: str) -> None:
    """Raise Wrong unless they are equal."""
    if found != wanted:
        raise Wrong(f"{what}: {_short(found)} instead of {_short(wanted)}")


def fails(request: Request, *sqlstates: str) -> Act:
    """The request must be answered by one of these errors."""
    try:
        answer = yield request
    except Refused as refusal:
        if refusal.sqlstate not in sqlstates:
            raise
    else:
        raise Wrong(f"{request} had to fail with {sqlstates}, but was answered by {_short(answer)}")


def _short(found: object) -> str:
    text = repr(found)
    return text if len(text) < 300 else f"{text[:200]} ... {text[-80:]}"
