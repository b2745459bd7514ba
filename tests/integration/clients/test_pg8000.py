"""pg8000, written in Python alone: its native interface, which prepares, and its DB-API in threads."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pg8000.dbapi
import pg8000.native
import pytest

from integration.clients.crowd import WORKERS, Rows, in_threads, said, zone
from integration.looking import until
from servers import Penstock

pytestmark = pytest.mark.integration


def login(penstock: Penstock) -> dict[str, Any]:
    server = penstock.server
    return {
        "host": "127.0.0.1",
        "port": penstock.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
    }


@contextmanager
def native(penstock: Penstock) -> Iterator[pg8000.native.Connection]:
    client = pg8000.native.Connection(**login(penstock))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def connected(penstock: Penstock) -> Iterator[Any]:
    client = pg8000.dbapi.connect(**login(penstock))
    try:
        yield client
    finally:
        client.close()


def test_prepared_statements(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        with native(penstock) as client:
            # One name for every worker's first statement, one for the second: pg8000 counts them.
            own = client.prepare(f"SELECT {number}, :turn ::int")
            insert = client.prepare("INSERT INTO rows_of_workers VALUES (:worker, :turn, :said)")
            for turn in range(10):
                assert own.run(turn=turn) == [[number, turn]]
                insert.run(worker=number, turn=turn, said=said(number, turn))
            own.close()
            again = client.prepare(f"SELECT :turn ::int, {number}")
            assert again.run(turn=7) == [[7, number]]
            insert.close()
            again.close()

    in_threads(work)
    rows.assert_complete(10)


def test_transactions_and_errors(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        with connected(penstock) as client:
            cursor = client.cursor()
            insert = "INSERT INTO rows_of_workers VALUES (%s, %s, %s)"
            for turn in range(10):
                cursor.execute(insert, (number, turn, said(number, turn)))
                client.commit()
                with pytest.raises(pg8000.dbapi.DatabaseError) as caught:
                    cursor.execute(insert, (number, turn, ""))
                assert caught.value.args[0]["C"] == "23505"
                client.rollback()
                cursor.execute("SELECT max(turn) FROM rows_of_workers WHERE worker = %s", (number,))
                assert cursor.fetchall() == ([turn],)
                client.rollback()

    in_threads(work)
    rows.assert_complete(10)


def test_copy_both_ways(penstock: Penstock, rows: Rows) -> None:
    def work(number: int) -> None:
        text = "".join(f"{number}\t{turn}\t{said(number, turn)}\n" for turn in range(200)).encode()
        with connected(penstock) as client:
            cursor = client.cursor()
            cursor.execute("COPY rows_of_workers FROM STDIN", stream=io.BytesIO(text))
            out = io.BytesIO()
            own = f"SELECT * FROM rows_of_workers WHERE worker = {number} ORDER BY turn"
            cursor.execute(f"COPY ({own}) TO STDOUT", stream=out)
            assert out.getvalue() == text
            client.commit()

    in_threads(work)
    rows.assert_complete(200)


def test_settings_of_a_client_stay_its_own(penstock: Penstock) -> None:
    def work(number: int) -> None:
        with native(penstock) as client:
            client.run(f"SET TimeZone = '{zone(number)}'")
            for _ in range(5):
                assert client.run("SHOW TimeZone") == [[zone(number)]]
            assert client.parameter_statuses["TimeZone"] == zone(number)

    in_threads(work)


def test_notifications_are_heard(penstock: Penstock) -> None:
    with native(penstock) as client:
        client.run("LISTEN news_for_pg8000")

        def work(number: int) -> None:
            with native(penstock) as other:
                # pg8000 takes in nothing but ASCII here.
                other.run("SELECT pg_notify('news_for_pg8000', :said)", said=f"worker {number}")

        in_threads(work)
        # pg8000 takes notifications in when it reads an answer.
        until(lambda: client.run("SELECT 1") and len(client.notifications) >= WORKERS, "20 notifications")
        assert sorted(payload for _, _, payload in client.notifications) == sorted(
            f"worker {number}" for number in range(WORKERS)
        )
        client.run("UNLISTEN *")
