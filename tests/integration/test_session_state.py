"""What a client has set is its own on every session, and nobody else's, where sessions change hands."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, directly
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
Connection = psycopg.Connection[Any]


@pytest.fixture(params=["postgres", "debian_postgres"], ids=["18", "15"])
def either(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    """PostgreSQL 18, which reports search_path, and 15, which does not."""
    server: EmbeddedPostgres = request.getfixturevalue(request.param)
    return server


@contextmanager
def connected(penstock: Penstock, **more: Any) -> Iterator[Connection]:
    connection: Connection
    with psycopg.connect(penstock.dsn(), autocommit=True, **more) as connection:
        yield connection


def shown(client: Connection, name: str) -> str:
    row = client.execute(f"SELECT current_setting('{name}', true)").fetchone()
    assert row is not None
    return str(row[0])


def pid(client: Connection) -> int:
    row = client.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


class Elsewhere:
    """Two clients of a pool of two sessions: while ``holder`` is in a transaction, the other moves."""

    def __init__(self, client: Connection, holder: Connection) -> None:
        self.client = client
        self.holder = holder

    def both(self, name: str) -> tuple[str, str]:
        """The setting on either session."""
        here, on = shown(self.client, name), pid(self.client)
        with self.holder.transaction():
            assert pid(self.holder) == on
            there = shown(self.client, name)
            assert pid(self.client) != on
        return here, there


@contextmanager
def elsewhere(penstock: Penstock, **more: Any) -> Iterator[Elsewhere]:
    with connected(penstock, **more) as client, connected(penstock) as holder:
        yield Elsewhere(client, holder)


def test_what_is_set_follows_its_client(make_proxy: Make, either: EmbeddedPostgres) -> None:
    penstock = make_proxy(server=either, max=2)
    with elsewhere(penstock) as place:
        client = place.client
        for name, value in (("search_path", "pg_catalog"), ("statement_timeout", "12345ms")):
            default = shown(place.holder, name)
            client.execute(f"SET {name} = '{value}'")
            assert place.both(name) == (value, value)
            assert shown(place.holder, name) == default
            client.execute(f"SET LOCAL {name} = DEFAULT")
            assert place.both(name) == (value, value)
            client.execute(f"BEGIN; SET {name} TO '1'; ROLLBACK")
            assert place.both(name) == (value, value)
            with client.transaction():
                client.execute(f"SET LOCAL {name} = '2'")
            assert place.both(name) == (value, value)
            client.execute(f"RESET {name}")
            assert place.both(name) == (default, default)
            client.execute(f"SELECT set_config('{name}', '17', false)")
            assert place.both(name)[0] == place.both(name)[1] != default
            client.execute("SELECT set_config(%s, '18', true)", [name])
            client.execute(f"SET {name} = DEFAULT")
            assert place.both(name) == (default, default)
    at_rest(penstock)


def test_default_is_what_the_client_asked_for_at_its_login(
    make_proxy: Make, either: EmbeddedPostgres
) -> None:
    penstock = make_proxy(server=either, max=2)
    options = "-c search_path=pg_catalog -c TimeZone=Asia/Tokyo -c work_mem=5MB"
    with elsewhere(penstock, options=options) as place:
        client = place.client
        for name, login, other in (
            ("search_path", "pg_catalog", "public"),
            ("TimeZone", "Asia/Tokyo", "UTC"),
            ("work_mem", "5MB", "7MB"),
        ):
            for end in (f"SET {name} TO DEFAULT", f"RESET {name}", "RESET ALL", "DISCARD ALL"):
                client.execute(f"SET {name} = '{other}'")
                assert place.both(name) == (other, other)
                client.execute(end, prepare=False)
                assert place.both(name) == (login, login), end
        client.execute("SET TIME ZONE 'Europe/Paris'; SET SCHEMA 'public'")
        assert place.both("TimeZone") == ("Europe/Paris", "Europe/Paris")
        assert place.both("search_path") == ("public", "public")
        client.execute("RESET TimeZone")
        assert place.both("search_path") == ("public", "public")


def test_what_is_not_followed_is_undone(make_proxy: Make, either: EmbeddedPostgres) -> None:
    penstock = make_proxy(server=either, max=1)
    with connected(penstock) as client, connected(penstock) as other:
        client.execute("SET app.tenant = '7'")
        client.execute(
            "SELECT set_config('app.user', 'ann', false), set_config('enable_seqscan', 'off', false)"
        )
        assert shown(other, "app.tenant") in ("", "None")
        assert shown(other, "app.user") in ("", "None")
        assert shown(other, "enable_seqscan") == "on"


def test_more_can_be_followed(make_proxy: Make, either: EmbeddedPostgres) -> None:
    penstock = make_proxy(server=either, max=2, track_parameters=["app.tenant", "role"])
    with directly(either) as own:
        own.execute("DROP ROLE IF EXISTS other")
        own.execute("CREATE ROLE other")
    with elsewhere(penstock) as place:
        place.client.execute("SET app.tenant = '7'")
        place.client.execute("SET ROLE other")
        assert place.both("app.tenant") == ("7", "7")
        assert place.both("role") == ("other", "other")
        assert shown(place.holder, "role") == "none"
        place.client.execute("RESET ROLE")
        place.client.execute("RESET app.tenant")
        assert place.both("role") == ("none", "none")
        assert place.both("app.tenant")[0] in ("", "None")
    with directly(either) as own:
        own.execute("DROP ROLE other")


def test_everything_can_be_followed(make_proxy: Make, postgres: EmbeddedPostgres) -> None:
    penstock = make_proxy(max=2, track_parameters=["*"], session_init="SET enable_hashjoin = off")
    with elsewhere(penstock) as place:
        place.client.execute("SET app.tenant = '7'")
        place.client.execute("SELECT set_config('enable_seqscan', 'off', false)")
        assert place.both("app.tenant") == ("7", "7")
        assert place.both("enable_seqscan") == ("off", "off")
        assert place.both("enable_hashjoin") == ("off", "off")
        assert shown(place.holder, "enable_seqscan") == "on"
        assert shown(place.holder, "enable_hashjoin") == "off"


async def test_settings_by_the_extended_protocol(make_proxy: Make, debian_postgres: EmbeddedPostgres) -> None:
    penstock = make_proxy(server=debian_postgres, max=2)
    clients = [
        await asyncpg.connect(penstock.dsn(), statement_cache_size=size, ssl=False) for size in (0, 100) * 2
    ]
    paths = [f"schema{number}" for number, _ in enumerate(clients)]
    for client, path in zip(clients, paths, strict=True):
        await client.fetchval("SELECT set_config('search_path', $1, false)", path)

    async def work(client: Any, path: str) -> None:
        for _ in range(10):
            assert await client.fetchval("SELECT current_setting('search_path')") == path

    await asyncio.gather(*map(work, clients, paths))
    for client in clients:
        await client.close()
