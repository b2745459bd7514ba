"""psycopg 3: connections, prepared statements, pipelines, cursors and COPY, in threads and in tasks."""

from typing import Any

import psycopg
import pytest

from integration.clients.crowd import Rows, in_tasks, in_threads, said, zone
from integration.looking import until
from servers import Penstock

pytestmark = pytest.mark.integration

# 5 is psycopg's own: from its sixth time on a query is prepared. None prepares nothing.
THRESHOLDS = [0, 5, None]
INSERT = "INSERT INTO rows_of_workers VALUES (%s, %s, %s)"


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_threads_with_prepare_threshold(penstock: Penstock, rows: Rows, threshold: int | None) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), prepare_threshold=threshold) as client:
            for turn in range(10):
                with client.transaction():
                    client.execute(INSERT, (number, turn, said(number, turn)))
                    own = "SELECT said FROM rows_of_workers WHERE worker = %s AND turn = %s"
                    found = client.execute(own, (number, turn), binary=bool(turn % 2)).fetchone()
                    assert found == (said(number, turn),)
                # The text is another one for each worker, but each calls its statement by the same name.
                assert client.execute(f"SELECT {number}, %s::int", (turn,)).fetchone() == (number, turn)
                client.commit()

    in_threads(work)
    rows.assert_complete(10)


def test_an_error_in_a_prepared_statement_leaves_it_prepared(penstock: Penstock) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=0) as client:
            for turn in range(6):
                with pytest.raises(psycopg.errors.DivisionByZero):
                    client.execute(f"SELECT {number} / %s::int", (0,))
                assert client.execute(f"SELECT {number} / %s::int", (1,)).fetchone() == (number,)
                assert client.execute("SELECT %s::text", (said(number, turn),)).fetchone() == (
                    said(number, turn),
                )

    in_threads(work)


def test_statements_that_psycopg_forgets_and_prepares_again(penstock: Penstock) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=0) as client:
            client.prepared_max = 3  # more than that are closed on the server, the oldest first
            for turn in range(24):
                column = turn % 8
                found = client.execute(f"SELECT {number} + %s AS c{column}", (turn,))
                assert found.fetchone() == (number + turn,)
                assert found.description is not None
                assert found.description[0].name == f"c{column}"

    in_threads(work)


def test_settings_of_a_client_stay_its_own(penstock: Penstock) -> None:
    def work(number: int) -> None:
        with psycopg.connect(
            penstock.dsn(application_name=f"worker-{number}"), autocommit=True, prepare_threshold=0
        ) as client:
            client.execute(f"SET TimeZone = '{zone(number)}'")
            for _ in range(5):
                assert client.execute("SHOW application_name").fetchone() == (f"worker-{number}",)
                assert client.execute("SHOW TimeZone").fetchone() == (zone(number),)
                with client.transaction():
                    client.execute("SET LOCAL search_path = pg_catalog")
                    assert client.execute("SHOW search_path").fetchone() == ("pg_catalog",)
                assert client.execute("SHOW search_path").fetchone() == ('"$user", public',)
            assert client.info.parameter_status("TimeZone") == zone(number)

    in_threads(work)


def test_the_search_path_of_a_client_stays_its_own(penstock: Penstock, server: Any) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=0) as client:
            client.execute(f"SET search_path = found_{number % 2}")
            for _ in range(5):
                # One text for all, but not one meaning: a plan goes by the search_path of its session.
                assert client.execute("SELECT a FROM table_of_a_path").fetchone() == (number % 2,)

    for half in range(2):
        server.execute(f"CREATE SCHEMA found_{half}")
        server.execute(f"CREATE TABLE found_{half}.table_of_a_path AS SELECT {half} AS a")
    try:
        in_threads(work)
    finally:
        for half in range(2):
            server.execute(f"DROP SCHEMA found_{half} CASCADE")


async def test_tasks(penstock: Penstock, rows: Rows) -> None:
    async def work(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(penstock.dsn(), prepare_threshold=2) as client:
            for turn in range(10):
                await client.execute(INSERT, (number, turn, said(number, turn)))
                cursor = await client.execute(
                    "SELECT count(*) FROM rows_of_workers WHERE worker = %s", (number,)
                )
                assert await cursor.fetchone() == (turn + 1,)
                await client.commit()
                cursor = await client.execute(f"SELECT {number}, %s::int", (turn,))
                assert await cursor.fetchone() == (number, turn)
                await client.rollback()

    await in_tasks(work)
    rows.assert_complete(10)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_pipelines(penstock: Penstock, rows: Rows, threshold: int | None) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=threshold) as client:
            for part in range(4):
                turns = range(part * 10, part * 10 + 10)
                with client.pipeline() as pipeline:
                    for turn in turns:
                        client.execute(INSERT, (number, turn, said(number, turn)))
                    # The insertions are one transaction up to here; these are the next one.
                    pipeline.sync()
                    own = "SELECT said FROM rows_of_workers WHERE worker = %s AND turn = %s"
                    cursors = [client.execute(own, (number, turn)) for turn in turns]
                    other = client.execute(f"SELECT {number}, %s::int", (part,))
                    assert [cursor.fetchone() for cursor in cursors] == [
                        (said(number, turn),) for turn in turns
                    ]
                    assert other.fetchone() == (number, part)

    in_threads(work)
    rows.assert_complete(40)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_pipelines_with_an_error_in_the_middle(penstock: Penstock, rows: Rows, threshold: int | None) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), autocommit=True, prepare_threshold=threshold) as client:
            for turn in range(4):
                # The error is raised by whatever psycopg is asked for when it comes.
                with pytest.raises(psycopg.errors.DivisionByZero):
                    _pipeline_that_fails(client, number, turn)
                after = client.execute(f"SELECT {number}, {turn} + %s::int AS skipped", (2,))
                assert after.fetchone() == (number, turn + 2)

    in_threads(work)
    rows.assert_complete(4)


def _pipeline_that_fails(client: psycopg.Connection[Any], number: int, turn: int) -> None:
    with client.pipeline() as pipeline:
        client.execute(INSERT, (number, turn, said(number, turn)))
        pipeline.sync()
        client.execute(f"SELECT {number} / %s::int", (0,))
        # The server skips this one, and it is the first time that its text is prepared.
        client.execute(f"SELECT {number}, {turn} + %s::int AS skipped", (1,))


async def test_pipelines_of_tasks(penstock: Penstock, rows: Rows) -> None:
    async def work(number: int) -> None:
        async with (
            await psycopg.AsyncConnection.connect(
                penstock.dsn(), autocommit=True, prepare_threshold=0
            ) as client,
            client.pipeline(),
            client.cursor() as cursor,
        ):
            await cursor.executemany(INSERT, [(number, turn, said(number, turn)) for turn in range(50)])
            await cursor.execute("SELECT count(*) FROM rows_of_workers WHERE worker = %s", (number,))
            assert await cursor.fetchone() == (50,)

    await in_tasks(work)
    rows.assert_complete(50)


@pytest.mark.parametrize("threshold", [0, None])
def test_server_cursors(penstock: Penstock, threshold: int | None) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), prepare_threshold=threshold) as client:
            for turn in range(3):
                with client.cursor("of_this_worker") as cursor:
                    cursor.itersize = 100
                    cursor.execute("SELECT %s::int * 1000 + n FROM generate_series(1, 250) n", (number,))
                    found = [row[0] for row in cursor]
                assert found == [number * 1000 + n for n in range(1, 251)]
                with client.cursor("scrolling", scrollable=True) as cursor:
                    cursor.execute(f"SELECT {number} + n FROM generate_series(1, 50) n")
                    cursor.scroll(turn)
                    assert cursor.fetchone() == (number + turn + 1,)
                client.commit()

    in_threads(work)


def test_copy_both_ways(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        with psycopg.connect(penstock.dsn(), prepare_threshold=0) as client, client.cursor() as cursor:
            with cursor.copy("COPY rows_of_workers FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "int4", "text"])
                for turn in range(300):
                    copy.write_row((number, turn, said(number, turn)))
            client.commit()
            own = "SELECT turn, said FROM rows_of_workers WHERE worker = %s ORDER BY turn"
            with cursor.copy(f"COPY ({own}) TO STDOUT", (number,)) as copy:
                copy.set_types(["int4", "text"])
                assert list(copy.rows()) == [(turn, said(number, turn)) for turn in range(300)]
            with pytest.raises(psycopg.errors.UniqueViolation), client.transaction():
                _copy_again(client, number)
            assert client.execute("SELECT %s::int", (number,)).fetchone() == (number,)

    in_threads(work)
    rows.assert_complete(300)


def _copy_again(client: psycopg.Connection[Any], number: int) -> None:
    with client.cursor().copy("COPY rows_of_workers FROM STDIN") as copy:
        copy.write_row((number, 0, "there is one already"))


def test_notifications_are_heard(penstock: Penstock) -> None:
    heard: list[tuple[str, str]] = []
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute("LISTEN news_for_psycopg")
        client.add_notify_handler(lambda notify: heard.append((notify.channel, notify.payload)))

        def work(number: int) -> None:
            with psycopg.connect(penstock.dsn(), autocommit=True) as other:
                other.execute("SELECT pg_notify('news_for_psycopg', %s)", (said(number, 0),))

        in_threads(work)
        until(lambda: client.execute("SELECT 1") and len(heard) >= 20, "20 notifications")
        client.execute("UNLISTEN news_for_psycopg")
    assert sorted(heard) == sorted(("news_for_psycopg", said(number, 0)) for number in range(20))
