"""One client of the soak: its number, its luck, what it knows of its own state, and its life.

Its life is a generator of requests like an act. What may go wrong is listed here, with the reason; all
else is told as wrong.
"""

import random
import re
import time
import traceback
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from integration.soaking.asked import Act, Anew, Gone, Pause, Recover, Refused, Request, Vanished, Wrong

# A session was killed while this client used it. 57P01: the server's own last words; 08006: what the proxy
# says where there were none; 25P02: the answer to a BEGIN was lost, and the client may go on with ROLLBACK.
LOST = frozenset({"57P01", "08006"})


@dataclass(frozen=True)
class Plan:
    """What every client is told when it starts."""

    dsn: str  # with a password
    port: int  # of a listener that trusts
    seconds: float
    seed: int
    accounts: int
    channels: int
    schemas: int
    think: float  # seconds, on average
    defaults: dict[str, str]  # of the settings that acts change


@dataclass
class Report:
    """What a process has to tell about its clients, in JSON."""

    acts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # by act
    losses: Counter[str] = field(default_factory=Counter)  # by what was said
    vanished: int = 0
    wrong: list[str] = field(default_factory=list)
    transfers: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    news: dict[int, dict[str, list[list[int]]]] = field(default_factory=dict)


class Client:
    """Who it is and what it may expect. ``kind`` is its driver's name."""

    def __init__(self, number: int, kind: str, plan: Plan, report: Report) -> None:
        self.number = number
        self.kind = kind
        self.plan = plan
        self.dice = random.Random(f"{plan.seed}:{number}")
        self.turn = 0
        self.act = ""
        self.listens = False
        self.unlistened = 0.0  # when, lately
        self.doing: Request | None = None
        self.settings: dict[str, set[str]] = {}
        # Turns and (channel, turn) that were certainly committed, and those of which nobody knows.
        self.transfers: dict[str, list[int]] = {"sure": [], "unsure": []}
        self.news: dict[str, list[list[int]]] = {"sure": [], "unsure": []}
        self._past: deque[str] = deque(maxlen=25)
        self._report = report
        report.transfers[number], report.news[number] = self.transfers, self.news
        self.begin_anew()

    @property
    def name(self) -> str:
        """Its application_name at login."""
        return f"soak {self.kind} {self.number}"

    def begin_anew(self) -> None:
        """The connection is a new one, or as good as new: settings are those of the login."""
        self.listens = False
        self.settings = {name: {value} for name, value in self.plan.defaults.items()}
        self.settings["application_name"] = {self.name}

    def next_turn(self) -> int:
        """A number that this client has never used before."""
        self.turn += 1
        return self.turn

    def said(self) -> str:
        """What only this client says, and only once."""
        return f"client {self.number} says {self.next_turn()}: äöü € 🐘"

    def note(self, answer: object) -> None:
        """What it did has been answered."""
        self._past.append(f"{time.strftime('%X')} {self.act}, {self.doing}: {answer!r}"[:200])

    def tell(self, cause: BaseException) -> None:
        """Something is wrong."""
        if len(self._report.wrong) < 30:
            where = "".join(traceback.format_exception(cause, limit=-2))
            self._report.wrong.append(f"{self.name}, {self.act}: {cause!r}\n{where}" + "\n".join(self._past))

    def live(self, acts: dict[Any, int]) -> Act:
        """Act after act, until the time is over."""
        choices, weights = list(acts), list(acts.values())
        end = time.monotonic() + self.plan.seconds
        yield from self._come(is_polite=True)
        while time.monotonic() < end:
            act = self.dice.choices(choices, weights)[0]
            self.act = act.__name__
            yield from self._survive(act(self))
            self._report.acts[self.act] += 1
            yield Pause(self.dice.expovariate(1 / self.plan.think))

    def _survive(self, act: Act) -> Act:
        try:
            yield from act
        except Refused as refusal:
            if refusal.sqlstate not in LOST:
                self.tell(refusal)
                yield from self._come(is_polite=False)
                return
            self._lose(refusal)
            yield from self._recover()
        except Vanished:
            self._report.vanished += 1
            yield from self._come(is_polite=False)
        except Gone as cause:
            self._lose(cause)
            yield from self._come(is_polite=False)
        except Wrong as wrong:
            self.tell(wrong)
            yield from self._come(is_polite=False)

    def _lose(self, cause: Exception) -> None:
        listened = self.listens or time.monotonic() < self.unlistened + 1.0
        if "listened for this client" in str(cause):
            if not listened:
                self.tell(cause)
            self._report.lost["as one that listens"] += 1
        else:
            self._report.lost[self.act] += 1
        # Numbers aside, the few ways to say it.
        self._report.losses[f"{self.kind}, {self.act}: {re.sub('[0-9]{2,}', '#', str(cause))[:160]}"] += 1

    def _recover(self) -> Act:
        try:
            yield Recover()
        except (Refused, Gone):
            # What is left of the same loss.
            yield from self._come(is_polite=False)

    def _come(self, is_polite: bool) -> Act:
        while True:
            try:
                yield Anew(is_polite)
            except Vanished:
                continue
            except (Refused, Gone) as cause:
                # A login may need a session, which may be killed like any other.
                self.act = "login"
                self._lose(cause)
                yield Pause(0.1)
                continue
            break
        self.begin_anew()
