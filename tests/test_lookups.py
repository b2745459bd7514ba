import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from proxy import lookups
from proxy.errors import BackendError
from proxy.lookups import Lookups, Terms
from proxy.postgres.verifier import Verifier

SECRETS = {"ann": Verifier.make("x", b"0123456789abcdef", 2).text(), "bob": "hush"}
TERMS = Terms("SELECT $1", None, "app", "app", 10.0)


class Asked(Lookups):
    """Lookups whose server is a dictionary; ``gate`` holds every question back while it is clear."""

    def __init__(self) -> None:
        self.served = SimpleNamespace(lookup=None)
        super().__init__("app", self.served)  # type: ignore[arg-type]
        self.secrets: dict[str, str] = dict(SECRETS)
        self.questions: list[str] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.adopt(TERMS)

    async def _query(self, user: str) -> str | None:
        self.questions.append(user)
        await self.gate.wait()
        if self.broken:
            raise BackendError("permission denied for table pg_authid")
        return self.secrets.get(user)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(lookups, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


async def test_an_answer_is_remembered_for_a_while_whichever_it_was(clock: Any) -> None:
    asked = Asked()
    ann = await asked.find("ann")
    assert ann is not None
    assert ann.may_use("app")
    assert not ann.may_use("other")
    assert await asked.find("zoe") is None
    assert await asked.find("ann") is ann
    assert await asked.find("zoe") is None
    assert asked.questions == ["ann", "zoe"]
    clock.now += 10.0
    assert await asked.find("ann") is ann  # the same secret: what was learned about it holds
    assert await asked.find("zoe") is None
    assert asked.questions == ["ann", "zoe"] * 2
    assert asked.shape == (2, 16)


async def test_what_did_not_fit_is_asked_again_unless_it_is_new(clock: Any) -> None:
    asked = Asked()
    before = await asked.find("bob")
    assert await asked.find_again("bob") is before
    assert asked.questions == ["bob"]
    clock.now += 2.0
    asked.secrets["bob"] = "new"
    after = await asked.find_again("bob")
    assert after is not None
    assert after.password == "new"
    assert await asked.find("bob") is after
    asked.forget("bob")
    await asked.find("bob")
    assert asked.questions == ["bob"] * 3


async def test_one_question_serves_all_who_want_to_know_and_outlives_them() -> None:
    asked = Asked()
    asked.gate.clear()
    waiting = [asyncio.ensure_future(asked.find("ann")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for one in waiting[:4]:
        one.cancel()
    asked.gate.set()
    assert await waiting[4] is not None
    assert asked.questions == ["ann"]
    assert (await asyncio.gather(*waiting[:4], return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_only_a_few_are_asked_at_once_and_not_everybody_may_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "MOST_WAITING", 5)
    asked = Asked()
    asked.gate.clear()
    waiting = [asyncio.ensure_future(asked.find(f"user {number}")) for number in range(8)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asked.questions) == lookups.AT_ONCE
    assert [one.done() for one in waiting] == [False] * 5 + [True] * 3
    asked.gate.set()
    assert await asyncio.gather(*waiting) == [None] * 8


async def test_a_failure_is_not_remembered_and_not_raised(clock: Any) -> None:
    asked = Asked()
    asked.broken = True
    assert await asked.find("ann") is None
    asked.broken = False
    assert await asked.find("ann") is not None


async def test_a_lookup_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "PATIENCE", 0.0)
    asked = Asked()
    asked.gate.clear()
    assert await asked.find("ann") is None


async def test_other_terms_forget_what_was_said_under_the_old_ones(clock: Any) -> None:
    asked = Asked()
    await asked.find("ann")
    asked.adopt(TERMS)
    await asked.find("ann")
    assert asked.questions == ["ann"]
    asked.adopt(Terms("SELECT $1", None, "other", "app", 10.0))
    await asked.find("ann")
    assert asked.questions == ["ann", "ann"]
    assert asked.served.lookup is asked
    asked.adopt(None)
    assert asked.served.lookup is None


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST_KEPT", 3)
    asked = Asked()
    for number in range(9):
        await asked.find(f"user {number}")
    assert len(asked._not_found) == 3
    assert await asked.find("ann") is not None
