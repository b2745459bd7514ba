"""A client and its session, step by step, in the cases that a real server cannot be brought to show."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.errors import PoolTimeout
from proxy.pool.limits import NOWAIT, WAIT
from proxy.reasons import CloseReason, DropReason
from proxy.relay.link import CLOSED
from relay.stage import LineClient, Scene, turns

Make = Callable[..., Scene]


# -- the walk of a query --------------------------------------------------------------------------


async def test_a_query_passes_both_ways_in_the_same_step(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"q1\n")
    assert server.take() == b"q1\n"
    assert scene.shows(busy=1)
    server.say(b"row\n")
    server.say(b"Z\n")
    assert wire.take() == b"row\nZ\n"
    assert scene.shows(idle=1)


async def test_the_first_in_the_queue_is_served_in_the_step_of_the_release(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    wires = [scene.client()[1] for _ in range(3)]
    for number, wire in enumerate(wires):
        wire.say(f"q{number}\n".encode())
    assert server.take() == b"q0\n"
    for number, wire in enumerate(wires):
        server.say(f"Z{number}\n".encode())
        assert wire.take() == f"Z{number}\n".encode()
        assert server.take() == (f"q{number + 1}\n".encode() if number < 2 else b"")


async def test_a_client_that_waits_is_read_once_more_and_then_no_further(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    _, wire = scene.client()
    holder.say(b"q1\n")
    wire.say(b"q2\n")
    assert not wire.paused
    wire.say(b"q3\n")
    assert wire.paused
    server.take()
    server.say(b"Z\n")
    assert server.take() == b"q2\nq3\n"
    assert not wire.paused
    server.say(b"Z\nZ\n")
    assert scene.shows(idle=1)


async def test_a_paused_waiter_that_has_hung_up_is_passed_over(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    _, gone = scene.client()
    _, next_one = scene.client()
    holder.say(b"q1\n")
    gone.say(b"q2\n")
    gone.say(b"q3\n")
    gone.hang_up()
    next_one.say(b"q4\n")
    server.take()
    server.say(b"Z\n")
    assert server.take() == b"q4\n"
    assert scene.ended == [(2, CloseReason.CLIENT_GONE)]
    server.say(b"Z\n")


async def test_a_waiter_that_is_read_and_leaves_is_taken_out_of_the_queue(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    _, gone = scene.client()
    holder.say(b"q1\n")
    gone.say(b"q2\n")
    assert scene.shows(busy=1, waiting=1)
    gone.lose()
    assert scene.shows(busy=1)
    server.say(b"Z\n")
    assert scene.shows(idle=1)


async def test_a_refusal_answers_and_the_client_goes_on(make_scene: Make) -> None:
    scene = make_scene(getmode=NOWAIT)
    server = await scene.warm()
    _, holder = scene.client()
    _, wire = scene.client()
    holder.say(b"q1\n")
    wire.say(b"q2\n")
    assert wire.take() == b"refused\n"
    server.say(b"Z\n")
    wire.say(b"q3\n")
    server.say(b"Z3\n")
    assert wire.take() == b"Z3\n"


# -- back-pressure --------------------------------------------------------------------------------


async def test_a_slow_client_pauses_its_session_until_it_has_caught_up(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client()
    wire.say(b"q1\n")
    client.pause_writing()
    assert server.paused
    client.resume_writing()
    assert not server.paused
    server.say(b"Z\n")
    assert scene.shows(idle=1)


async def test_a_session_that_goes_home_is_read_again(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client()
    wire.say(b"q1\n")
    client.pause_writing()
    wire.lose()
    assert not server.paused
    await turns()
    server.say(b"Z\n")
    await turns()
    server.say(b"ok\n")
    await turns()
    scene.endpoint.made[-1].lose()  # the cancel request has been dealt with


async def test_a_slow_client_s_next_session_is_paused_from_the_start(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client()
    client.pause_writing()
    wire.say(b"q1\n")
    assert server.paused
    client.resume_writing()
    server.say(b"Z\n")


async def test_a_slow_session_pauses_its_client_until_it_has_caught_up(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"b1\n")
    scene.backend.pause_writing()
    assert wire.paused
    scene.backend.resume_writing()
    assert not wire.paused
    scene.backend.pause_writing()
    server.say(b"Z\n")
    assert wire.paused
    scene.backend.resume_writing()
    wire.say(b"e1\n")
    scene.backend.pause_writing()
    server.say(b"Z\n")
    assert not wire.paused, "it holds no session any more"


async def test_a_slow_client_does_not_hold_up_the_settings_of_its_session(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client("ann")
    client.pause_writing()
    wire.say(b"q1\n")
    assert not server.paused, "nobody would hear that the settings hold"
    assert server.take() == b"prepare ann\n"
    server.say(b"ok\n")
    await turns()
    assert server.paused
    assert server.take() == b"q1\n"
    client.resume_writing()
    server.say(b"Z\n")
    assert scene.shows(idle=1)


async def test_a_client_that_fills_up_and_vanishes_while_being_prepared_keeps_nothing(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client("ann")
    wire.say(b"q1\n")
    client.pause_writing()
    wire.lose()
    server.say(b"ok\n")
    await turns()
    assert server.take() == b"prepare ann\n"
    assert scene.shows(idle=1)


# -- settings -------------------------------------------------------------------------------------


async def test_settings_are_put_on_a_session_before_the_query_is_sent(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, ann = scene.client("ann")
    _, bob = scene.client("bob")
    for wire, name in ((ann, b"ann"), (bob, b"bob"), (ann, b"ann")):
        wire.say(b"q\n")
        assert server.take() == b"prepare " + name + b"\n"
        server.say(b"ok\n")
        await turns()
        assert server.take() == b"q\n"
        server.say(b"Z\n")
        assert wire.take() == b"told " + name + b"\nZ\n"
    ann.say(b"q\n")
    assert server.take() == b"q\n"
    server.say(b"Z\n")


async def test_what_a_session_says_right_behind_its_settings_reaches_the_client(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client("ann")
    wire.say(b"q1\n")
    server.say(b"ok\n")
    server.say(b"notice\n")  # before the task that waits for the settings has run
    await turns()
    assert wire.take() == b"told ann\nnotice\n"
    server.say(b"Z\n")


@pytest.mark.parametrize("moment", ["before", "in the middle", "behind"])
async def test_a_session_that_dies_while_being_prepared_costs_no_slot(make_scene: Make, moment: str) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client("ann")
    wire.say(b"q1\n")
    if moment == "in the middle":
        await turns()
        server.say(b"half")
    elif moment == "behind":
        server.say(b"ok\n")
    server.lose()
    await turns()
    assert wire.take() == b"no session\n"
    assert scene.shows()
    wire.say(b"q2\n")
    await turns()
    scene.server.say(b"ok\n")
    await turns()
    scene.server.say(b"Z2\n")
    assert wire.take() == b"told ann\nZ2\n"


async def test_a_refusal_of_the_settings_is_told_and_the_session_goes_on(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client("ann")
    wire.say(b"q1\n")
    server.take()
    server.say(b"no\n")
    await turns()
    assert wire.take() == b"no session\n"
    assert server.take() == b"settle\n"
    server.say(b"ok\n")
    await turns()
    assert scene.shows(idle=1)


async def test_a_client_that_vanishes_while_being_prepared_sends_nothing(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client("ann")
    wire.say(b"q1\n")
    wire.lose()
    server.say(b"ok\n")
    await turns()
    assert server.take() == b"prepare ann\n"
    assert scene.shows(idle=1)
    assert scene.ended == [(1, CloseReason.CLIENT_GONE)]


async def test_a_lost_reset_of_session_mode_ends_its_client(make_scene: Make) -> None:
    scene = make_scene("session")
    server = await scene.warm()
    _, wire = scene.client("ann", keeps=True, again=True)
    wire.say(b"q1\n")
    server.say(b"ok\n")
    await turns()
    server.say(b"Z\n")  # it asks to be prepared again
    assert server.take() == b"prepare ann\nq1\nprepare ann\n"
    server.lose()
    await turns()
    assert wire.take().endswith(b"fatal session_lost\n")
    assert wire.closed


# -- cancel ---------------------------------------------------------------------------------------


async def test_a_cancel_of_a_waiting_client_answers_it(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    client, wire = scene.client()
    holder.say(b"q1\n")
    wire.say(b"q2\n")
    await client.cancel()
    assert wire.take() == b"cancelled\n"
    assert scene.shows(busy=1)
    server.say(b"Z\n")
    wire.say(b"q3\n")
    server.say(b"Z\n")
    assert wire.take() == b"Z\n"


async def test_a_cancel_while_being_prepared_sends_nothing_and_answers(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client("ann")
    wire.say(b"q1\n")
    await client.cancel()
    server.say(b"ok\n")
    await turns()
    assert server.take() == b"prepare ann\n"
    assert wire.take() == b"cancelled\n"
    assert scene.shows(idle=1)
    wire.say(b"q2\n")
    assert server.take() == b"q2\n"
    server.say(b"Z\n")


async def test_a_cancel_while_a_session_of_one_s_own_is_prepared_again_takes_nothing_away(
    make_scene: Make,
) -> None:
    scene = make_scene("session")
    server = await scene.warm()
    client, wire = scene.client("ann", keeps=True, again=True)
    wire.say(b"q1\n")
    server.say(b"ok\n")
    await turns()
    server.say(b"Z\n")
    await client.cancel()
    server.say(b"ok\n")
    await turns()
    assert scene.shows(busy=1)
    wire.take()
    wire.say(b"q2\n")
    server.say(b"Z2\n")
    assert wire.take() == b"Z2\n"


async def test_a_session_with_a_cancel_on_its_way_serves_nobody_before_that_has_arrived(
    make_scene: Make,
) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    client, wire = scene.client()
    _, next_one = scene.client()
    wire.say(b"q1\n")
    next_one.say(b"q2\n")
    request = asyncio.ensure_future(client.cancel())
    await turns()
    errand = scene.endpoint.made[-1]
    assert errand is not server
    assert errand.take() == b"cancel\n"
    server.take()
    server.say(b"Z\n")
    await turns()
    assert server.take() == b"", "the cancel could still hit whatever runs now"
    assert scene.shows(care=1, waiting=1)
    errand.lose()
    await turns()
    assert server.take() == b"settle\n"
    server.say(b"ok\n")
    await turns()
    assert server.take() == b"q2\n"
    server.say(b"Z\n")
    await request


async def test_a_cancel_of_an_idle_client_does_nothing(make_scene: Make) -> None:
    scene = make_scene()
    await scene.warm()
    client, _ = scene.client()
    await client.cancel()
    assert len(scene.endpoint.made) == 1


# -- leaving --------------------------------------------------------------------------------------


async def test_a_goodbye_behind_a_waiting_query_still_has_the_query_done(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    _, wire = scene.client()
    holder.say(b"q1\n")
    wire.say(b"q2\nX\n")
    wire.lose()
    assert scene.ended == [(2, CloseReason.CLIENT_LEFT)]
    server.take()
    server.say(b"Z\n")
    assert server.take() == b"q2\n"
    await turns()
    assert server.take() == b"fail\n"
    server.say(b"row\nZ\n")
    await turns()
    server.say(b"ok\n")
    await turns()
    scene.endpoint.made[-1].lose()
    await turns()
    assert scene.ended == [(2, CloseReason.CLIENT_LEFT)]


async def test_a_goodbye_behind_a_waiting_query_that_is_refused_leaves_nothing(make_scene: Make) -> None:
    scene = make_scene(getmode=WAIT)
    await scene.warm()
    _, holder = scene.client()
    client, wire = scene.client()
    holder.say(b"q1\n")
    wire.say(b"q2\nX\n")
    wire.lose()
    assert scene.pool.withdraw(client)
    client.refused(PoolTimeout("it took too long", "the picture"))
    assert client.phase == CLOSED
    assert scene.ended == [(2, CloseReason.CLIENT_LEFT)]


async def test_a_session_that_ended_while_its_client_went_on_is_not_released(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    client, wire = scene.client()
    codec = client.codec
    assert isinstance(codec, LineClient)
    codec.late = True
    wire.say(b"q1\n")
    server.say(b"Z\n")
    assert codec.session is not None
    codec.session.ended = "going down"
    client.look_again()
    assert scene.shows(closing=1)
    assert scene.pool.counters.drops[DropReason.SERVER_FATAL] == 1


@pytest.mark.parametrize("gone", [False, True])
async def test_a_goodbye_while_being_prepared_still_has_the_query_done(make_scene: Make, gone: bool) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client("ann")
    wire.say(b"q1\nX\n")
    if gone:
        wire.lose()
    server.say(b"ok\n")
    await turns()
    assert b"q1\n" in server.take()
    server.say(b"Z\n")
    await turns()
    server.say(b"ok\n")
    await turns()
    for errand in scene.endpoint.made[1:]:
        errand.lose()
    await turns()
    assert scene.ended == [(1, CloseReason.CLIENT_LEFT)]


@pytest.mark.parametrize("phase", ["waiting", "preparing", "running"])
async def test_nonsense_of_a_client_ends_it_whatever_it_waits_for(make_scene: Make, phase: str) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    if phase == "waiting":
        holder.say(b"q1\n")
    _, wire = scene.client("ann" if phase == "preparing" else "")
    wire.say(b"q2\n!\n")
    assert wire.take() == b"broken\n"
    assert wire.closed
    assert scene.ended == [(2, CloseReason.PROTOCOL_ERROR)]
    server.say(b"Z\n" if phase == "waiting" else b"ok\n")
    await turns()
    if phase == "running":
        server.say(b"Z\n")
        await turns()
        server.say(b"ok\n")
        await turns()
    for errand in scene.endpoint.made[1:]:
        errand.lose()
    await turns()
    assert scene.shows(idle=1)


async def test_the_rest_of_an_answer_that_comes_before_the_recovery_begins_belongs_to_it(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"q1\n")
    server.say(b"row\n")
    wire.lose()
    server.say(b"row\nZ\n")  # in the same turn of the loop: no task has run yet
    await turns()
    assert server.take().startswith(b"q1\nfail\n")
    assert scene.shows(care=1)
    for errand in scene.endpoint.made[1:]:
        errand.lose()
    await turns()
    server.say(b"ok\n")
    await turns()
    assert scene.shows(idle=1)


async def test_a_session_in_doubt_is_dropped_and_its_slot_taken_until_the_server_ends_it(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client(stray=True)
    wire.say(b"q1\n")
    server.say(b"Z\n")
    await turns()
    assert scene.shows(closing=1)
    assert server.take().endswith(b"farewell\n")
    server.lose()
    await turns()
    assert scene.shows()
    assert scene.pool.counters.drops[DropReason.UNCERTAIN] == 1


# -- sessions that die ----------------------------------------------------------------------------


async def test_a_lost_session_is_answered_outside_and_fatal_inside_a_transaction(make_scene: Make) -> None:
    scene = make_scene(max=2)
    _, outside = scene.client()
    _, inside = scene.client()
    outside.say(b"q1\n")
    inside.say(b"b1\n")
    await turns()
    first, second = scene.endpoint.made
    first.lose()
    second.lose(OSError("reset"))
    assert outside.take() == b"lost\n"
    assert not outside.closed
    assert inside.take() == b"fatal session_lost\n"
    assert scene.ended == [(2, CloseReason.SESSION_LOST)]
    assert scene.shows()


async def test_nonsense_of_a_server_ends_the_client_and_drops_the_session(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"q1\n")
    server.say(b"nonsense\n")
    assert wire.take() == b"fatal session_lost\n"
    assert scene.shows(closing=1)
    assert scene.pool.counters.drops[DropReason.PROTOCOL_ERROR] == 1


async def test_an_idle_session_that_says_something_fatal_is_not_handed_out(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    server.say(b"bye\n")
    assert scene.shows(closing=1)
    _, wire = scene.client()
    wire.say(b"q1\n")
    server.lose()
    await turns()
    assert scene.server is not server
    scene.server.say(b"Z\n")
    assert wire.take() == b"Z\n"


async def test_a_session_that_ends_right_behind_an_answer_goes_and_its_client_stays(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"q1\n")
    server.say(b"Z\nbye\n")
    assert wire.take() == b"Z\n"
    assert scene.shows(closing=1)
    assert scene.pool.counters.drops[DropReason.SERVER_FATAL] == 1
    server.lose()
    wire.say(b"q2\n")
    await turns()
    assert scene.server is not server
    scene.server.say(b"Z\n")
    assert wire.take() == b"Z\n"
    assert scene.ended == []


async def test_a_client_that_is_ended_twice_is_ended_once(make_scene: Make) -> None:
    scene = make_scene()
    await scene.warm()
    client, wire = scene.client()
    client.end(CloseReason.DRAIN)
    client.end(CloseReason.DRAIN_TIMEOUT)
    wire.lose()
    assert wire.written == b"fatal drain\n"
    assert scene.ended == [(1, CloseReason.DRAIN)]


# -- draining -------------------------------------------------------------------------------------


async def test_draining_ends_an_idle_client_at_once_and_a_busy_one_after_its_transaction(
    make_scene: Make,
) -> None:
    scene = make_scene()
    server = await scene.warm()
    idle, idle_wire = scene.client()
    busy, wire = scene.client()
    wire.say(b"b1\n")
    server.say(b"Z\n")
    for client in (idle, busy):
        client.drain()
    assert idle_wire.take() == b"fatal drain\n"
    wire.say(b"q1\n")
    server.say(b"Z\n")
    assert not wire.closed
    wire.say(b"e1\n")
    server.say(b"Z\n")
    assert wire.take().endswith(b"Z\nfatal drain\n")
    assert wire.closed
    assert scene.shows(idle=1)


async def test_draining_ends_a_client_with_a_session_of_its_own_when_its_query_is_done(
    make_scene: Make,
) -> None:
    scene = make_scene("session")
    server = await scene.warm()
    client, wire = scene.client(keeps=True)
    wire.say(b"q1\n")
    client.drain()
    assert not wire.closed
    server.say(b"Z\n")
    assert wire.closed
    await turns()
    assert server.take() == b"q1\nreset\n"
    server.say(b"ok\n")
    await turns()


@pytest.mark.parametrize("what", ["refused", "cancelled", "lost", "uncertain"])
async def test_draining_ends_a_client_whose_request_came_to_nothing(make_scene: Make, what: str) -> None:
    scene = make_scene(getmode=WAIT)
    server = await scene.warm()
    _, holder = scene.client()
    client, wire = scene.client(stray=what == "uncertain")
    if what in ("refused", "cancelled"):
        holder.say(b"q0\n")
    wire.say(b"q1\n")
    client.drain()
    if what == "refused":
        closing = asyncio.ensure_future(scene.pool.drain())
        await turns()
        server.say(b"Z\n")
        server.lose()
        await closing
    elif what == "cancelled":
        await client.cancel()
        server.say(b"Z\n")
    elif what == "lost":
        server.lose()
    else:
        server.say(b"Z\n")
    assert wire.take().endswith(b"fatal drain\n")
    assert wire.closed
