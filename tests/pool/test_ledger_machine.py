"""The ledger and growth, driven by anything that can happen in any order.

``Desk`` does what the pool does with their decisions, without a loop: what the pool would await is
finished by a rule of its own, well or badly, whenever hypothesis likes. Invariants hold after each.
"""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fakes import DOWN, FakeWaiter, back_off
from proxy.errors import PoolClosed, PoolError
from proxy.pool import growth, queueing
from proxy.pool.ledger import Ledger
from proxy.pool.limits import FORCEGET, LIFO, LRU, NOWAIT, OFF, Limits
from proxy.pool.session import OPENING, RECOVERY, RESET, Key, Session

PICK = st.integers(min_value=0, max_value=1000)
LIMITS = st.builds(
    Limits,
    min=st.integers(0, 1),
    max=st.integers(1, 4),
    max_forced=st.sampled_from([0, 0, 1, 3]),
    increment=st.integers(0, 3),
    max_waiting=st.sampled_from([None, None, 0, 2]),
    ping_interval=st.sampled_from([0.0, 5.0, OFF]),
    idle_timeout=st.sampled_from([3.0, 30.0]),
    reuse=st.sampled_from([LIFO, LRU]),
)


class Desk:
    """What the pool does, with nothing to wait for."""

    def __init__(self, limits: Limits) -> None:
        self.ledger = Ledger("storm", limits)
        self.limits = limits
        self.now = 0.0
        self.waiting: list[FakeWaiter] = []  # neither granted nor refused nor withdrawn
        self.forced = False  # some forceget client has asked

    def serve(self, failed: bool = False) -> None:
        plan = growth.plan(self.ledger, self.now, failed)
        for session in plan.opens:
            assert session.state == OPENING
        for waiter in plan.refusals:
            assert waiter.getmode == NOWAIT
            self.refuse(waiter, DOWN)
        for waiter, session in plan.grants:
            assert session.key is waiter.key
            assert self.now < session.expires
            if not self.give(waiter, session):
                self.place(session)

    def refuse(self, waiter: FakeWaiter, error) -> None:
        self.waiting.remove(waiter)
        waiter.refused(error)

    def give(self, waiter: FakeWaiter, session: Session) -> bool:
        self.waiting.remove(waiter)
        return waiter.granted(session)

    def place(self, session: Session) -> bool:
        ledger, now = self.ledger, self.now
        if now >= session.expires:
            ledger.close(session)
            return False
        while ledger.queue:
            before, was = list(ledger.queue), session.state
            surplus = ledger.is_surplus(session)
            waiter = queueing.next_for(ledger, session, now)
            if waiter is None:
                break
            assert waiter.key is session.key
            rivals = [rival for rival in before if rival.key is waiter.key]
            keen = [rival for rival in rivals if rival.getmode == FORCEGET]
            its_own = was == OPENING and session.forced and keen and waiter is keen[0]
            assert waiter is (keen if surplus else rivals)[0] or its_own, "first in, first out"
            if surplus:
                assert waiter.getmode == FORCEGET
            ledger.hand_over(session, now)
            if was == OPENING and waiter.getmode != FORCEGET:
                assert ledger.opened <= self.limits.max, "the pool has grown for somebody who may not"
            if self.give(waiter, session):
                return True
        surplus = self.limits.max_forced > 0 and ledger.is_surplus(session)
        if ledger.closed or surplus or queueing.must_yield(ledger, session, now):
            ledger.close(session)
        else:
            ledger.rest(session, now)
        return False

    def returned(self, session: Session) -> None:
        if not self.place(session):
            self.serve(failed=True)


class LedgerMachine(RuleBasedStateMachine):
    """Clients, servers and time."""

    @initialize(limits=LIMITS, keys=st.integers(1, 3))
    def begin(self, limits: Limits, keys: int) -> None:
        self.desk = Desk(limits)
        self.ledger = self.desk.ledger
        self.keys = [Key("orders", f"user{number}") for number in range(keys)]

    def one_of(self, sessions, pick: int) -> Session:
        return sorted(sessions, key=lambda session: session.number)[pick % len(sessions)]

    # -- clients --------------------------------------------------------------------------------

    @rule(pick=PICK, getmode=st.integers(0, 3), willing=st.sampled_from([True] * 5 + [False]))
    def acquire(self, pick: int, getmode: int, willing: bool) -> None:
        desk, ledger = self.desk, self.ledger
        waiter = FakeWaiter(self.keys[pick % len(self.keys)], getmode, 4.0)
        session = ledger.take(waiter.key, desk.now)
        if session is not None:
            waiter.granted(session)
            return
        desk.forced = desk.forced or getmode == FORCEGET
        before = list(ledger.queue)
        error = queueing.admit(ledger, waiter, desk.now)
        if error is not None:
            assert isinstance(error, PoolError)
            assert list(ledger.queue) == before
            return
        waiter.willing = willing
        desk.waiting.append(waiter)
        if ledger.has_idle() or ledger.used < ledger.bound(waiter):
            desk.serve()

    @precondition(lambda self: self.desk.waiting)
    @rule(pick=PICK)
    def withdraw(self, pick: int) -> None:
        waiter = self.desk.waiting.pop(pick % len(self.desk.waiting))
        assert self.ledger.withdraw(waiter)

    @precondition(lambda self: self.ledger.busy)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        self.desk.place(self.one_of(self.ledger.busy, pick))

    @precondition(lambda self: self.ledger.busy)
    @rule(pick=PICK, care=st.sampled_from([RESET, RECOVERY]))
    def give_back(self, pick: int, care: int) -> None:
        self.ledger.attend(self.one_of(self.ledger.busy, pick), care)

    @precondition(lambda self: self.ledger.busy or self.ledger.has_idle())
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        self.ledger.close(self.one_of([*self.ledger.busy, *self.ledger.idle_sessions()], pick))

    # -- servers --------------------------------------------------------------------------------

    @precondition(lambda self: self.ledger.opening)
    @rule(pick=PICK, life=st.sampled_from([6.0, 1e9]))
    def open_succeeds(self, pick: int, life: float) -> None:
        session = self.one_of(self.ledger.opening, pick)
        session.expires = self.desk.now + life
        session.endpoint.refusals.pop(session.key, None)
        self.desk.returned(session)
        self.desk.serve()

    @precondition(lambda self: self.ledger.opening)
    @rule(pick=PICK, starting=st.booleans())
    def open_fails(self, pick: int, starting: bool) -> None:
        desk, ledger = self.desk, self.ledger
        session = self.one_of(ledger.opening, pick)
        back_off(ledger, session.key, desk.now + 2.0)
        ledger.gone(session)
        desk.serve()
        if not ledger.has_key(session.key) and not starting:
            for waiter in [waiter for waiter in ledger.queue if waiter.key is session.key]:
                assert ledger.withdraw(waiter)
                desk.refuse(waiter, DOWN)
        desk.serve(failed=True)

    @precondition(lambda self: self.ledger.care)
    @rule(pick=PICK, well=st.sampled_from([True, True, False]))
    def care_ends(self, pick: int, well: bool) -> None:
        session = self.one_of(self.ledger.care, pick)
        if well:
            self.desk.returned(session)
        else:
            self.ledger.close(session)
            self.desk.serve(failed=True)

    @precondition(lambda self: self.ledger.closing)
    @rule(pick=PICK)
    def close_ends(self, pick: int) -> None:
        self.ledger.gone(self.one_of(self.ledger.closing, pick))
        self.desk.serve()

    # -- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5, 7.0]))
    def time_passes(self, seconds: float) -> None:
        desk = self.desk
        desk.now += seconds
        due, following = queueing.expire(self.ledger, desk.now)
        for waiter in due:
            assert waiter.deadline <= desk.now
            desk.refuse(waiter, queueing.timed_out(self.ledger, waiter, desk.now))
        assert all(desk.now < waiter.deadline for waiter in self.ledger.queue)
        assert following == min((waiter.deadline for waiter in self.ledger.queue), default=OFF)
        self.tick()

    def tick(self) -> None:
        growth.reap(self.ledger, self.desk.now)
        growth.refill(self.ledger, self.keys[0], self.desk.now, 0)
        self.desk.serve()

    # -- what always holds ----------------------------------------------------------------------

    @invariant()
    def the_ledger_is_sound(self) -> None:
        self.ledger.check()

    @invariant()
    def the_bound_holds(self) -> None:
        limits = self.desk.limits
        assert self.ledger.used <= (limits.ceiling if self.desk.forced else limits.max)

    @invariant()
    def no_waiter_is_lost_or_duplicated(self) -> None:
        assert list(self.ledger.queue) == self.desk.waiting, "and nobody has been moved"
        for waiter in self.desk.waiting:
            assert waiter.session is None
            assert waiter.error is None

    @invariant()
    def nobody_waits_beside_a_fresh_idle_session(self) -> None:
        coming = self.ledger.coming()
        for key, lane in self.ledger.lanes.items():
            if not lane:
                continue
            session = lane[-1] if self.desk.limits.reuse == LIFO else lane[0]
            stale = self.desk.now - session.proven_at >= self.desk.limits.ping_interval
            if not stale and self.desk.now < session.expires:
                assert sum(waiter.key is key for waiter in self.ledger.queue) <= coming.get(key, 0)

    @invariant()
    def a_free_slot_is_used(self) -> None:
        """Whoever waits below max has something coming, or the server is being left alone."""
        ledger, coming = self.ledger, self.ledger.coming()
        if ledger.used >= self.desk.limits.max:
            return
        for waiter in ledger.queue:
            if coming.get(waiter.key, 0):
                coming[waiter.key] -= 1
            else:
                assert not ledger.endpoints.may_open(waiter.key, self.desk.now)

    @invariant()
    def every_nowait_waiter_is_covered(self) -> None:
        """By something that comes without another client's help."""
        ledger = self.ledger
        covers = sum(ledger.coming().values()) + len(ledger.closing)
        assert sum(waiter.getmode == NOWAIT for waiter in ledger.queue) <= covers

    @invariant()
    def somebody_will_serve_whoever_waits(self) -> None:
        """No wake-up is lost: while anybody waits, something is under way or the server is left alone."""
        ledger = self.ledger
        if ledger.queue and not (ledger.busy or ledger.care or ledger.opening or ledger.closing):
            assert not any(ledger.endpoints.may_open(waiter.key, self.desk.now) for waiter in ledger.queue)

    def teardown(self) -> None:
        """However it stands, it can be wound up, and everybody who waits is served first."""
        if not hasattr(self, "desk"):
            return
        ledger, desk = self.ledger, self.desk
        for _ in range(500):
            desk.now += 0.01
            if ledger.busy:
                desk.place(self.one_of(ledger.busy, 0))
            elif ledger.opening:
                self.finish_open()
            elif ledger.care:
                desk.returned(self.one_of(ledger.care, 0))
            elif ledger.closing:
                ledger.gone(self.one_of(ledger.closing, 0))
                desk.serve()
            elif ledger.queue:
                desk.now += 2.0
                desk.serve()
            else:
                break
        assert not desk.waiting
        assert not ledger.queue
        assert ledger.used == ledger.idle
        ledger.closed = True
        assert isinstance(queueing.admit(ledger, FakeWaiter(self.keys[0]), desk.now), PoolClosed)

    def finish_open(self) -> None:
        session = self.one_of(self.ledger.opening, 0)
        session.expires = OFF
        session.endpoint.refusals.pop(session.key, None)
        self.desk.returned(session)
        self.desk.serve()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "brief"))


@pytest.mark.fuzz
def test_the_ledger_holds_for_long() -> None:
    """As above, with many more and longer examples."""
    run_state_machine_as_test(LedgerMachine, settings=settings.get_profile("fuzz"))
