"""The servers of a pool: who gets the next session, what a breaker lets through, what is whose fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import DOWN, REFUSED, STARTING
from proxy.errors import BackendError
from proxy.pool.endpoints import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    Endpoint,
    Endpoints,
    backoff,
    is_of_the_endpoint,
    is_starting,
)
from proxy.pool.session import Key, Session

ANN, BOB = Key("orders", "ann"), Key("orders", "bob")


def filled(endpoints: Endpoints, *counts: int) -> Endpoints:
    for endpoint, count in zip(endpoints.all, counts, strict=True):
        for number in range(count):
            endpoint.sessions.add(Session(number, ANN, endpoint, 0.0))
    return endpoints


def fail(endpoint: Endpoint, now: float, limit: int = 3, timeout: float = 5.0) -> float:
    endpoint.error = DOWN
    return endpoint.failed(now, limit, timeout, 0.0)


# -- choosing -------------------------------------------------------------------------------------


def test_the_next_session_goes_where_there_are_fewest() -> None:
    endpoints = filled(Endpoints(("a", "b", "c")), 3, 1, 2)
    assert endpoints.choose(ANN, 0.0, None) is endpoints.all[1]


def test_sessions_are_spread_evenly() -> None:
    endpoints = Endpoints(("a", "b", "c"), first=1)
    for number in range(7):
        chosen = endpoints.choose(ANN, 0.0, None)
        assert chosen is not None
        chosen.sessions.add(Session(number, ANN, chosen, 0.0))
    assert [len(endpoint.sessions) for endpoint in endpoints.all] == [2, 3, 2]


def test_each_daemon_begins_elsewhere() -> None:
    """A hundred of them that need one session each would otherwise all open it on the first server."""
    for first in range(3):
        endpoints = Endpoints(("a", "b", "c"), first)
        assert endpoints.choose(ANN, 0.0, None) is endpoints.all[first]


def test_a_full_endpoint_is_passed_over_and_a_full_pool_has_none() -> None:
    endpoints = filled(Endpoints(("a", "b")), 2, 3)
    assert endpoints.choose(ANN, 0.0, 3) is endpoints.all[0]
    assert endpoints.choose(ANN, 0.0, 2) is None
    assert endpoints.may_open(ANN, 0.0)  # it is full, not dead


def test_a_key_with_an_endpoint_goes_there_or_nowhere() -> None:
    endpoints = filled(Endpoints(("a", "b")), 1, 0)
    key = Key("orders", "ann", endpoint=endpoints.all[0])
    assert endpoints.choose(key, 0.0, 2) is endpoints.all[0]
    assert endpoints.choose(key, 0.0, 1) is None
    fail(endpoints.all[0], 0.0)
    assert endpoints.choose(key, 0.0, 2) is None
    assert not endpoints.may_open(key, 0.0)
    assert endpoints.why_not(key, 0.0) is DOWN
    assert endpoints.may_open(ANN, 0.0)


def test_a_dead_endpoint_is_passed_over() -> None:
    endpoints = filled(Endpoints(("a", "b")), 0, 5)
    fail(endpoints.all[0], 0.0)
    assert endpoints.choose(ANN, 0.0, None) is endpoints.all[1]
    # Even after its back-off: nobody should wait to find out whether it is back ...
    assert endpoints.choose(ANN, 60.0, None) is endpoints.all[1]
    assert endpoints.suspects(60.0) == [endpoints.all[0]]
    # ... unless there is no room elsewhere.
    assert endpoints.choose(ANN, 60.0, 5) is endpoints.all[0]
    assert endpoints.choose(ANN, 0.0, 5) is None


def test_an_endpoint_that_has_recovered_is_one_of_them_again() -> None:
    endpoints = filled(Endpoints(("a", "b")), 0, 5)
    fail(endpoints.all[0], 0.0)
    endpoints.all[0].succeeded()
    assert endpoints.choose(ANN, 0.0, None) is endpoints.all[0]
    assert endpoints.suspects(100.0) == []


def test_a_pool_needs_an_endpoint() -> None:
    with pytest.raises(ValueError, match="needs an endpoint"):
        Endpoints(())


# -- the breaker ----------------------------------------------------------------------------------


def test_a_failure_is_followed_by_a_short_back_off_that_doubles() -> None:
    endpoint, now, delays = Endpoint(0, "a"), 100.0, []
    for _ in range(4):
        delays.append(fail(endpoint, now, limit=10))
        assert not endpoint.may_open(now + delays[-1] - 0.001)
        assert endpoint.breaker(now) == CLOSED
        now += delays[-1]
        assert endpoint.may_open(now)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_the_breaker_opens_after_so_many_failures_and_lets_one_try_after_its_time() -> None:
    endpoint = Endpoint(0, "a")
    for now in (0.0, 1.0):
        fail(endpoint, now)
        assert endpoint.breaker(now) == CLOSED
    assert fail(endpoint, 2.0) == 5.0
    assert [endpoint.breaker(now) for now in (2.0, 6.999, 7.0, 70.0)] == [OPEN, OPEN, HALF_OPEN, HALF_OPEN]
    assert [endpoint.may_open(now) for now in (2.0, 6.999, 7.0)] == [False, False, True]
    endpoint.probe = Session(1, ANN, endpoint, 7.0)
    assert not endpoint.may_open(7.0)
    assert endpoint.breaker(7.0) == HALF_OPEN


def test_a_probe_decides() -> None:
    endpoint = Endpoint(0, "a")
    for now in (0.0, 1.0, 2.0):
        fail(endpoint, now)
    endpoint.probe = Session(1, ANN, endpoint, 7.0)
    assert fail(endpoint, 8.0) == 5.0
    assert (endpoint.breaker(8.0), endpoint.probe) == (OPEN, None)
    endpoint.probe = Session(2, ANN, endpoint, 13.0)
    endpoint.succeeded()
    assert endpoint.breaker(13.0) == CLOSED
    assert endpoint.may_open(13.0)
    assert (endpoint.failures, endpoint.error, endpoint.last_error) == (0, None, "")


def test_opens_that_fail_side_by_side_are_one_failure() -> None:
    endpoint = Endpoint(0, "a")
    fail(endpoint, 100.0)
    assert fail(endpoint, 100.05) == pytest.approx(0.05)
    # One that began before the first of them failed, and takes longer to fail than the back-off lasts.
    assert endpoint.failed(115.0, 3, 5.0, 0.0, started=99.0) == 0.0
    assert (endpoint.failures, endpoint.is_broken) == (1, False)
    assert endpoint.failed(115.0, 3, 5.0, 0.0, started=100.2) > 0.0
    assert endpoint.failures == 2


def test_a_breaker_may_be_off() -> None:
    endpoint = Endpoint(0, "a")
    for now in range(100):
        fail(endpoint, now * 10.0, limit=0)
    assert endpoint.breaker(0.0) == CLOSED


@given(st.integers(1, 50), st.floats(0.1, 60.0), st.floats(0.0, 1.0))
def test_jitter_takes_off_up_to_a_half(rounds: int, longest: float, jitter: float) -> None:
    whole = backoff(rounds, longest, 0.0)
    assert whole / 2.0 <= backoff(rounds, longest, jitter) <= whole <= min(longest, 5.0)


@given(st.lists(st.tuples(st.sampled_from("fsrp"), st.floats(0.0, 8.0)), max_size=40), st.integers(1, 5))
def test_whatever_happens_an_endpoint_can_always_be_tried_again(
    steps: list[tuple[str, float]], limit: int
) -> None:
    """No order of failures, successes, refusals and probes leaves it closed for ever."""
    endpoint, now = Endpoint(0, "a"), 1.0
    for step, wait in steps:
        if step == "f":
            delay = fail(endpoint, now, limit)
            assert 0.0 <= delay < 5.001
        elif step == "s":
            endpoint.succeeded()
        elif step == "r":
            assert 0.0 < endpoint.refused(ANN, REFUSED, now, 0.5) < 5.001
        elif endpoint.is_broken and endpoint.may_open(now):
            endpoint.probe = Session(1, ANN, endpoint, now)
            endpoint.probe = None  # given up: its slot was freed
        now += wait
        assert endpoint.is_broken == (endpoint.failures >= limit)
    assert endpoint.may_open(now + 5.001)
    assert endpoint.may_open_for(ANN, now + 5.001)


# -- whose fault ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["08006", "08001", "08P01", "53300", "53200", "57P03", "57P01", "58030"])
def test_what_anybody_would_have_got_is_about_the_endpoint(state: str) -> None:
    assert is_of_the_endpoint(BackendError("no", state))


@pytest.mark.parametrize(
    "state", ["28P01", "28000", "3D000", "42501", "22023", "42704", "XX000", "0A000", ""]
)
def test_what_is_about_the_login_is_about_its_key(state: str) -> None:
    assert not is_of_the_endpoint(BackendError("no", state))


@pytest.mark.parametrize("routine", ["InitializeSessionUserId", "CheckMyDatabase"])
def test_the_connection_limit_of_a_role_or_database_is_not_the_server_s(routine: str) -> None:
    assert not is_of_the_endpoint(BackendError("too many connections for ...", "53300", {"R": routine}))
    assert is_of_the_endpoint(BackendError("sorry, too many clients already", "53300", {"R": "InitProcess"}))


def test_a_refused_key_closes_the_endpoint_to_nobody_else() -> None:
    endpoints = Endpoints(("a", "b"))
    first, second = endpoints.all
    first.refused(ANN, REFUSED, 0.0, 0.0)
    assert endpoints.choose(ANN, 0.0, None) is second  # another server may know it
    assert endpoints.choose(BOB, 0.0, None) is first
    second.refused(ANN, REFUSED, 0.0, 0.0)
    assert endpoints.choose(ANN, 0.0, None) is None
    assert endpoints.why_not(ANN, 0.0) is REFUSED
    assert endpoints.why_not(BOB, 0.0) is None
    assert endpoints.choose(ANN, 0.1, None) is first


def test_a_key_that_is_refused_again_and_again_is_tried_less_often() -> None:
    endpoint, now, delays = Endpoint(0, "a"), 0.0, []
    for _ in range(8):
        delays.append(endpoint.refused(ANN, REFUSED, now, 0.0))
        assert endpoint.refused(ANN, REFUSED, now, 0.0) == delays[-1]  # side by side
        now = endpoint.refusals[ANN].until
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_refusals_are_not_remembered_for_ever() -> None:
    endpoint = Endpoint(0, "a")
    for number in range(5000):
        endpoint.refused(Key("orders", f"u{number}"), REFUSED, float(number), 0.0)
    assert len(endpoint.refusals) <= 1024


def test_the_most_hopeful_reason_is_told() -> None:
    """Whoever hears that a server is starting up goes on waiting."""
    endpoints = Endpoints(("a", "b", "c"))
    for endpoint, error in zip(endpoints.all, (DOWN, STARTING, DOWN), strict=True):
        endpoint.failed(0.0, 5, 5.0, 0.0)
        endpoint.error = error
    assert endpoints.why_not(ANN, 0.0) is STARTING
    assert is_starting(STARTING)
    assert not is_starting(DOWN)
    assert endpoints.why_not(ANN, 0.1) is None


def test_a_server_that_is_down_comes_before_what_it_said_to_the_key_when_it_was_up() -> None:
    endpoints = Endpoints(("a",))
    endpoint = endpoints.all[0]
    endpoint.refused(ANN, REFUSED, 0.0, 0.0)
    fail(endpoint, 0.0)
    assert endpoints.why_not(ANN, 0.0) is DOWN
