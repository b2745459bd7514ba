"""Random traces through the ancestors themselves and through our presets of them, every step compared.

python-oracledb and cx_Oracle are not here: their pools need a server of Oracle's to connect to. What they do
is in the list of behaviours (ids.py), the open implementation of which was run step by step to write it.
"""

import random
from collections import Counter

import pytest
from google.cloud.spanner_v1 import pool as spanner
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.bench import preset_limits
from conformance.compare import Ours, Seen, Step, compare
from conformance.libraries import Generic, Psycopg2, Spanner
from fakes import FakeClock

TRACES = settings(max_examples=80, deadline=None, derandomize=True)
MANY = settings(TRACES, max_examples=5000, derandomize=False)


def traces(*ops: str, advances: tuple[int, ...] = (1,), longest: int = 40) -> st.SearchStrategy[list[Step]]:
    """Lists of steps: every other one an acquire, for pools are most interesting when they are full.

    Some of the differences end a trace; so one trace in three has no failed connect, and one no dead server
    either.
    """
    small = st.integers(0, 7)
    acquire = st.builds(Step, st.just("acquire"), small)

    def among(chosen: list[str]) -> st.SearchStrategy[list[Step]]:
        others = [st.builds(Step, st.just(op), small) for op in chosen if op != "advance"]
        if "advance" in chosen:
            others.append(st.builds(Step, st.just("advance"), st.sampled_from(advances)))
        return st.lists(st.one_of(acquire, acquire, st.one_of(others)), max_size=longest)

    calm = [op for op in ops if op != "fail"]
    return st.one_of(among(list(ops)), among(calm), among([op for op in calm if op != "kill"]))


# -- psycopg2 -----------------------------------------------------------------------------------

PSYCOPG2 = traces("release", "release", "release_dirty", "drop", "lose", "kill", "fail", "advance")


def psycopg2_explains(step: Step, theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    if step.what == "kill" and ours.opened == theirs.opened - 1:
        return "psycopg2_dead"
    return None


def test_the_traces_are_not_over_before_they_began() -> None:
    """Most steps are compared: a difference that explained too much would make the tests above idle."""
    compared: Counter[str] = Counter()
    wanted = 0
    chance = random.Random(7)
    for _ in range(60):
        steps = [
            Step(chance.choice(("acquire", "acquire", "release", "release_dirty", "drop", "lose")), at)
            for at in range(30)
        ]
        wanted += len(steps)
        ours = Ours(preset_limits("psycopg2", min=2, max=4), started=True, told=True)
        compare(Psycopg2(FakeClock(), 2, 4), ours, steps, psycopg2_explains, compared)
    assert compared == {"steps": wanted}


def run_psycopg2(minconn: int, extra: int, steps: list[Step]) -> None:
    maxconn = max(1, minconn + extra)
    limits = preset_limits("psycopg2", min=minconn, max=maxconn)
    ours = Ours(limits, started=minconn > 0, told=True)
    compare(Psycopg2(FakeClock(), minconn, maxconn), ours, steps, psycopg2_explains)


@TRACES
@given(st.integers(0, 3), st.integers(0, 2), PSYCOPG2)
def test_psycopg2(minconn: int, extra: int, steps: list[Step]) -> None:
    run_psycopg2(minconn, extra, steps)


@pytest.mark.fuzz
@MANY
@given(st.integers(0, 3), st.integers(0, 2), PSYCOPG2)
def test_psycopg2_for_long(minconn: int, extra: int, steps: list[Step]) -> None:
    run_psycopg2(minconn, extra, steps)


def key_explains(step: Step, theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    # The library gives a connection that is held already; its counts do not change.
    same = (theirs.opened, theirs.idle, theirs.busy) == (ours.opened, ours.idle, ours.busy)
    if step.what == "acquire" and (theirs.outcome, ours.outcome) == ("granted", "busy") and same:
        return "psycopg2_key"
    return None


@TRACES
@given(traces("release", "release", "drop", "advance"))
def test_psycopg2_with_keys(steps: list[Step]) -> None:
    keys = ("a", "b", "c")
    ours = Ours(preset_limits("psycopg2", min=1, max=2), started=True, told=True, keys=keys)
    compare(Psycopg2(FakeClock(), 1, 2, keys), ours, steps, key_explains)


# -- generic_connection_pool --------------------------------------------------------------------

GENERIC = traces("release", "release", "release", "kill", "fail", "advance", advances=(2, 31, 70))


def generic_explains(step: Step, theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    if step.what == "release" and ours.opened > theirs.opened and ours.busy == theirs.busy:
        return "generic_floor"
    return None


def run_generic(min_idle: int, extra: int, total: int, steps: list[Step]) -> None:
    endpoints = ("a", "b", "c")
    max_size = max(1, min_idle + extra)
    total = max(total, max_size)
    limits = preset_limits(
        "generic",
        max=total,
        max_per_endpoint=max_size,
        min_per_endpoint=min_idle,
        wait_timeout="0s",
        max_lifetime="10h",
    )
    ours = Ours(limits, endpoints=endpoints)
    theirs = Generic(
        FakeClock(),
        endpoints,
        min_idle=min_idle,
        max_size=max_size,
        total_max_size=total,
        max_lifetime=36000.0,
    )
    compare(theirs, ours, steps, generic_explains)


@TRACES
@given(st.integers(0, 2), st.integers(0, 2), st.integers(2, 6), GENERIC)
def test_generic(min_idle: int, extra: int, total: int, steps: list[Step]) -> None:
    run_generic(min_idle, extra, total, steps)


@pytest.mark.fuzz
@MANY
@given(st.integers(0, 2), st.integers(0, 2), st.integers(2, 6), GENERIC)
def test_generic_for_long(min_idle: int, extra: int, total: int, steps: list[Step]) -> None:
    run_generic(min_idle, extra, total, steps)


# -- Spanner ------------------------------------------------------------------------------------


def spanner_explains(step: Step, theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    if step.what != "acquire" or not any(one.what == "kill" for one in done):
        return None
    # A replacement could not be created, and the session that was to be replaced is not in the pool any more.
    if theirs.outcome == "failed" and any(one.what == "fail" for one in done):
        return "spanner_slot_leak"
    # Theirs is new; ours is another one that was idle, and answered, or was found dead as well.
    tried_more = ours.pings == theirs.pings + 1 or ours.opened < theirs.opened
    if (theirs.outcome, theirs.busy) == (ours.outcome, ours.busy) and tried_more:
        return "spanner_create_at_max"
    return None


def pinging_explains(step: Step, theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    what = [one.what for one in done]
    found_dead = "kill" in what and Step("advance", 65) in done[what.index("kill") :]
    same = (theirs.outcome, theirs.opened, theirs.busy) == (ours.outcome, ours.opened, ours.busy)
    if step.what == "acquire" and found_dead and same:
        return "spanner_replaced_last"
    return spanner_explains(step, theirs, ours, done)


@pytest.mark.parametrize(("preset", "minutes"), [("fixed", 0), ("fixed_v3_51", 1)])
@TRACES
@given(st.integers(1, 4), traces("release", "release", "kill", "fail", "advance", advances=(2, 40, 90)))
def test_spanner_fixed_size(preset: str, minutes: int, size: int, steps: list[Step]) -> None:
    """The library of today takes max_age_minutes; 0 is what the releases before 3.51 did."""
    more = {"ping_interval": f"{minutes}m"} if minutes else {}
    limits = preset_limits(preset, max=size, wait_timeout="0s", **more)
    ours = Ours(limits, started=True)
    theirs = Spanner(FakeClock(), spanner.FixedSizePool, size=size, max_age_minutes=minutes)
    compare(theirs, ours, _few_advances(steps, 3), spanner_explains)


def bursty_explains(step: Step, theirs: Seen, ours: Seen, done: list[Step]) -> str | None:
    if step.what == "acquire" and theirs.outcome == "granted" and ours.outcome == "timeout":
        return "spanner_unbounded"
    return spanner_explains(step, theirs, ours, done)


@TRACES
@given(st.integers(1, 4), traces("release", "release", "kill", "fail", "advance", advances=(2, 90)))
def test_spanner_bursty(target_size: int, steps: list[Step]) -> None:
    limits = preset_limits("bursty", max=target_size, wait_timeout="0s")
    ours = Ours(limits)
    theirs = Spanner(FakeClock(), spanner.BurstyPool, target_size=target_size)
    compare(theirs, ours, steps, bursty_explains)


@TRACES
@given(st.integers(1, 4), traces("release", "release", "kill", "advance", advances=(1, 65)))
def test_spanner_pinging(size: int, steps: list[Step]) -> None:
    limits = preset_limits("pinging", max=size, wait_timeout="0s", ping_interval="30s")
    ours = Ours(limits, started=True)
    theirs = Spanner(FakeClock(), spanner.PingingPool, size=size, ping_interval=30)
    compare(theirs, ours, _few_advances(steps, 4), pinging_explains)


def _few_advances(steps: list[Step], most: int) -> list[Step]:
    # Each look of the background is late by up to a second; few enough that it never matters.
    seen: Counter[int] = Counter()
    kept = []
    for step in steps:
        if step.what == "advance":
            seen[step.which] += 1
            if seen[step.which] > most:
                continue
        kept.append(step)
    return kept
