"""LISTEN where sessions change hands: every client hears what it would on a connection of its own, once."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, directly, pool_of, reset_on_close, run, trusting, until
from integration.raw import Raw
from servers import Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
Connection = psycopg.Connection[Any]


@contextmanager
def connected(dsn: str, **more: Any) -> Iterator[Connection]:
    connection: Connection
    with psycopg.connect(dsn, autocommit=True, **more) as connection:
        yield connection


def heard(client: Connection, most: int, patience: float = 10.0) -> list[tuple[str, str]]:
    """So many notifications, as (channel, payload); fewer where no more came."""
    return [(note.channel, note.payload) for note in client.notifies(timeout=patience, stop_after=most)]


def nothing_more(client: Connection) -> None:
    """What the client has not been told by now it will not be told."""
    assert heard(client, 1, 0.1) == []


def hubs(penstock: Penstock, pool: str = "app") -> int:
    """Sessions that listen."""
    page = penstock.http(f"/api/v1/pools/{quote(pool)}/holders")
    return sum(1 for holder in page.json()["holders"] if holder["state"] == "listen")


def noted(client: Connection) -> list[str]:
    """What it is told besides answers."""
    notices: list[str] = []
    client.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    return notices


def kill_all(server: Connection) -> None:
    """End all sessions but those of the tests."""
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name <> 'the tests' AND backend_type = 'client backend'"
    )


def test_twenty_clients_listen_on_two_sessions(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=2)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(penstock.dsn())) for _ in range(20)]
        for number, client in enumerate(clients):
            client.execute(f"LISTEN all_of_us; LISTEN only_{number % 4}")
        assert pool_of(penstock)["opened"] <= 2
        server.execute("NOTIFY all_of_us, 'from outside'")
        clients[3].execute("NOTIFY all_of_us, 'from one of them'")
        server.execute("NOTIFY only_2")
        server.execute("NOTIFY nobody")
        for number, client in enumerate(clients):
            wanted = [("all_of_us", "from outside"), ("all_of_us", "from one of them")]
            wanted += [("only_2", "")] if number % 4 == 2 else []
            assert heard(client, len(wanted)) == wanted
            assert client.execute("SELECT 1").fetchone() == (1,)
        nothing_more(clients[0])
        assert penstock.metric("penstock_pool_listening_clients", pool="app") == 20
        assert penstock.metric("penstock_pool_listening_channels", pool="app") == 5
        assert penstock.metric("penstock_notifications_total", pool="app") == 45
    at_rest(penstock)
    assert penstock.metric("penstock_pool_listening_clients", pool="app") == 0
    assert penstock.metric("penstock_pool_listening_channels", pool="app") == 0


@pytest.mark.parametrize("version", ["postgres", "debian_postgres"])
def test_no_notification_is_lost_or_told_twice_while_clients_come(
    make_proxy: Make, version: str, request: pytest.FixtureRequest
) -> None:
    """Somebody counts aloud all the time; each client hears an unbroken row from its LISTEN on."""
    postgres = request.getfixturevalue(version)
    penstock = make_proxy(server=postgres, max=3)
    said, stop = [0], threading.Event()

    def count(server: Connection) -> None:
        while not stop.is_set():
            server.execute(f"NOTIFY row, '{said[0] + 1}'")
            said[0] += 1

    with directly(postgres) as server, ExitStack() as stack:
        counting = threading.Thread(target=count, args=(server,))
        counting.start()
        clients: list[tuple[Connection, int]] = []
        try:
            for _ in range(15):
                client = stack.enter_context(connected(penstock.dsn()))
                client.execute("LISTEN row")
                clients.append((client, said[0] + 1))
            begun = said[0]
            until(lambda: said[0] > max(100, begun + 5))  # the last of them hears some, too
        finally:
            stop.set()
            counting.join()
        last = said[0]
        server.execute("NOTIFY row, 'end'")
        for client, promised in clients:
            row: list[str] = []
            for note in client.notifies(timeout=10):
                if note.payload == "end":
                    break
                row.append(note.payload)
            assert row == [str(number) for number in range(int(row[0]), last + 1)]
            assert int(row[0]) <= promised + 1
        nothing_more(clients[-1][0])


def test_listen_and_unlisten_follow_their_transaction(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=3)
    with connected(penstock.dsn()) as client, connected(penstock.dsn()) as other:
        with client.transaction():
            client.execute("LISTEN kept")
        with client.transaction(force_rollback=True):
            client.execute("LISTEN undone")
        server.execute("NOTIFY undone")
        server.execute("NOTIFY kept, '1'")
        assert heard(client, 2, 0.3) == [("kept", "1")]
        with client.transaction(force_rollback=True):
            client.execute("UNLISTEN kept")
        with client.transaction():
            client.execute("SELECT 1")
            server.execute("NOTIFY kept, '2'")
            other.execute("SELECT 1")  # so that the hub has surely heard it
            assert heard(client, 1, 0.1) == [], "a notification was told inside a transaction"
        assert heard(client, 1) == [("kept", "2")]
        client.execute('LISTEN "Quoted ""Name"""')
        client.execute("SELECT pg_notify('Quoted \"Name\"', 'me')")
        assert heard(client, 1) == [('Quoted "Name"', "me")]
        with client.transaction(force_rollback=True):
            client.execute("SELECT 1")  # which has nothing to do with the next UNLISTEN
        client.execute("UNLISTEN KEPT", prepare=True)
        server.execute("NOTIFY kept, '3'")
        nothing_more(client)
        client.execute('UNLISTEN "Quoted ""Name"""')
        client.execute("LISTEN a; LISTEN b")
        client.execute("DISCARD ALL")
        server.execute("NOTIFY a")
        nothing_more(client)
        assert other.execute("SELECT * FROM pg_listening_channels()").fetchall() == []


def test_who_does_not_listen_hears_nothing(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=1)
    with connected(penstock.dsn()) as quiet, connected(penstock.dsn()) as listener:
        listener.execute("LISTEN gossip")  # there is no session to spare: it keeps this one
        server.execute("NOTIFY gossip, 'a'")
        assert heard(listener, 1) == [("gossip", "a")]
        listener.execute("UNLISTEN gossip")
        assert quiet.execute("SELECT 1").fetchone() == (1,)
        server.execute("NOTIFY gossip, 'b'")
        quiet.execute("SELECT 1")
        nothing_more(quiet)
    at_rest(penstock)


def test_a_hub_that_is_killed_takes_its_clients_with_it(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=2)
    with connected(penstock.dsn()) as client:
        notices = noted(client)
        client.execute("LISTEN fate")
        until(lambda: hubs(penstock) == 1)
        kill_all(server)
        with pytest.raises(psycopg.OperationalError):
            heard(client, 1)
        assert "the session that listened for this client was lost" in notices[0]  # so libpq has it when idle
    assert penstock.events("client_closed")[-1]["reason"] == "listen_lost"


def test_with_keep_clients_get_another_hub_and_a_warning(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=2, listen_lost="keep")
    with connected(penstock.dsn()) as client:
        notices = noted(client)
        client.execute("LISTEN fate")
        until(lambda: hubs(penstock) == 1)
        kill_all(server)
        until(lambda: heard(client, 1, 0.05) == [] and notices)
        server.execute("NOTIFY fate, 'still here'")
        assert heard(client, 1) == [("fate", "still here")]
        assert notices == ["notifications may have been lost"]


def test_clients_that_vanish_give_their_channels_back(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(trusting(), max=2)
    lost = Raw.logged_in(penstock.port)
    with connected(penstock.dsn()) as client:
        client.execute("LISTEN here")
        lost.ask("LISTEN here; LISTEN there")
        until(lambda: penstock.metric("penstock_pool_listening_channels", pool="app") == 2)
        reset_on_close(lost.sock)
        lost.sock.close()
        until(lambda: penstock.metric("penstock_pool_listening_channels", pool="app") == 1)
        server.execute("NOTIFY here")
        assert heard(client, 1) == [("here", "")]
    at_rest(penstock)


def test_users_and_databases_do_not_hear_each_other(make_proxy: Make, server: Connection) -> None:
    server.execute("CREATE DATABASE listen_elsewhere")
    server.execute("CREATE ROLE listen_else LOGIN PASSWORD 'else'")
    try:
        penstock = make_proxy(TEXT, max=4)
        with (
            connected(penstock.dsn()) as here,
            connected(penstock.dsn(database="listen_elsewhere")) as there,
            connected(penstock.dsn(user="listen_else", password="else")) as else_user,
        ):
            for client in (here, there, else_user):
                client.execute("LISTEN news")
            there.execute("NOTIFY news, 'elsewhere'")
            else_user.execute("NOTIFY news, 'here'")
            assert heard(here, 2, 0.3) == [("news", "here")]
            assert heard(else_user, 2, 0.3) == [("news", "here")]
            assert heard(there, 2, 0.3) == [("news", "elsewhere")]
            assert hubs(penstock) == 2
            assert hubs(penstock, "*") == 1
    finally:
        server.execute("DROP DATABASE listen_elsewhere WITH (FORCE)")
        server.execute("DROP ROLE listen_else")


TEXT = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"

[users.listen_else]
password = "else"

[pools.app]
backend = "$backend"
$pool

[pools."*"]
backend = "$backend"

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
"""


async def test_asyncpg_adds_and_removes_listeners(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=2)
    clients = [await asyncpg.connect(penstock.dsn()) for _ in range(5)]
    got: list[tuple[int, str, str]] = []
    arrived = asyncio.Event()

    def note(number: int) -> Callable[..., None]:
        def noted(_connection: Any, _pid: int, channel: str, payload: str) -> None:
            got.append((number, channel, payload))
            arrived.set()

        return noted

    listeners = [note(number) for number in range(5)]
    for client, listener in zip(clients, listeners, strict=True):
        await client.add_listener("async", listener)
    await asyncio.to_thread(server.execute, "NOTIFY async, 'one'")
    async with asyncio.timeout(10):
        while len(got) < 5:
            arrived.clear()
            await arrived.wait()
    assert sorted(got) == [(number, "async", "one") for number in range(5)]
    got.clear()
    arrived.clear()
    for client, listener in list(zip(clients, listeners, strict=True))[1:]:
        await client.remove_listener("async", listener)
    await clients[4].execute("SELECT pg_notify('async', $1)", "two")
    async with asyncio.timeout(10):
        await arrived.wait()
    assert await clients[4].fetchval("SELECT 1") == 1
    assert got == [(0, "async", "two")]
    for client in clients:
        await client.close()


async def test_psycopg_async(make_proxy: Make, server: Connection) -> None:
    penstock = make_proxy(max=2)
    client = await psycopg.AsyncConnection.connect(penstock.dsn(), autocommit=True)
    async with client:
        await client.execute("LISTEN ahead")
        await asyncio.to_thread(server.execute, "NOTIFY ahead, 'x'")
        async for note in client.notifies(timeout=10, stop_after=1):
            assert (note.channel, note.payload) == ("ahead", "x")


def test_psql_shows_notifications(make_proxy: Make, server: Connection) -> None:
    psql = shutil.which("psql") or lacking("there is no psql (apt-get install postgresql-client)")
    penstock = make_proxy(max=2)
    done = run(
        psql, "-X", penstock.dsn(), text="LISTEN shell;\nNOTIFY shell, 'word';\nSELECT pg_sleep(0.3);\n"
    )
    assert done.returncode == 0, done.stderr
    assert 'Asynchronous notification "shell" with payload "word" received' in done.stdout


def test_whoever_does_not_read_is_let_go_and_holds_nobody_up(make_proxy: Make, server: Connection) -> None:
    # More than one burst: whoever reads is never as far behind, however slow the machine is.
    penstock = make_proxy(trusting(), max=2, listen_backlog=1_048_576)
    stuck = Raw.logged_in(penstock.port)
    with connected(penstock.dsn()) as client:
        stuck.ask("LISTEN flood")
        client.execute("LISTEN flood")
        for _ in range(40):
            server.execute("SELECT pg_notify('flood', n || repeat('x', 7900)) FROM generate_series(1, 100) n")
            assert len(heard(client, 100)) == 100
            if penstock.events("client_closed"):
                break
        until(lambda: any(event["reason"] == "listen_backlog" for event in penstock.events("client_closed")))
        server.execute("NOTIFY flood, 'end'")
        assert heard(client, 1) == [("flood", "end")]
    stuck.sock.close()
