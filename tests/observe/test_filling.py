from typing import Any

from proxy.observe.readiness import unfilled


def test_a_pool_that_listeners_wait_for_is_named_with_what_it_has(daemon: Any) -> None:
    daemon.change_pool(opened=2, min=5)
    assert unfilled(daemon.stats) == []
    daemon.change(filling=("app",), bound=False)
    assert unfilled(daemon.stats) == ["pool app: 2 of 5 sessions are open, and prefill is eager"]
