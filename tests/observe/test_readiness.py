from typing import Any

from proxy.observe.readiness import is_full, one_line, unready, why_down


def test_a_daemon_that_is_ready_has_nothing_to_say(daemon: Any) -> None:
    assert daemon.stats.ready
    assert unready(daemon.stats) == []


def test_each_thing_that_is_not_ready_is_named(daemon: Any) -> None:
    daemon.change(draining=True, bound=False)
    daemon.change_pool(ready=False, last_error="no route to db.internal")
    assert unready(daemon.stats) == [
        "draining",
        "not every listener is bound",
        "pool app: latest open failed: no route to db.internal",
    ]


def test_a_pool_that_never_opened_a_session_says_so(daemon: Any) -> None:
    daemon.change_pool(ready=False)
    assert why_down(daemon.stats.pools[0]) == "no session has been opened yet"


def test_the_list_of_reasons_is_empty_exactly_when_the_snapshot_is_ready(daemon: Any) -> None:
    for draining in (False, True):
        for bound in (False, True):
            for ready in (False, True):
                daemon.change(draining=draining, bound=bound)
                daemon.change_pool(ready=ready)
                assert daemon.stats.ready == (not unready(daemon.stats))


def test_a_pool_is_full_when_all_slots_are_taken_and_none_is_idle(daemon: Any) -> None:
    cases = [
        ({"opened": 10, "busy": 10, "idle": 0}, True),
        ({"opened": 8, "busy": 8, "idle": 0, "closing": 2}, True),
        ({"opened": 9, "busy": 9, "idle": 0, "opening": 1}, True),
        ({"opened": 10, "busy": 9, "idle": 1}, False),
        ({"opened": 9, "busy": 9, "idle": 0}, False),
    ]
    for counts, full in cases:
        daemon.change_pool(**{"opening": 0, "closing": 0, "max": 10} | counts)
        assert is_full(daemon.stats.pools[0]) is full


def test_text_from_a_server_stays_on_one_line_and_short() -> None:
    assert one_line("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    assert one_line("plain, mit Umläuten") == "plain, mit Umläuten"
    assert len(one_line("x" * 10_000)) == 256
    assert len(one_line("\n" * 10_000)) == 256
