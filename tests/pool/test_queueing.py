"""Who is next: shares between classes, order within them, and who is told early that it would be too late."""

import pytest

from fakes import DOWN, FakeWaiter, forceget, nowait, timed, waits
from proxy.errors import PoolBusy, PoolPaused, PoolTimeout, QueueFull, RefusedEarly
from proxy.pool import growth, queueing
from proxy.pool.endpoints import Endpoints
from proxy.pool.ledger import Ledger
from proxy.pool.limits import BY_KEY, Limits
from proxy.pool.session import Key, Session

A, B = Key("orders", "ann"), Key("orders", "bob")


def ledger_of(endpoints: tuple[str, ...] = ("here",), **limits: object) -> Ledger:
    return Ledger("orders", Limits(**limits), Endpoints(endpoints))  # type: ignore[arg-type]


def busy(ledger: Ledger, key: Key = A) -> Session:
    session = ledger.open(key, ledger.endpoints.all[0], 0.0)
    ledger.hand_over(session, 0.0)
    return session


def of_class(number: int, key: Key = A) -> FakeWaiter:
    waiter = waits(key)
    waiter.priority = number
    return waiter


def serve(ledger: Ledger, session: Session, count: int, now: float = 0.0) -> list[FakeWaiter]:
    """Give the session to one waiter after the other."""
    served = []
    for _ in range(count):
        waiter = queueing.next_for(ledger, session, now)
        assert isinstance(waiter, FakeWaiter)
        queueing.served(ledger, waiter, now)
        served.append(waiter)
    return served


# -- shares -------------------------------------------------------------------------------------


def test_a_greedy_class_gets_its_share_and_no_more() -> None:
    """100 requests of one class are in the queue before the first of the other: they take turns."""
    ledger = ledger_of(max=1, weights=(1.0, 1.0))
    session = busy(ledger)
    for number in [0] * 100 + [1] * 10:
        assert queueing.admit(ledger, of_class(number), 0.0) is None
    assert [waiter.priority for waiter in serve(ledger, session, 8)].count(1) == 4


@pytest.mark.parametrize("weight", [2.0, 4.0])
def test_shares_are_as_the_weights(weight: float) -> None:
    ledger = ledger_of(max=1, weights=(1.0, weight))
    session = busy(ledger)
    for _ in range(100):
        queueing.admit(ledger, of_class(0), 0.0)
        queueing.admit(ledger, of_class(1), 0.0)
    rounds = 10 * (1 + int(weight))
    favoured = [waiter.priority for waiter in serve(ledger, session, rounds)].count(1)
    assert abs(favoured - 10 * weight) <= 1


def test_within_a_class_it_is_first_in_first_out() -> None:
    ledger = ledger_of(max=1, weights=(1.0, 3.0))
    session = busy(ledger)
    waiters = [of_class(number % 2) for number in range(40)]
    for waiter in waiters:
        queueing.admit(ledger, waiter, 0.0)
    served = serve(ledger, session, 40)
    for number in (0, 1):
        mine = [waiter for waiter in served if waiter.priority == number]
        assert mine == [waiter for waiter in waiters if waiter.priority == number]


def test_a_newcomer_of_an_idle_class_has_saved_up_nothing() -> None:
    """It takes turns from now on; what it did not use before is not made good."""
    ledger = ledger_of(max=1, weights=(1.0, 1.0))
    session = busy(ledger)
    for _ in range(60):
        queueing.admit(ledger, of_class(0), 0.0)
    serve(ledger, session, 40)
    for _ in range(20):
        queueing.admit(ledger, of_class(1), 0.0)
    assert 3 <= [waiter.priority for waiter in serve(ledger, session, 8)].count(1) <= 5


def test_an_unknown_class_is_everybodys() -> None:
    ledger = ledger_of(max=1, weights=(1.0, 1.0))
    busy(ledger)
    assert queueing.admit(ledger, of_class(7), 0.0) is None


# -- refused early ------------------------------------------------------------------------------


def steady(ledger: Ledger, session: Session, every: float) -> float:
    """One session comes free ``every`` so many seconds, for a while; returns the time."""
    for _ in range(20):
        queueing.admit(ledger, waits(A), 0.0)
    now = 1.0
    for _ in range(15):
        now += every
        serve(ledger, session, 1, now)
    return now


def test_who_would_be_served_too_late_is_told_at_once() -> None:
    ledger = ledger_of(max=1, refuse_early=True)
    now = steady(ledger, busy(ledger), 2.0)
    error = queueing.admit(ledger, timed(A, 5.0), now)
    assert isinstance(error, RefusedEarly)
    assert "at the present rate a session would come free in 12.0s" in error.message
    assert "waiting=5" in error.picture
    assert queueing.admit(ledger, timed(A, 30.0), now) is None
    assert queueing.admit(ledger, waits(A), now) is None, "who waits without limit is never too late"


def test_without_a_rate_nobody_is_refused_early() -> None:
    ledger = ledger_of(max=1, refuse_early=True)
    busy(ledger)
    for _ in range(50):
        assert queueing.admit(ledger, timed(A, 0.001), 0.0) is None


def test_it_is_off_unless_wanted() -> None:
    ledger = ledger_of(max=1)
    now = steady(ledger, busy(ledger), 2.0)
    assert queueing.admit(ledger, timed(A, 5.0), now) is None


def test_a_queue_that_stands_still_is_as_slow_as_it_has_stood() -> None:
    ledger = ledger_of(max=1, refuse_early=True)
    now = steady(ledger, busy(ledger), 0.1)
    assert queueing.admit(ledger, timed(A, 5.0), now) is None
    assert isinstance(queueing.admit(ledger, timed(A, 5.0), now + 10.0), RefusedEarly)


def test_refused_early_is_a_full_queue() -> None:
    assert issubclass(RefusedEarly, QueueFull)


# -- ties ---------------------------------------------------------------------------------------


def sharing(affinity: str, getmode: FakeWaiter) -> FakeWaiter:
    getmode.affinity, getmode.picky = affinity, True
    return getmode


def test_who_names_the_key_of_a_busy_session_waits_for_that_one() -> None:
    ledger = ledger_of(max=3, affinity=BY_KEY)
    mine, other = busy(ledger), busy(ledger)
    ledger.share(mine, "cart-7")
    waiter = sharing("cart-7", timed(A))
    assert queueing.admit(ledger, waiter, 0.0) is None
    plan = growth.plan(ledger, 0.0)
    assert not plan.opens, "another session would not do"
    assert queueing.next_for(ledger, other, 0.0) is None
    assert not queueing.must_yield(ledger, other, 0.0)
    assert queueing.next_for(ledger, mine, 0.0) is waiter


def test_nowait_does_not_wait_for_who_shares() -> None:
    ledger = ledger_of(max=3, affinity=BY_KEY)
    ledger.share(busy(ledger), "cart-7")
    error = queueing.admit(ledger, sharing("cart-7", nowait(A)), 0.0)
    assert isinstance(error, PoolBusy)
    assert "the session of this key is busy" in error.message


def test_a_shared_session_that_ends_frees_its_key() -> None:
    ledger = ledger_of(max=3, affinity=BY_KEY)
    mine = busy(ledger)
    ledger.share(mine, "cart-7")
    waiter = sharing("cart-7", timed(A))
    queueing.admit(ledger, waiter, 0.0)
    ledger.close(mine)
    ledger.check()
    assert [session.key for session in growth.plan(ledger, 0.0).opens] == [A]


def test_two_who_name_one_key_have_one_session_opened() -> None:
    ledger = ledger_of(max=3, affinity=BY_KEY)
    for _ in range(2):
        queueing.admit(ledger, sharing("cart-7", timed(A)), 0.0)
    assert len(growth.plan(ledger, 0.0).opens) == 1
    assert not growth.plan(ledger, 0.0).opens


# -- paused -------------------------------------------------------------------------------------


def test_a_paused_pool_queues_and_grants_nothing() -> None:
    ledger = ledger_of(max=2)
    session = busy(ledger)
    ledger.paused = True
    waiter = timed(A, 3.0)
    assert queueing.admit(ledger, waiter, 0.0) is None
    assert queueing.next_for(ledger, session, 0.0) is None
    assert not growth.plan(ledger, 0.0).opens
    assert isinstance(queueing.admit(ledger, nowait(A), 0.0), PoolPaused)
    error = queueing.timed_out(ledger, waiter, 3.0)
    assert isinstance(error, PoolTimeout)
    assert error.message == "the pool is paused, and was not resumed within wait_timeout (3s)"


# -- several endpoints --------------------------------------------------------------------------


def test_a_full_endpoint_is_full_for_those_whom_it_concerns() -> None:
    """max_per_endpoint: nowait is refused there, and served elsewhere."""
    ledger = ledger_of(("north", "south"), max=10, max_per_endpoint=1)
    north, south = ledger.endpoints.all
    there, here = Key("orders", "ann", "", north), Key("orders", "ann", "", south)
    ledger.hand_over(ledger.open(there, north, 0.0), 0.0)
    assert isinstance(queueing.admit(ledger, nowait(there), 0.0), PoolBusy)
    assert queueing.admit(ledger, nowait(here), 0.0) is None
    assert [session.endpoint for session in growth.plan(ledger, 0.0).opens] == [south]


def test_a_session_elsewhere_does_not_yield_to_who_could_not_use_its_slot() -> None:
    ledger = ledger_of(("north", "south"), max=10, max_per_endpoint=1)
    north, south = ledger.endpoints.all
    there, here = Key("orders", "ann", "", north), Key("orders", "ann", "", south)
    ledger.hand_over(ledger.open(there, north, 0.0), 0.0)
    elsewhere = ledger.open(here, south, 0.0)
    ledger.hand_over(elsewhere, 0.0)
    queueing.admit(ledger, timed(there), 0.0)
    assert not queueing.must_yield(ledger, elsewhere, 0.0)


def test_forceget_goes_above_max_but_not_above_the_bound_of_an_endpoint() -> None:
    ledger = ledger_of(max=1, max_forced=5, max_per_endpoint=2)
    busy(ledger)
    queueing.admit(ledger, forceget(A), 0.0)
    assert len(growth.plan(ledger, 0.0).opens) == 1
    queueing.admit(ledger, forceget(B), 0.0)
    assert not growth.plan(ledger, 0.0).opens
    ledger.check()


# -- why it took too long -----------------------------------------------------------------------


def test_a_timeout_says_when_the_server_let_nobody_else_in() -> None:
    ledger = ledger_of(max=5)
    busy(ledger)
    (endpoint,) = ledger.endpoints.all
    endpoint.failed(0.0, 1, 60.0, 0.0)
    endpoint.error = DOWN
    waiter = timed(A, 3.0)
    assert queueing.admit(ledger, waiter, 0.0) is None
    error = queueing.timed_out(ledger, waiter, 3.0)
    assert isinstance(error, PoolTimeout)
    assert error.message.endswith("and no other one can be opened: the server is down")
