"""What a pool does about state that a session would carry from one client to the next: its operator's words.

Plain values, and the counters of what came of them. One object for each pool; no I/O, no protocol.
"""

from abc import ABC, abstractmethod
from typing import Final

from mypy_extensions import mypyc_attr

from proxy.hearing import Hub
from proxy.postgres.effects import EVERY_KIND, KINDS, LISTENED, LOADED, SETTINGS
from proxy.postgres.profile import TRACKED
from proxy.postgres.session import PgSessionCodec
from proxy.reasons import PinOutcome
from proxy.steps import Conversation

PIN: Final = "pin"  # the client keeps its session until the state ends
REFUSE: Final = "refuse"
ALLOW: Final = "allow"  # it goes on, and is undone before another client gets the session
SHARE: Final = "share"  # LISTEN: one session listens for all clients

# What came of it, as the metrics have it.
PINNED: Final = str(PinOutcome.PINNED)
REFUSED: Final = str(PinOutcome.REFUSED)
WOULD_PIN: Final = str(PinOutcome.WOULD_PIN)

# With what servers report, the settings that follow a client where the operator names no others.
UNREPORTED: Final = frozenset(
    {
        "bytea_output",
        "client_min_messages",
        "default_transaction_deferrable",
        "default_transaction_isolation",
        "extra_float_digits",
        "idle_in_transaction_session_timeout",
        "lock_timeout",
        "search_path",
        "statement_timeout",
    }
)
TRACK_ALL: Final = "*"


@mypyc_attr(allow_interpreted_subclasses=True)
class Sharing(ABC):
    """What one client listens to on the session that listens for all: ``listening.Listening``."""

    @abstractmethod
    def listened(self) -> None:
        """LISTEN has run on the held session."""

    @abstractmethod
    def overhear(self, text: bytes) -> None:
        """The client sends this text, which says UNLISTEN."""

    @abstractmethod
    def settle(self) -> Conversation[int]:
        """Have the shared session listen to what the held one does: KEPT where it cannot.

        The held one listens to nothing any more, or is the shared one now. Raises BackendError.
        """

    @abstractmethod
    def asked(self, session: PgSessionCodec | None) -> None:
        """Whoever asked the held session has done: what it said meanwhile is looked at."""

    @abstractmethod
    def unlistened(self) -> None:
        """UNLISTEN has run."""

    @abstractmethod
    def failed(self) -> None:
        """A statement has failed, or was rolled back."""

    @abstractmethod
    def ended(self, in_transaction: bool, more: bool) -> None:
        """The server is ready for a query; ``more``: another answer is due."""

    @abstractmethod
    def forget(self, names: list[bytes] | None) -> None:
        """The client listens to these channels no more; None: to nothing."""

    @abstractmethod
    def may_hear(self, whole: bytes) -> bool:
        """The held session notifies the client of this: False where the shared one does, too."""

    @abstractmethod
    def take(self) -> bytes:
        """What is to be told to the client now."""

    @abstractmethod
    def gift(self) -> Hub | None:
        """Whose the held session is now, if it has become the shared one."""

    @abstractmethod
    def kept(self, session: PgSessionCodec | None) -> None:
        """The client lets go of this session, which has not become the shared one."""

    @abstractmethod
    def leave(self) -> None:
        """The client is over."""


# What `settle` returns where the client has to keep its session.
KEPT: Final = 0


class StateRules:
    """The words for each kind of state, as bits of effects.py.

    ``policies`` has pin, refuse or allow for each of KINDS, and share for listen. ``tracked`` are the
    settings that follow a client to its next session, in lower case; TRACK_ALL among them: whatever it sets.
    With ``dry_run`` nothing is pinned, only counted. Where every statement may have another session
    (``by_statement``) a pin would mean nothing, so it is a refusal.
    """

    def __init__(
        self,
        policies: dict[str, str],
        tracked: frozenset[str] = TRACKED | UNREPORTED,
        dry_run: bool = False,
        by_statement: bool = False,
    ) -> None:
        self.tracked = tracked - {TRACK_ALL}
        self.tracks_all = TRACK_ALL in tracked
        self.dry_run = dry_run
        self.by_statement = by_statement
        self.pins = self.refuses = 0
        self.shares = False
        self.dotted = tuple(sorted(name for name in self.tracked if "." in name))
        self.reported: frozenset[str] = frozenset()  # what every session so far has reported by itself
        self.words: dict[str, str] = {}
        for number, kind in enumerate(KINDS):
            word = policies.get(kind, ALLOW)
            self.words[kind] = word
            if word == SHARE:
                self.shares = True
            elif word == PIN and not by_statement:
                self.pins |= 1 << number
            elif word in (PIN, REFUSE):
                self.refuses |= 1 << number
        # Read and written by whoever shows them, by kind.
        self.counts: dict[tuple[str, str], int] = {
            (kind, outcome): 0 for kind in KINDS for outcome in (PINNED, REFUSED, WOULD_PIN)
        }
        self.held: dict[str, int] = dict.fromkeys(KINDS, 0)  # clients that are pinned now

    def pinning(self, shared: bool) -> int:
        """The kinds that pin a client, whose LISTEN is ``shared`` with others or not."""
        if self.shares and not shared and not self.by_statement:
            return self.pins | LISTENED
        return self.pins

    def refusing(self, shared: bool) -> int:
        """The kinds that are refused."""
        if self.shares and not shared and self.by_statement:
            return self.refuses | LISTENED
        return self.refuses

    def asking(self, shared: bool) -> int:
        """The kinds of which only the server can tell whether they are there."""
        kinds = self.pinning(shared) | SETTINGS
        if self.shares and shared:
            kinds |= LISTENED
        return kinds & EVERY_KIND & ~LOADED

    def follows(self, name: str) -> bool:
        """This setting follows its client."""
        return self.tracks_all or name in self.tracked

    def note_reported(self, names: frozenset[str]) -> None:
        """A session has reported these, in lower case, when it was new."""
        self.reported = self.reported & names if self.reported else names

    def count(self, bits: int, outcome: str) -> None:
        """So it came for these kinds."""
        for kind in kinds(bits):
            self.counts[kind, outcome] += 1

    def hold(self, before: int, after: int) -> None:
        """A client was pinned for some kinds, and is now for others."""
        for kind in kinds(before):
            self.held[kind] -= 1
        for kind in kinds(after):
            self.held[kind] += 1


def kinds(bits: int) -> list[str]:
    """The words for these kinds."""
    return [kind for number, kind in enumerate(KINDS) if bits & (1 << number)]
