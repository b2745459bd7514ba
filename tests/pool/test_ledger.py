import pytest

from fakes import FakeWaiter, back_off, forceget, nowait, timed, waits
from proxy.errors import PoolBusy, PoolClosed, PoolTimeout, QueueFull
from proxy.pool import queueing
from proxy.pool.ledger import Ledger
from proxy.pool.limits import LRU, OFF, Limits
from proxy.pool.session import BUSY, CARE, CLOSING, GONE, IDLE, OPENING, PING, RECOVERY, RESET, Key, Session

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


def queued(ledger: Ledger, *waiters: FakeWaiter) -> None:
    for waiter in waiters:
        assert queueing.admit(ledger, waiter, 0.0) is None
    ledger.check()


# -- counts and the one mover -------------------------------------------------------------------


def test_every_state_is_counted_where_it_belongs() -> None:
    """opened is busy + idle + in care; opening and closing take slots, too."""
    ledger = ledger_of()
    opening = ledger.open(A, ledger.endpoints.all[0], 0.0)
    idle(ledger, A)
    idle(ledger, B)
    tended, closing = busy(ledger), busy(ledger)
    busy(ledger)
    ledger.attend(tended, PING)
    ledger.close(closing)
    assert (ledger.idle, len(ledger.busy), len(ledger.care)) == (2, 1, 1)
    assert (ledger.opened, len(ledger.opening), len(ledger.closing), ledger.used) == (4, 1, 1, 6)
    assert opening.state == OPENING
    ledger.check()


def test_a_session_that_is_gone_takes_no_slot() -> None:
    ledger = ledger_of()
    session = busy(ledger)
    ledger.close(session)
    assert ledger.used == 1
    ledger.gone(session)
    assert ledger.used == 0
    assert session.state == GONE


LEGAL = {
    OPENING: {IDLE, BUSY, CARE, CLOSING, GONE},
    IDLE: {BUSY, CARE, CLOSING, GONE},
    CARE: {IDLE, BUSY, CARE, CLOSING, GONE},
    BUSY: {IDLE, CARE, CLOSING, GONE},
    CLOSING: {GONE},
    GONE: set[int](),
}


def in_state(ledger: Ledger, state: int) -> Session:
    session = ledger.open(A, ledger.endpoints.all[0], 0.0)
    if state in (IDLE, BUSY, CLOSING, GONE):
        ledger.move(session, state)
    if state == CARE:
        ledger.hand_over(session, 0.0)
        ledger.attend(session, RESET)
    return session


@pytest.mark.parametrize("was", range(6))
@pytest.mark.parametrize("state", range(6))
def test_only_legal_moves_are_made(was: int, state: int) -> None:
    """An illegal one raises a sentence and changes nothing."""
    ledger = ledger_of()
    session = in_state(ledger, was)
    if state in LEGAL[was]:
        ledger.move(session, state)
        assert session.state == state
    else:
        with pytest.raises(RuntimeError, match=r"cannot go from .* to .*: it was given back twice"):
            ledger.move(session, state)
        assert session.state == was
    ledger.check()


@pytest.mark.parametrize("state", [OPENING, IDLE, CARE, BUSY, CLOSING])
def test_a_session_of_another_pool_is_refused(state: int) -> None:
    ledger, other = ledger_of(), Ledger("other", Limits())
    session = in_state(other, state)
    with pytest.raises(RuntimeError, match='is no session of pool "orders"'):
        ledger.move(session, GONE)


def test_what_the_care_was_about_is_forgotten_when_it_ends() -> None:
    ledger = ledger_of()
    session = busy(ledger)
    ledger.attend(session, RECOVERY)
    ledger.rest(session, 0.0)
    assert session.care == 0


def test_a_lane_vanishes_with_its_last_session() -> None:
    """Keys come and go."""
    ledger = ledger_of()
    first, middle, last = (idle(ledger) for _ in range(3))
    for session in (middle, first, last):
        ledger.close(session)
        ledger.check()
    assert not ledger.has_idle()
    for session in (middle, first, last):
        ledger.gone(session)
    assert ledger.lanes == {}


@pytest.mark.parametrize("state", [OPENING, IDLE, CARE, BUSY])
def test_a_key_is_known_while_a_session_of_it_is_open_or_opening(state: int) -> None:
    ledger = ledger_of()
    session = in_state(ledger, state)
    assert ledger.has_key(A)
    assert not ledger.has_key(B)
    ledger.close(session)
    assert not ledger.has_key(A)


# -- take ---------------------------------------------------------------------------------------


def test_lifo_takes_the_session_that_was_used_last() -> None:
    ledger = ledger_of()
    idle(ledger)
    newest = idle(ledger)
    assert ledger.take(A, 0.0) is newest


def test_lru_takes_the_session_that_rested_longest() -> None:
    ledger = ledger_of(reuse=LRU)
    oldest = idle(ledger)
    idle(ledger)
    assert ledger.take(A, 0.0) is oldest


def test_a_session_serves_its_own_key_only() -> None:
    ledger = ledger_of()
    idle(ledger, A)
    assert ledger.take(B, 0.0) is None
    assert ledger.take(Key("orders", "ann"), 0.0) is None, "keys are compared by identity"


def test_a_session_idle_for_ping_interval_is_not_taken_unpinged() -> None:
    ledger = ledger_of(ping_interval=60.0)
    session = idle(ledger, now=0.0)
    assert ledger.take(A, 60.0) is None
    assert ledger.take(A, 59.9) is session
    assert session.busy_since == 59.9


def test_ping_interval_0_pings_always_and_off_never() -> None:
    always, never = ledger_of(ping_interval=0.0), ledger_of(ping_interval=OFF)
    idle(always)
    session = idle(never)
    assert always.take(A, 0.0) is None
    assert never.take(A, 1e9) is session


def test_an_expired_session_is_never_taken() -> None:
    ledger = ledger_of()
    session = idle(ledger)
    session.expires = 10.0
    assert ledger.take(A, 10.0) is None
    assert ledger.take(A, 9.9) is session


# -- admit --------------------------------------------------------------------------------------


def test_wait_has_no_deadline_and_the_others_have_one() -> None:
    ledger = ledger_of()
    first, second, third = waits(A), timed(A, 2.5), forceget(A)
    for waiter in (first, second, third):
        assert queueing.admit(ledger, waiter, 7.0) is None
    assert (first.deadline, second.deadline, third.deadline) == (OFF, 9.5, 37.0)
    assert second.since == 7.0


@pytest.mark.parametrize("mode", [waits, timed, forceget])
def test_a_full_pool_queues_whoever_is_ready_to_wait(mode) -> None:
    ledger = ledger_of(max=1)
    busy(ledger)
    assert queueing.admit(ledger, mode(A), 0.0) is None


def test_nowait_is_refused_at_once_when_every_slot_is_taken() -> None:
    ledger = ledger_of(max=2)
    busy(ledger)
    busy(ledger)
    error = queueing.admit(ledger, nowait(A), 0.0)
    assert isinstance(error, PoolBusy)
    assert "getmode is nowait" in error.message
    assert error.picture == (
        'pool "orders": opened=2/2 busy=2 idle=0 opening=0 closing=0 waiting=0, waited 0.00s'
    )
    assert not ledger.queue


def test_nowait_with_room_to_grow_waits_for_the_connect() -> None:
    ledger = ledger_of(max=2)
    busy(ledger)
    assert queueing.admit(ledger, nowait(A), 0.0) is None


def test_nowait_counts_what_is_being_opened_and_nobody_claims() -> None:
    ledger = ledger_of(max=2)
    ledger.open(A, ledger.endpoints.all[0], 0.0)
    ledger.open(A, ledger.endpoints.all[0], 0.0)
    queued(ledger, nowait(A), nowait(A))
    assert isinstance(queueing.admit(ledger, nowait(A), 0.0), PoolBusy)


def test_nowait_never_counts_on_what_those_ahead_of_it_wait_for() -> None:
    ledger = ledger_of(max=1)
    queued(ledger, timed(B))
    assert isinstance(queueing.admit(ledger, nowait(A), 0.0), PoolBusy)


@pytest.mark.parametrize(("care", "counts"), [(PING, True), (RESET, True), (RECOVERY, False)])
def test_nowait_counts_on_a_ping_or_a_reset_but_not_on_a_recovery(care: int, counts: bool) -> None:
    """A recovery waits for a query that somebody left behind, and that may take for ever."""
    ledger = ledger_of(max=1)
    ledger.attend(busy(ledger), care)
    assert (queueing.admit(ledger, nowait(A), 0.0) is None) == counts


def test_nowait_does_not_count_on_a_session_that_is_closing() -> None:
    ledger = ledger_of(max=1)
    ledger.close(busy(ledger))
    assert isinstance(queueing.admit(ledger, nowait(A), 0.0), PoolBusy)


def test_nowait_does_not_count_on_what_is_opened_for_a_forceget() -> None:
    """A session above max is not for it, so it would have to wait for another client."""
    ledger = ledger_of(max=1, max_forced=1)
    busy(ledger)
    ledger.open(A, ledger.endpoints.all[0], 0.0)
    assert isinstance(queueing.admit(ledger, nowait(A), 0.0), PoolBusy)


def test_nowait_does_not_count_on_the_reset_of_a_forced_session() -> None:
    ledger = ledger_of(max=1, max_forced=1)
    busy(ledger)
    ledger.attend(busy(ledger), RESET)
    assert isinstance(queueing.admit(ledger, nowait(A), 0.0), PoolBusy)


def test_a_queue_of_max_waiting_refuses_the_next() -> None:
    ledger = ledger_of(max=1, max_waiting=2)
    busy(ledger)
    queued(ledger, timed(A), waits(A))
    error = queueing.admit(ledger, timed(A), 0.0)
    assert isinstance(error, QueueFull)
    assert error.message == "2 clients wait already"
    assert "waiting=2" in error.picture


def test_max_waiting_counts_only_those_who_wait_for_another_client() -> None:
    ledger = ledger_of(max=2, max_waiting=0)
    queued(ledger, timed(A), timed(A))
    assert isinstance(queueing.admit(ledger, timed(A), 0.0), QueueFull)


def test_max_waiting_0_lets_a_forceget_go_above_max() -> None:
    ledger = ledger_of(max=1, max_forced=1, max_waiting=0)
    busy(ledger)
    assert queueing.admit(ledger, forceget(A), 0.0) is None
    assert isinstance(queueing.admit(ledger, timed(A), 0.0), QueueFull)


def test_a_closed_pool_admits_nobody() -> None:
    ledger = ledger_of()
    ledger.closed = True
    assert isinstance(queueing.admit(ledger, waits(A), 0.0), PoolClosed)


def test_withdrawing_twice_says_so() -> None:
    ledger = ledger_of()
    waiter = timed(A)
    queued(ledger, waiter)
    assert ledger.withdraw(waiter)
    assert not ledger.withdraw(waiter)


def test_only_those_whose_deadline_has_come_are_expired() -> None:
    ledger = ledger_of(max=1)
    short, long, ever = timed(A, 1.0), timed(A, 3.0), waits(A)
    queued(ledger, long, short, ever)
    assert queueing.expire(ledger, 0.999) == ([], 1.0)
    assert queueing.expire(ledger, 1.0) == ([short], 3.0)
    assert queueing.expire(ledger, 5.0) == ([long], OFF)
    assert list(ledger.queue) == [ever]


def test_a_timeout_says_how_long_and_how_full() -> None:
    ledger = ledger_of(max=1)
    busy(ledger)
    waiter = timed(A, 1.5)
    queued(ledger, waiter)
    queueing.expire(ledger, 1.5)
    error = queueing.timed_out(ledger, waiter, 1.5)
    assert isinstance(error, PoolTimeout)
    assert error.message == "no session came free within wait_timeout (1.5s)"
    assert error.picture.endswith("waiting=0, waited 1.50s")


# -- who gets a session that comes free ---------------------------------------------------------


def test_waiters_are_served_first_in_first_out() -> None:
    ledger = ledger_of(max=1)
    session = busy(ledger)
    waiters = [timed(A), waits(A), forceget(A), timed(A)]
    queued(ledger, *waiters)
    assert [queueing.next_for(ledger, session, 0.0) for _ in waiters] == waiters
    assert queueing.next_for(ledger, session, 0.0) is None


def test_a_released_session_goes_to_the_first_even_if_one_is_opened_for_it() -> None:
    ledger = ledger_of(max=2)
    session = busy(ledger)
    waiter = timed(A)
    queued(ledger, waiter)
    ledger.open(A, ledger.endpoints.all[0], 0.0)
    assert queueing.next_for(ledger, session, 0.0) is waiter


def test_a_waiter_of_another_key_for_whom_nothing_comes_is_not_overtaken() -> None:
    """The session must yield its slot: no starvation behind a busy key."""
    ledger = ledger_of(max=1)
    session = busy(ledger, A)
    queued(ledger, timed(B), timed(A))
    assert queueing.next_for(ledger, session, 0.0) is None
    assert queueing.must_yield(ledger, session, 0.0)


@pytest.mark.parametrize("coming", [OPENING, PING, RESET])
def test_a_waiter_for_whom_something_comes_is_passed_over(coming: int) -> None:
    ledger = ledger_of(max=2)
    session = busy(ledger, A)
    other = ledger.open(B, ledger.endpoints.all[0], 0.0)
    if coming != OPENING:
        ledger.hand_over(other, 0.0)
        ledger.attend(other, coming)
    second = timed(A)
    queued(ledger, timed(B), second)
    assert not queueing.must_yield(ledger, session, 0.0)
    assert queueing.next_for(ledger, session, 0.0) is second


def test_one_session_that_comes_serves_one_waiter() -> None:
    ledger = ledger_of(max=2)
    session = busy(ledger, A)
    ledger.open(B, ledger.endpoints.all[0], 0.0)
    queued(ledger, timed(B), timed(B), timed(A))
    assert queueing.next_for(ledger, session, 0.0) is None
    assert queueing.must_yield(ledger, session, 0.0)


def test_nobody_counts_on_a_recovery() -> None:
    ledger = ledger_of(max=2)
    session = busy(ledger, A)
    ledger.attend(busy(ledger, B), RECOVERY)
    queued(ledger, timed(B), timed(A))
    assert queueing.must_yield(ledger, session, 0.0)


def test_a_slot_that_is_closing_serves_the_waiter_of_another_key() -> None:
    ledger = ledger_of(max=2)
    session = busy(ledger, A)
    ledger.close(busy(ledger, A))
    queued(ledger, timed(B))
    assert not queueing.must_yield(ledger, session, 0.0)


def test_a_key_that_is_backed_off_from_holds_nobody_up() -> None:
    ledger = ledger_of(max=1)
    session = busy(ledger, A)
    back_off(ledger, B, 5.0)
    second = timed(A)
    queued(ledger, timed(B), second)
    assert not queueing.must_yield(ledger, session, 4.0)
    assert queueing.must_yield(ledger, session, 5.0)
    assert queueing.next_for(ledger, session, 4.0) is second


def test_nobody_waits_so_nothing_must_yield() -> None:
    ledger = ledger_of(max=1)
    assert not queueing.must_yield(ledger, busy(ledger), 0.0)


# -- forceget -----------------------------------------------------------------------------------


def test_only_forceget_may_go_above_max() -> None:
    ledger = ledger_of(max=3, max_forced=2)
    bounds = [ledger.bound(mode(A)) for mode in (waits, nowait, timed, forceget)]
    assert bounds == [3, 3, 3, 5]


def test_a_surplus_session_goes_on_only_if_the_first_waiter_is_a_forceget() -> None:
    ledger = ledger_of(max=1, max_forced=1)
    first, _ = busy(ledger), busy(ledger)
    keen = forceget(A)
    queued(ledger, keen, timed(A))
    assert ledger.is_surplus(first)
    assert queueing.next_for(ledger, first, 0.0) is keen
    queued(ledger, forceget(A))
    assert queueing.next_for(ledger, first, 0.0) is None, "a timedwait client is first now"


def test_a_forceget_of_another_key_does_not_get_a_surplus_session() -> None:
    ledger = ledger_of(max=1, max_forced=1)
    session, _ = busy(ledger), busy(ledger)
    queued(ledger, forceget(B))
    assert queueing.next_for(ledger, session, 0.0) is None


def test_at_max_a_forced_session_is_like_any_other() -> None:
    ledger = ledger_of(max=1, max_forced=1)
    first, second = busy(ledger), busy(ledger)
    waiter = timed(A)
    queued(ledger, waiter)
    ledger.close(first)
    assert not ledger.is_surplus(second)
    assert queueing.next_for(ledger, second, 0.0) is waiter


def test_what_is_opened_above_max_finds_its_forceget_wherever_it_stands() -> None:
    """And never a timedwait client: the pool would have grown for it."""
    ledger = ledger_of(max=1, max_forced=1)
    busy(ledger)
    keen = forceget(A)
    queued(ledger, timed(A), keen)
    forced = ledger.open(A, ledger.endpoints.all[0], 0.0)
    assert queueing.next_for(ledger, forced, 0.0) is keen
    assert queueing.next_for(ledger, forced, 0.0) is None


def test_a_session_that_was_pinged_serves_whoever_woke_it() -> None:
    """It was idle before, so it makes nothing grow, however many others a forceget has opened."""
    ledger = ledger_of(max=1, max_forced=1)
    session = idle(ledger)
    busy(ledger, B)
    waiter = timed(A)
    queued(ledger, waiter)
    ledger.attend(session, PING)
    assert queueing.next_for(ledger, session, 0.0) is waiter


def test_what_was_opened_above_max_yields_to_nobody_before_its_forceget_has_had_it() -> None:
    """Though the pool has shrunk to max since: it would be replaced, opened again, replaced again."""
    ledger = ledger_of(max=1, max_forced=1)
    other = busy(ledger, C)
    forced = ledger.open(A, ledger.endpoints.all[0], 0.0)
    keen = forceget(A)
    queued(ledger, timed(B), timed(A), keen)
    ledger.close(other)
    assert not ledger.is_surplus(forced)
    assert queueing.next_for(ledger, forced, 0.0) is keen
    assert queueing.next_for(ledger, forced, 0.0) is None
    assert queueing.must_yield(ledger, forced, 0.0)


def test_what_was_opened_within_max_yields_even_if_a_forceget_wants_it() -> None:
    ledger = ledger_of(max=1, max_forced=1)
    session = ledger.open(A, ledger.endpoints.all[0], 0.0)
    queued(ledger, timed(B), forceget(A))
    assert queueing.next_for(ledger, session, 0.0) is None


# -- what tests rely on -------------------------------------------------------------------------


def test_check_finds_what_is_wrong() -> None:
    ledger = ledger_of(max=1)
    session = busy(ledger)
    session.state = IDLE
    with pytest.raises(AssertionError, match="listed as busy"):
        ledger.check()
    session.state = BUSY
    busy(ledger)
    with pytest.raises(AssertionError, match="2 slots taken, 1 allowed"):
        ledger.check()
    ledger = ledger_of()
    waiter = timed(A)
    queued(ledger, waiter)
    ledger.queue.append(waiter)
    with pytest.raises(AssertionError, match="queued twice"):
        ledger.check()
    twice = busy(ledger)
    ledger.care.add(twice)
    with pytest.raises(AssertionError, match="listed as"):
        ledger.check()
