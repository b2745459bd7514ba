"""psycopg2: simple queries in threads, named cursors, COPY, autocommit, and notifications."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extras
import pytest

from integration.clients.crowd import WORKERS, Rows, in_threads, said, zone
from integration.looking import until
from servers import Penstock

pytestmark = pytest.mark.integration


@contextmanager
def connected(penstock: Penstock, *, autocommit: bool = False) -> Iterator[Any]:
    """A connection that is closed at the end; psycopg2's own ``with`` only ends the transaction."""
    client = psycopg2.connect(penstock.dsn())
    try:
        # By the property, not by set_session(): that would ask the server.
        client.autocommit = autocommit
        yield client
    finally:
        client.close()


def test_transactions_and_errors(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        with connected(penstock) as client:
            for turn in range(10):
                with client, client.cursor() as cursor:
                    cursor.execute(
                        "INSERT INTO rows_of_workers VALUES (%s, %s, %s)", (number, turn, said(number, turn))
                    )
                    cursor.execute("SELECT max(turn) FROM rows_of_workers WHERE worker = %s", (number,))
                    assert cursor.fetchall() == [(turn,)]
                with pytest.raises(psycopg2.errors.UniqueViolation), client, client.cursor() as cursor:
                    cursor.execute("INSERT INTO rows_of_workers VALUES (%s, %s)", (number, turn))

    in_threads(work)
    rows.assert_complete(10)


def test_many_rows_at_a_time(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        with connected(penstock) as client, client, client.cursor() as cursor:
            psycopg2.extras.execute_values(
                cursor,
                "INSERT INTO rows_of_workers VALUES %s",
                [(number, turn, said(number, turn)) for turn in range(100)],
            )
            psycopg2.extras.execute_batch(
                cursor,
                "INSERT INTO rows_of_workers VALUES (%s, %s, %s)",
                [(number, turn, said(number, turn)) for turn in range(100, 150)],
            )

    in_threads(work)
    rows.assert_complete(150)


def test_named_cursors(penstock: Penstock) -> None:
    def work(number: int) -> None:
        with connected(penstock) as client:
            for _ in range(3):
                with client, client.cursor("of_this_worker") as cursor:
                    cursor.itersize = 100
                    cursor.execute("SELECT %s * 1000 + n FROM generate_series(1, 250) n", (number,))
                    assert [row[0] for row in cursor] == [number * 1000 + n for n in range(1, 251)]

    in_threads(work)


def test_a_cursor_that_outlives_its_transaction(penstock: Penstock) -> None:
    with connected(penstock) as client, client.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT generate_series(1, 100)")
        client.commit()
        assert [row[0] for row in cursor] == list(range(1, 101))


def test_copy_both_ways(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        text = "".join(f"{number}\t{turn}\t{said(number, turn)}\n" for turn in range(500))
        with connected(penstock) as client, client, client.cursor() as cursor:
            cursor.copy_expert("COPY rows_of_workers FROM STDIN", io.StringIO(text))
            out = io.StringIO()
            cursor.copy_expert(
                f"COPY (SELECT * FROM rows_of_workers WHERE worker = {number} ORDER BY turn) TO STDOUT", out
            )
            assert out.getvalue() == text

    in_threads(work)
    rows.assert_complete(500)


def test_settings_of_a_client_stay_its_own(penstock: Penstock) -> None:
    def work(number: int) -> None:
        with connected(penstock, autocommit=True) as client, client.cursor() as cursor:
            cursor.execute("SET TimeZone = %s", (zone(number),))
            cursor.execute("SET application_name = %s", (f"worker-{number}",))
            for _ in range(5):
                cursor.execute("SHOW TimeZone")
                assert cursor.fetchall() == [(zone(number),)]
                cursor.execute("SELECT current_setting('application_name')")
                assert cursor.fetchall() == [(f"worker-{number}",)]
            assert client.get_parameter_status("TimeZone") == zone(number)

    in_threads(work)


def test_isolation_levels(penstock: Penstock) -> None:
    def work(number: int) -> None:
        levels = ("read committed", "repeatable read", "serializable")
        level = levels[number % 3]
        client = psycopg2.connect(penstock.dsn())
        try:
            client.set_session(isolation_level=level, readonly=bool(number % 2))
            for _ in range(5):
                with client, client.cursor() as cursor:
                    cursor.execute("SHOW transaction_isolation")
                    assert cursor.fetchall() == [(level,)]
                    cursor.execute("SHOW transaction_read_only")
                    assert cursor.fetchall() == [("on" if number % 2 else "off",)]
        finally:
            client.close()

    in_threads(work)


def test_notifications_are_heard(penstock: Penstock) -> None:
    with connected(penstock, autocommit=True) as client, client.cursor() as cursor:
        cursor.execute("LISTEN news_for_psycopg2")

        def work(number: int) -> None:
            with connected(penstock) as other, other, other.cursor() as speaker:
                speaker.execute("SELECT pg_notify('news_for_psycopg2', %s)", (said(number, 0),))

        in_threads(work)

        def heard() -> bool:
            client.poll()
            return len(client.notifies) >= WORKERS

        until(heard, "20 notifications")
        assert sorted(note.payload for note in client.notifies) == sorted(
            said(number, 0) for number in range(WORKERS)
        )
        cursor.execute("UNLISTEN *")
