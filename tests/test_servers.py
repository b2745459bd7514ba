"""What other tests rely on: Penstock as a process, reached over TCP and unix socket, seen over HTTP."""

from collections.abc import Callable

import psycopg
import pytest

from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration


def test_a_client_gets_through_over_tcp_and_unix_socket(penstock: Penstock) -> None:
    for address in (penstock.dsn(), penstock.socket_dsn(), penstock.dsn(application_name="a test")):
        with psycopg.connect(address) as client:
            assert client.execute("SELECT current_user").fetchone() == ("app",)


def test_what_went_on_is_seen_from_outside(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn()) as client:
        client.execute("SELECT 1")
    assert penstock.http("/readyz").status == 200
    assert penstock.http("/nowhere").status == 404
    assert penstock.pools()[0]["max"] == 4
    assert penstock.metric("penstock_pool_limit", pool="app", bound="max") == 4
    assert penstock.metric("penstock_queries_total", pool="app") >= 1
    assert penstock.events("client_connected")


def test_its_exit_code_and_log_are_at_hand(penstock: Penstock) -> None:
    assert penstock.stop() == 0
    assert penstock.events("daemon_stopped")
    penstock.start()
    with psycopg.connect(penstock.dsn()) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert penstock.stop() == 0


def test_a_configuration_of_one_s_own_may_be_wrong(make_proxy: Callable[..., Penstock]) -> None:
    penstock = make_proxy("nonsense = true\n", wait=False)
    penstock.checked = False
    assert penstock.wait() == 78
    assert "nonsense" in "\n".join(penstock.log)


@pytest.mark.tls
def test_the_server_behind_it_may_be_another(
    make_proxy: Callable[..., Penstock], debian_postgres: EmbeddedPostgres
) -> None:
    penstock = make_proxy(server=debian_postgres)
    with psycopg.connect(penstock.dsn()) as client:
        row = client.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone()
        assert row is not None
        assert row[0] < 18
