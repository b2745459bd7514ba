"""Each preset with a real client, and the size of the pool that the client's ancestor would have."""

from collections.abc import Callable

import psycopg
import pytest

from integration.looking import until, wait_for
from proxy.settings.presets import PRESETS
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]

# What is open once two clients have come and gone, with max = 3 (and min = 2 where that is another matter).
LEFT = {
    "oracle": 2,
    "cx_oracle": 2,
    "bursty": 2,
    "fixed": 3,
    "fixed_v3_51": 3,
    "pinging": 3,
    "transaction_pinging": 3,
    "generic": 2,
    "psycopg2": 2,
    "psycopg2_persistent": 2,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_serves_clients_and_keeps_what_its_ancestor_keeps(make_proxy: Make, preset: str) -> None:
    sizes = {"max": 3} if LEFT[preset] == 3 or preset in ("bursty", "generic") else {"min": 2, "max": 3}
    penstock = make_proxy(preset=preset, **sizes)
    with psycopg.connect(penstock.dsn()) as first, psycopg.connect(penstock.dsn()) as second:
        for client in (first, second):
            with client.transaction():
                assert client.execute("SELECT 1").fetchone() == (1,)
        with first.transaction(), second.transaction():
            pids = [client.execute("SELECT pg_backend_pid()").fetchone() for client in (first, second)]
            assert pids[0] != pids[1]
    until(lambda: wait_for(penstock, busy=0, opening=0, opened=LEFT[preset]))
