import pytest

from fakes import FakeWaiter, back_off, forceget, nowait, timed, waits
from proxy.pool import queueing
from proxy.pool.growth import Plan, plan, reap, refill
from proxy.pool.ledger import Ledger
from proxy.pool.limits import LRU, OFF, Limits
from proxy.pool.session import BUSY, CARE, CLOSING, OPENING, PING, RECOVERY, RESET, Key, Session
from proxy.reasons import DropReason

A, B, C = Key("orders", "ann"), Key("orders", "bob"), Key("stock", "ann")


def ledger_of(**limits: object) -> Ledger:
    return Ledger("orders", Limits(**limits))  # type: ignore[arg-type]


def busy(ledger: Ledger, key: Key = A, now: float = 0.0) -> Session:
    session = ledger.open(key, ledger.endpoints.all[0], now)
    ledger.hand_over(session, now)
    return session


def idle(ledger: Ledger, key: Key = A, now: float = 0.0) -> Session:
    session = busy(ledger, key, now)
    ledger.rest(session, now)
    return session


def join(ledger: Ledger, *waiters: FakeWaiter, now: float = 0.0) -> Plan:
    """Each comes after the last one's plan was made, as in the pool; returns the last plan."""
    found = Plan()
    for waiter in waiters:
        assert queueing.admit(ledger, waiter, now) is None
        found = plan(ledger, now)
        ledger.check()
    return found


def is_empty(found: Plan) -> bool:
    return not (found.grants or found.opens or found.cares or found.closes or found.refusals)


# -- growing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [waits, nowait, timed, forceget])
def test_a_pool_with_room_opens_one_for_each_who_waits(mode) -> None:
    ledger = ledger_of(max=2, max_forced=0)
    assert [session.key for session in join(ledger, mode(A)).opens] == [A]
    assert [session.key for session in join(ledger, mode(B)).opens] == [B]
    assert [session.state for session in ledger.opening] == [OPENING, OPENING]


def test_a_full_pool_opens_nothing() -> None:
    ledger = ledger_of(max=1)
    busy(ledger)
    assert is_empty(join(ledger, timed(A), waits(A), forceget(A)))


def test_what_is_closing_takes_its_slot_still() -> None:
    """The bound is the server's truth: nothing opens before the server has ended something."""
    ledger = ledger_of(max=1)
    session = busy(ledger)
    ledger.close(session)
    assert is_empty(join(ledger, timed(A)))
    ledger.gone(session)
    assert len(plan(ledger, 0.0).opens) == 1


def test_a_step_of_growth_opens_increment_sessions_never_above_max() -> None:
    ledger = ledger_of(max=5, increment=3)
    assert len(join(ledger, timed(A)).opens) == 3
    assert is_empty(join(ledger, timed(A), timed(A))), "they have theirs coming"
    assert len(join(ledger, timed(A)).opens) == 2
    assert ledger.used == 5


def test_the_rest_of_a_step_serves_those_behind_in_the_same_plan() -> None:
    ledger = ledger_of(max=10, increment=2)
    for _ in range(4):
        queueing.admit(ledger, timed(A), 0.0)
    assert len(plan(ledger, 0.0).opens) == 4


@pytest.mark.parametrize("increment", [0, 1])
def test_increment_0_is_1(increment: int) -> None:
    assert len(join(ledger_of(increment=increment), timed(A)).opens) == 1


def test_a_step_above_max_is_one_session() -> None:
    """A forceget's own session is forced; increment would make more than anybody asked for."""
    ledger = ledger_of(max=1, max_forced=5, increment=3)
    busy(ledger)
    assert len(join(ledger, forceget(A)).opens) == 1


def test_forceget_grows_above_max_up_to_its_ceiling() -> None:
    ledger = ledger_of(max=1, max_forced=2)
    busy(ledger)
    assert len(join(ledger, forceget(A)).opens) == 1
    assert len(join(ledger, forceget(A)).opens) == 1
    assert is_empty(join(ledger, forceget(A))), "at the ceiling it waits like everybody"
    assert ledger.used == 3


def test_forceget_goes_above_max_though_others_wait_before_it() -> None:
    ledger = ledger_of(max=1, max_forced=2)
    busy(ledger)
    assert is_empty(join(ledger, timed(A)))
    assert len(join(ledger, forceget(A)).opens) == 1
    assert len(ledger.queue) == 2


def test_two_forcegets_of_different_keys_open_side_by_side() -> None:
    """What one has coming is of its own key, and no reason for the other to wait."""
    ledger = ledger_of(max=1, max_forced=2)
    busy(ledger, C)
    assert [session.key for session in join(ledger, forceget(A)).opens] == [A]
    assert [session.key for session in join(ledger, forceget(B)).opens] == [B]


def test_what_is_opened_above_max_for_one_key_is_no_reason_for_another_to_wait() -> None:
    """Its own client has left; the next forceget wants a session of its own key."""
    ledger = ledger_of(max=1, max_forced=2)
    busy(ledger, C)
    gone = forceget(A)
    join(ledger, gone)
    ledger.withdraw(gone)
    assert [session.key for session in join(ledger, forceget(B)).opens] == [B]


def test_the_plain_waiter_keeps_its_claim_while_a_forceget_opens_another_key() -> None:
    """It stands before a refusal or a replacement, which it does not need."""
    ledger = ledger_of(max=2, max_forced=1)
    busy(ledger, C)
    join(ledger, nowait(A), forceget(B))
    found = plan(ledger, 0.0, failed=True)
    assert is_empty(found)
    assert len(ledger.queue) == 2


def test_a_timedwait_waiter_claims_nothing_that_is_opened_above_max() -> None:
    """It would be left with nothing when the forceget takes its own."""
    ledger = ledger_of(max=2, max_forced=1)
    busy(ledger, A)
    idle(ledger, B)
    join(ledger, forceget(A))
    found = join(ledger, timed(A))
    assert ledger.used == 3
    assert is_empty(found), "and the idle session's slot would still leave the pool at max"


# -- idle sessions ------------------------------------------------------------------------------


def test_a_stale_idle_session_is_pinged_for_the_waiter() -> None:
    ledger = ledger_of(ping_interval=60.0)
    session = idle(ledger)
    found = join(ledger, timed(A), now=60.0)
    assert found.cares == [session]
    assert (session.state, session.care) == (CARE, PING)
    assert not found.opens


def test_pings_run_side_by_side_for_several_waiters() -> None:
    ledger = ledger_of(ping_interval=0.0)
    sessions = {idle(ledger), idle(ledger)}
    assert set(join(ledger, timed(A)).cares + join(ledger, timed(A)).cares) == sessions


def test_lru_pings_the_session_that_rested_longest() -> None:
    ledger = ledger_of(ping_interval=0.0, reuse=LRU)
    oldest = idle(ledger)
    idle(ledger)
    assert join(ledger, timed(A)).cares == [oldest]


def test_a_fresh_idle_session_is_handed_out_without_a_ping() -> None:
    """The expired one in front of it was why it was not taken at once; ping_interval is off."""
    ledger = ledger_of(ping_interval=OFF)
    fresh, expired = idle(ledger), idle(ledger)
    expired.expires = 5.0
    waiter = timed(A)
    found = join(ledger, waiter, now=5.0)
    assert found.grants == [(waiter, fresh)]
    assert fresh.state == BUSY
    assert found.closes == [(expired, DropReason.MAX_LIFETIME)]
    assert not ledger.queue
    assert not found.cares


def test_an_expired_session_is_closed_and_its_slot_serves_the_waiter() -> None:
    """Even a nowait client: it waits for the server to end it, not for another client."""
    ledger = ledger_of(max=1)
    expired = idle(ledger)
    expired.expires = 5.0
    waiter = nowait(A)
    found = join(ledger, waiter, now=5.0)
    assert found.closes == [(expired, DropReason.MAX_LIFETIME)]
    assert not found.refusals
    ledger.gone(expired)
    assert len(plan(ledger, 5.0).opens) == 1


def test_an_expired_session_costs_no_other_key_its_idle_one() -> None:
    ledger = ledger_of(max=2)
    expired = idle(ledger, A)
    expired.expires = 5.0
    idle(ledger, B)
    found = join(ledger, timed(A), now=5.0)
    assert found.closes == [(expired, DropReason.MAX_LIFETIME)]
    assert ledger.idle == 1


def test_at_max_the_longest_idle_session_of_another_key_is_replaced() -> None:
    ledger = ledger_of(max=3)
    busy(ledger, A)
    newer = idle(ledger, B, now=2.0)
    older = idle(ledger, C, now=1.0)
    found = join(ledger, timed(A), now=3.0)
    assert found.closes == [(older, DropReason.REPLACED)]
    assert (older.state, newer in ledger.lanes[B]) == (CLOSING, True)
    assert not found.opens
    ledger.gone(older)
    assert [session.key for session in plan(ledger, 3.0).opens] == [A]


def test_one_replacement_serves_one_waiter() -> None:
    ledger = ledger_of(max=2)
    first, second = idle(ledger, B), idle(ledger, B)
    assert join(ledger, timed(A)).closes == [(first, DropReason.REPLACED)]
    assert is_empty(plan(ledger, 0.0)), "its slot is on its way"
    assert join(ledger, timed(A)).closes == [(second, DropReason.REPLACED)]


def test_below_max_nobody_is_replaced() -> None:
    ledger = ledger_of(max=2)
    idle(ledger, B)
    found = join(ledger, timed(A))
    assert not found.closes
    assert len(found.opens) == 1


def test_nobody_is_replaced_where_that_would_free_no_slot() -> None:
    """Forced sessions are above max: one idle session less still leaves the pool full."""
    ledger = ledger_of(max=2, max_forced=2)
    idle(ledger, B)
    for _ in range(3):
        busy(ledger, A)
    assert is_empty(join(ledger, timed(A)))
    assert ledger.idle == 1


def test_a_slot_that_closes_above_max_is_promised_to_nobody_but_a_forceget() -> None:
    ledger = ledger_of(max=2, max_forced=1)
    busy(ledger, A)
    idle(ledger, B)
    ledger.close(busy(ledger, A))
    found = join(ledger, timed(A))
    assert [session.key for session, _ in found.closes] == [B]


# -- back-off -----------------------------------------------------------------------------------


def test_no_session_is_opened_for_a_key_that_is_backed_off_from() -> None:
    ledger = ledger_of()
    back_off(ledger, A, 5.0)
    assert is_empty(join(ledger, timed(A), now=4.9))
    assert len(plan(ledger, 5.0).opens) == 1


def test_the_other_key_is_opened_meanwhile() -> None:
    ledger = ledger_of()
    back_off(ledger, A, 5.0)
    assert [session.key for session in join(ledger, timed(A), timed(B)).opens] == [B]


def test_nobody_is_replaced_for_a_key_that_is_backed_off_from() -> None:
    ledger = ledger_of(max=1)
    idle(ledger, B)
    back_off(ledger, A, 5.0)
    assert is_empty(join(ledger, timed(A)))


def test_a_nowait_client_is_refused_while_its_key_is_backed_off_from() -> None:
    ledger = ledger_of()
    back_off(ledger, A, 5.0)
    waiter = nowait(A)
    assert join(ledger, waiter).refusals == [waiter]
    assert not ledger.queue


def test_the_slot_that_comes_free_is_not_kept_for_a_key_that_is_backed_off_from() -> None:
    """Otherwise the next waiter would replace one more idle session than it needs."""
    ledger = ledger_of(max=2)
    idle(ledger, C)
    ledger.close(busy(ledger, C))
    back_off(ledger, A, 5.0)
    assert is_empty(join(ledger, timed(A), timed(B)))
    assert ledger.idle == 1


# -- nowait clients when something fails --------------------------------------------------------


def test_a_nowait_client_with_nothing_left_to_come_is_refused() -> None:
    """It never waits for another client."""
    ledger = ledger_of(max=1)
    waiter = nowait(A)
    found = join(ledger, waiter)
    ledger.gone(found.opens[0])
    busy(ledger, B)
    assert plan(ledger, 0.0, failed=True).refusals == [waiter]


def test_a_nowait_client_whose_open_failed_gets_the_free_slot() -> None:
    ledger = ledger_of(max=1)
    waiter = nowait(A)
    found = join(ledger, waiter)
    ledger.gone(found.opens[0])
    again = plan(ledger, 0.0, failed=True)
    assert len(again.opens) == 1
    assert not again.refusals


def test_a_full_pool_is_walked_only_when_something_failed() -> None:
    """A queued query costs the same however long the queue is."""
    ledger = ledger_of(max=1)
    join(ledger, nowait(A))
    only = next(iter(ledger.opening))
    ledger.hand_over(only, 0.0)
    assert is_empty(plan(ledger, 0.0))
    assert len(plan(ledger, 0.0, failed=True).refusals) == 1


@pytest.mark.parametrize(("care", "stays"), [(PING, True), (RESET, True), (RECOVERY, False)])
def test_a_nowait_client_goes_on_waiting_for_a_ping_or_a_reset(care: int, stays: bool) -> None:
    ledger = ledger_of(max=1)
    join(ledger, nowait(A))
    session = next(iter(ledger.opening))
    ledger.hand_over(session, 0.0)
    ledger.attend(session, care)
    assert bool(plan(ledger, 0.0, failed=True).refusals) != stays


def test_a_nowait_client_does_not_go_on_waiting_for_the_reset_of_a_forced_session() -> None:
    ledger = ledger_of(max=1, max_forced=1)
    join(ledger, nowait(A))
    ledger.hand_over(next(iter(ledger.opening)), 0.0)
    ledger.attend(busy(ledger), RESET)
    assert len(plan(ledger, 0.0, failed=True).refusals) == 1


def test_nobody_waits_so_there_is_nothing_to_plan() -> None:
    ledger = ledger_of()
    idle(ledger)
    assert is_empty(plan(ledger, 0.0, failed=True))


# -- reaping and refilling ----------------------------------------------------------------------


def test_the_longest_idle_are_reaped_first_whatever_their_key_down_to_min() -> None:
    ledger = ledger_of(min=1, idle_timeout=10.0)
    third, first, second = idle(ledger, A, 3.0), idle(ledger, B, 1.0), idle(ledger, B, 2.0)
    assert reap(ledger, 100.0) == [(first, DropReason.IDLE_TIMEOUT), (second, DropReason.IDLE_TIMEOUT)]
    assert ledger.idle_sessions() == [third]
    ledger.check()


def test_only_what_has_been_idle_for_idle_timeout_is_reaped() -> None:
    ledger = ledger_of(idle_timeout=10.0)
    old, young = idle(ledger, A, 0.0), idle(ledger, A, 0.5)
    assert reap(ledger, 9.9) == []
    assert reap(ledger, 10.0) == [(old, DropReason.IDLE_TIMEOUT)]
    assert young in ledger.lanes[A]


def test_busy_sessions_count_towards_min_and_are_never_reaped() -> None:
    ledger = ledger_of(min=2, idle_timeout=10.0)
    held = [busy(ledger) for _ in range(3)]
    resting = idle(ledger)
    assert reap(ledger, 100.0) == [(resting, DropReason.IDLE_TIMEOUT)]
    assert all(session.state == BUSY for session in held)


def test_an_expired_session_is_reaped_even_below_min() -> None:
    ledger = ledger_of(min=2, idle_timeout=OFF)
    old, young = idle(ledger), idle(ledger)
    old.expires, young.expires = 50.0, 51.0
    assert reap(ledger, 50.0) == [(old, DropReason.MAX_LIFETIME)]


def test_the_pool_is_refilled_to_min() -> None:
    ledger = ledger_of(min=3)
    busy(ledger, B)
    assert [session.key for session in refill(ledger, A, 0.0, 0)] == [A, A]
    assert refill(ledger, A, 0.0, 0) == [], "what is being opened counts"


def test_at_least_goes_above_min_but_never_above_max() -> None:
    assert len(refill(ledger_of(min=0), A, 0.0, 1)) == 1
    ledger = ledger_of(min=2, max=2)
    busy(ledger)
    ledger.close(busy(ledger))
    assert refill(ledger, A, 0.0, 5) == []


def test_nothing_is_refilled_during_back_off_or_after_the_close() -> None:
    ledger = ledger_of(min=1)
    back_off(ledger, A, 5.0)
    assert refill(ledger, A, 4.9, 0) == []
    ledger.closed = True
    assert refill(ledger, A, 5.0, 0) == []
    ledger.closed = False
    assert len(refill(ledger, A, 5.0, 0)) == 1
