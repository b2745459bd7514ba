"""What a client may choose for itself: how it waits for a session, and which session it wants.

Each choice is a setting of ours (own.NAMES), from the startup packet or by SET. What a text must look like
is known here; what the operator allows is asked of ``permit``. No I/O, and nothing about the stream.
"""

import re
from collections.abc import Callable
from typing import Final

from proxy.codec import ClientCodec
from proxy.postgres.begin import PASS_ON
from proxy.postgres.own import CCLASS, GETMODE, KEY, PURITY, SHARD_KEY, TAG, TARGET, WAIT_TIMEOUT
from proxy.postgres.state_rules import StateRules
from proxy.roles import WORDS

WORD_CAP: Final = 64  # bytes of a cclass, key or shard_key
TAG_CAP: Final = 1024  # bytes of a tag
PURITIES: Final = ("self", "new")

_OWN: Final = "penstock."
_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*", re.ASCII)
_RESERVED: Final = ("user", "database", "options", "replication")


class Terms:
    """What clients of a pool may choose for themselves, and what holds when they do not.

    ``shown`` has the text of each setting for a client that has chosen nothing; "" where it is missing.
    ``permit(name, text)`` raises ValueError with a sentence where the operator does not allow that, and
    returns the text to keep. ``seconds`` turns the text of a wait_timeout into seconds.
    """

    def __init__(
        self,
        pool: str,
        shown: dict[str, str],
        permit: Callable[[str, str], str],
        seconds: Callable[[str], float],
        begin: int = PASS_ON,
    ) -> None:
        self.pool = pool
        self.shown = shown
        self.permit = permit
        self.seconds = seconds
        self.begin = begin  # begin.PASS_ON, DEFER, AHEAD or LOOK
        self.reads_elsewhere = False  # a transaction that is READ ONLY goes to a replica
        self.rules: StateRules | None = None  # of state that outlives a unit of work; None: nobody looks

    def reported(self) -> frozenset[str]:
        """The settings that every session of the pool has reported by itself, in lower case."""
        return self.rules.reported if self.rules is not None else frozenset()

    def adopt(self, other: "Terms") -> None:
        """Become as ``other``: every client of the pool looks at this one object."""
        self.shown, self.permit, self.seconds = other.shown, other.permit, other.seconds
        self.begin, self.reads_elsewhere = other.begin, other.reads_elsewhere

    def check(self, name: str, text: str) -> str:
        """The text to keep for a setting, "" for none. Raises ValueError with a sentence."""
        if not text and name in (CCLASS, KEY, TAG):
            return ""
        if name == PURITY:
            text = text.strip().lower()
            if text not in PURITIES:
                raise ValueError(f"{name} is one of {', '.join(PURITIES)}")
        elif name == TARGET:
            text = text.strip().lower()
            if text not in WORDS:
                raise ValueError(f"{name} is one of {', '.join(WORDS)}")
        elif name == TAG:
            text = written(read_tag(text))
        elif name in (CCLASS, KEY, SHARD_KEY):
            _check_word(name, text)
        return self.permit(name, text)

    def check_all(self, wishes: dict[str, str]) -> dict[str, str]:
        """Each wish as it is to be kept; those that wish for nothing are left out. Raises ValueError."""
        kept = {name: self.check(name, text) for name, text in wishes.items()}
        if not kept.get(SHARD_KEY):
            self.permit(SHARD_KEY, "")  # a pool may demand one
        return {name: text for name, text in kept.items() if text}

    def still(self, chosen: dict[str, str]) -> dict[str, str]:
        """Of what a client has chosen, what it may choose today. Its tag is on its sessions, and stays."""
        return {name: text for name, text in chosen.items() if name == TAG or self._allows(name, text)}

    def _allows(self, name: str, text: str) -> bool:
        try:
            self.check(name, text)
        except ValueError:
            return False
        return True

    def apply(self, chosen: dict[str, str], codec: ClientCodec) -> None:
        """Tell the relay what the client has chosen. ``codec.tag`` is not touched: it is a profile."""
        codec.getmode = chosen.get(GETMODE, "")
        timeout = chosen.get(WAIT_TIMEOUT, "")
        codec.wait_timeout = self.seconds(timeout) if timeout else -1.0
        codec.cclass = chosen.get(CCLASS, "")
        codec.wants_new = chosen.get(PURITY, self.shown.get(PURITY, "")) == "new"
        codec.affinity = chosen.get(KEY, "")
        codec.shard_key = chosen.get(SHARD_KEY, "")
        codec.target = chosen.get(TARGET, "")


def _check_word(name: str, text: str) -> None:
    if not text.isprintable():
        raise ValueError(f"{name} must be printable text")
    if len(text.encode("utf-8", "surrogatepass")) > WORD_CAP:
        raise ValueError(f"{name} is longer than {WORD_CAP} bytes")


def read_tag(text: str) -> dict[str, str]:
    """The settings that a tag such as "TimeZone=UTC;search_path=app" stands for. Raises ValueError."""
    if len(text.encode("utf-8", "surrogatepass")) > TAG_CAP:
        raise ValueError(f"{TAG} is longer than {TAG_CAP} bytes")
    if not text.isprintable():
        raise ValueError(f"{TAG} must be printable text")
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not _SETTING.fullmatch(name):
            raise ValueError(f'{TAG} is settings as in "TimeZone=UTC;search_path=app", not "{part.strip()}"')
        name = name.lower()
        if name in _RESERVED or name.startswith(_OWN):
            raise ValueError(f"{TAG} may not hold {name}: it is for settings of the server")
        if name in pairs:
            raise ValueError(f"{TAG} holds {name} twice")
        pairs[name] = value.strip()
    return pairs


def written(pairs: dict[str, str]) -> str:
    """A tag as text, the same for the same settings."""
    return ";".join(f"{name}={value}" for name, value in sorted(pairs.items()))
