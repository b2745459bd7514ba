"""K, P, T and U: classes, purity, tags and users, all under the one ``max`` of a pool.

What a server makes of them is in test_postgres.py.
"""

import asyncio

import pytest
from structlog.testing import capture_logs

from conformance.bench import Bench, backend_of
from fakes import DOWN, in_fake_time, timed, turns, waits
from proxy.errors import BackendError, LoginFailed, PoolTimeout
from proxy.pool.limits import OFF, TAGS_ANY, TAGS_EXACT, WAIT
from proxy.pool.session import BUSY, GONE, IDLE

RED, BLUE = object(), object()


@in_fake_time
async def test_k01_the_same_class_gets_the_same_session_back() -> None:
    async with Bench(max=4) as bench:
        red, blue = (bench.pool.key("orders", "ann", name) for name in ("red", "blue"))
        (session,) = await bench.idle(1, red)
        assert await bench.take(1, blue) != [session]
        assert await bench.take(1, red) == [session]
        assert bench.pool.key("orders", "ann", "red") is red


@in_fake_time
async def test_k02_at_max_another_class_replaces_an_idle_session() -> None:
    async with Bench(max=2) as bench:
        red, blue = (bench.pool.key("orders", "ann", name) for name in ("red", "blue"))
        old = await bench.idle(2, red)
        (new,) = await bench.take(1, blue)
        assert bench.counts == (2, 1, 1)
        assert sorted(session.state for session in old) == [IDLE, GONE]
        assert new.key is blue
        assert bench.drops == {"replaced": 1}


@in_fake_time
async def test_k03_a_waiter_of_another_class_is_served_by_a_release_with_another_session() -> None:
    async with Bench(max=1) as bench:
        red, blue = (bench.pool.key("orders", "ann", name) for name in ("red", "blue"))
        (session,) = await bench.take(1, red)
        waiter = waits(blue)
        bench.queue(waiter)
        await turns()
        assert waiter.session is None
        bench.pool.release(session)
        await turns()
        assert waiter.session not in (None, session)
        assert bench.counts == (1, 1, 0)
        bench.pool.release(waiter.session)


@in_fake_time
async def test_k04_when_the_connect_of_a_replacement_fails_no_slot_is_lost() -> None:
    async with Bench(max=1) as bench:
        red, blue = (bench.pool.key("orders", "ann", name) for name in ("red", "blue"))
        await bench.idle(1, red)
        bench.opener.errors = [DOWN]
        with pytest.raises(BackendError):
            await bench.pool.acquire(blue)
        assert bench.pool.ledger.used == bench.opener.living == 0
        await asyncio.sleep(1)
        for key in (blue, red, blue):
            await bench.idle(1, key)
            assert bench.counts == (1, 0, 1)


@in_fake_time
async def test_k05_whoever_waits_for_a_new_session_is_served_by_a_release() -> None:
    """python-oracledb passes it over, and it waits on beside an idle session."""
    async with Bench(max=1) as bench:
        (session,) = await bench.take()
        waiting = bench.run(bench.pool.acquire(bench.key, WAIT, wants_new=True))
        await turns()
        bench.pool.release(session)
        new = await waiting
        assert new is not session
        assert session.state == GONE
        assert bench.counts == (1, 1, 0)
        bench.pool.release(new)


@in_fake_time
async def test_p01_a_new_session_has_no_past_and_opened_does_not_grow_at_max() -> None:
    async with Bench(max=2) as bench:
        used = await bench.idle(2)
        new = await bench.pool.acquire(bench.key, wants_new=True)
        assert new not in used
        assert backend_of(new).resets == 0
        assert bench.counts == (2, 1, 1)
        bench.pool.release(new)
        again = await bench.pool.acquire(bench.key, wants_new=True)
        assert again is not new, "it has been used by now"
        bench.pool.release(again)


@in_fake_time
async def test_p02_self_may_get_what_somebody_used() -> None:
    async with Bench(max=2) as bench:
        (used,) = await bench.idle()
        for _ in range(3):
            assert await bench.take() == [used]
            bench.pool.release(used)
        assert bench.opener.tries == 1


@in_fake_time
async def test_t01_a_tag_finds_its_session_again_and_who_wants_none_gets_an_unchanged_one() -> None:
    async with Bench(max=4, tags=TAGS_EXACT) as bench:
        plain, red, blue = await bench.take(3)
        red.tag, blue.tag = RED, BLUE
        bench.release([plain, red, blue])
        assert await bench.take(1, tag=RED) == [red]
        bench.pool.release(red)
        assert await bench.take(1, tag=BLUE) == [blue]
        bench.pool.release(blue)
        assert await bench.take() == [plain]
        (fresh,) = await bench.take()
        assert fresh not in (red, blue), "untagged only, as long as there is room"
        bench.release([plain, fresh])


@in_fake_time
async def test_t02_a_tag_that_nobody_can_have_had_leaves_the_session_usable() -> None:
    """A tag is the state itself here: there is no wrong one, only one that no session is in yet."""
    async with Bench(max=1, tags=TAGS_EXACT) as bench:
        (session,) = await bench.idle()
        assert await bench.take(1, tag=object()) == [session]
        bench.pool.release(session)
        assert await bench.take() == [session]
        bench.pool.release(session)


@pytest.mark.parametrize(
    ("tags", "asked", "given"),
    [
        (TAGS_EXACT, RED, "red"),  # the same tag: nothing to be sent
        (TAGS_EXACT, BLUE, "plain"),  # another one: an unchanged session, made to fit
        (TAGS_EXACT, None, "plain"),
        (TAGS_ANY, RED, "red"),
    ],
)
@in_fake_time
async def test_t03_which_session_is_made_to_fit(tags: int, asked: object, given: str) -> None:
    async with Bench(max=2, tags=tags) as bench:
        plain, red = await bench.take(2)
        red.tag = RED
        bench.release([plain, red])
        expected = {"plain": plain, "red": red}[given]
        (session,) = await bench.take(1, tag=asked)
        assert session is expected
        assert (session.tag is asked) == (asked is None or given == "red")
        bench.pool.release(session)


@in_fake_time
async def test_t04_a_session_is_opened_once_however_often_it_is_reused() -> None:
    """The commands of ``session_init`` are a part of the open, and run in no other place."""
    async with Bench(max=1) as bench:
        for _ in range(10):
            (session,) = await bench.take()
            bench.pool.reset(session)
            await turns()
        assert bench.opener.tries == len(bench.opener.backends) == 1


@in_fake_time
async def test_t05_where_a_new_session_cannot_be_prepared_the_next_acquire_tries_again() -> None:
    async with Bench(max=1) as bench:
        bench.opener.errors = [LoginFailed("session_init failed", "42P01")]
        with pytest.raises(BackendError, match="session_init"):
            await bench.pool.acquire(bench.key)
        assert bench.pool.ledger.used == 0
        await asyncio.sleep(1)
        (session,) = await bench.take()
        assert bench.opener.tries == 2
        bench.pool.release(session)


@pytest.mark.parametrize("tags", [TAGS_EXACT, TAGS_ANY])
@in_fake_time
async def test_t06_any_takes_a_session_in_another_state_where_exact_opens_one(tags: int) -> None:
    async with Bench(max=2, tags=tags) as bench:
        (red,) = await bench.take()
        red.tag = RED
        bench.pool.release(red)
        (session,) = await bench.take(1, tag=BLUE)
        assert (session is red) == (tags == TAGS_ANY)
        assert session.tag in (RED, None), "it still says what it is in, for whoever makes it fit"
        bench.pool.release(session)


@in_fake_time
async def test_u01_a_session_only_ever_serves_the_user_who_logged_in() -> None:
    async with Bench(max=4) as bench:
        (ann,) = await bench.idle(1, bench.key)
        (bob,) = await bench.take(1, bench.other)
        assert bob is not ann
        assert (ann.key.user, bob.key.user) == ("ann", "bob")
        assert await bench.take(1, bench.key) == [ann]


@in_fake_time
async def test_u02_a_refused_login_is_told_to_its_user_and_nothing_is_pooled() -> None:
    async with Bench(max=2, wait_timeout=1.0) as bench:
        bench.opener.errors = [LoginFailed("password authentication failed", "28P01")]
        with capture_logs(), pytest.raises(LoginFailed):
            await bench.pool.acquire(bench.other)
        assert bench.pool.ledger.used == 0
        (ann,) = await bench.take()
        assert ann.key.user == "ann", "nobody else suffers for it"
        bench.pool.release(ann)
        await asyncio.sleep(1)
        (bob,) = await bench.take(1, bench.other)
        assert bob.key.user == "bob"
        bench.pool.release(bob)


@in_fake_time
async def test_u03_min_is_filled_for_the_own_user_and_all_users_share_max() -> None:
    """Oracle ignores min where users differ, not knowing whom to open for; here the pool has a user."""
    async with Bench(min=2, max=3, idle_timeout=OFF) as bench:
        await bench.started()
        assert {session.key for session in bench.pool.ledger.idle_sessions()} == {bench.key}
        (bob,) = await bench.take(1, bench.other)
        assert bench.counts == (3, 1, 2)
        waiter = timed(bench.other, 1.0)
        bench.queue(waiter)
        await turns()
        assert waiter.session is not None, "an idle one of the other user made room"
        assert bench.counts == (3, 2, 1)
        await bench.take(1, bench.key)
        with pytest.raises(PoolTimeout):
            await bench.pool.acquire(bench.key, wait_timeout=1.0)
        assert bob.state == BUSY
