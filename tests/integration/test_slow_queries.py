"""Queries that took long, who asked them, and what a pool counts of all of them."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, pool_of, trusting, until
from integration.raw import EXECUTE, SYNC, Raw, bind, parse, query
from servers import Penstock

Make = Callable[..., Penstock]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMMENT = f"/*application='shop',route='%2Fcart',traceparent='{PARENT}'*/"


def test_a_slow_query_is_logged_with_its_traceparent_and_without_its_literals(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, log_min_duration="100ms")
    with psycopg.connect(penstock.dsn(application_name="till"), autocommit=True) as client:
        client.execute("SELECT 'quick'")
        client.execute(f"SELECT 'topsecret', pg_sleep(0.2), 4711 {COMMENT}")
        # A prepared statement, whose text is not sent again.
        for wait in (0.2, 0.2):
            client.execute("SELECT pg_sleep(%s)", (wait,), prepare=True)
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("SELECT pg_sleep(0.2), 1 / (random() * 0)::int")
    events = penstock.events("slow_query")
    assert [event["statement"] for event in events] == [
        "select ?, pg_sleep(?), ?",
        "select pg_sleep(?)",
        "select pg_sleep(?)",
        "select pg_sleep(?), ? / (random() * ?)::int",
    ]
    first = events[0]
    assert first["traceparent"] == PARENT
    assert first["comment"] == {"application": "shop", "route": "/cart"}
    assert (first["pool"], first["application_name"], first["rows"]) == ("app", "till", 1)
    assert 0.15 < first["duration"] < 10
    assert first["server_pid"] > 0
    assert events[1]["fingerprint"] == events[2]["fingerprint"] != first["fingerprint"]
    assert events[3]["sqlstate"] == "22012"
    assert "topsecret" not in "\n".join(penstock.log)
    assert penstock.metric("penstock_slow_queries_total", pool="app") == 4
    assert penstock.metric("penstock_pool_query_seconds_count", pool="app") >= 5


def test_the_log_shows_what_was_sent_only_where_that_is_wanted(make_proxy: Make) -> None:
    penstock = make_proxy(
        max=1, log_min_duration="0s", log_statements="raw", log_statement_bytes=40, pool_mode="session"
    )

    async def run() -> None:
        client = await asyncpg.connect(penstock.dsn())
        try:
            assert await client.fetchval("SELECT $1::int + 4711", 1) == 4712
            assert await client.fetchval("SELECT $1::int + 4711", 2) == 4713
        finally:
            await client.close()

    asyncio.run(run())
    shown = [event["statement"] for event in penstock.events("slow_query")]
    assert shown.count("SELECT $1::int + 4711") == 2
    assert max(len(text) for text in shown) <= 40


def test_a_pipeline_is_measured_statement_by_statement_and_who_waits_is_not_slow(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1, log_min_duration="400ms")
    with Raw.logged_in(penstock.port) as client, Raw.logged_in(penstock.port) as waiter:
        texts = [f"SELECT pg_sleep({wait}) AS part_{wait[2:]}" for wait in ("0.1", "0.6", "0.2")]
        unnamed = parse(texts[2]) + bind() + EXECUTE + SYNC
        client.send(query(texts[0]) + query(texts[1]) + unnamed)
        until(lambda: pool_of(penstock)["busy"] == 1)
        waiter.send(query("SELECT 'waited'"))
        for _ in texts:
            client.until_ready()
        assert any(kind == b"D" for kind, _ in waiter.until_ready())
    assert [event["statement"] for event in penstock.events("slow_query")] == ["select pg_sleep(?) as part_6"]


def test_a_refusal_is_logged_with_the_traceparent_of_what_was_refused(make_proxy: Make) -> None:
    penstock = make_proxy(max=1, getmode="nowait", log_min_duration="10s")
    with (
        psycopg.connect(penstock.dsn(), autocommit=True) as holder,
        psycopg.connect(penstock.dsn(), autocommit=True) as other,
    ):
        holder.execute("BEGIN")
        holder.execute("SELECT 1")
        with pytest.raises(psycopg.errors.TooManyConnections):
            other.execute(f"SELECT 'topsecret' {COMMENT}")
        with pytest.raises(psycopg.errors.TooManyConnections):
            other.execute(f"SELECT %s {COMMENT.replace('%', '%%')}", ("topsecret",))
        holder.execute("ROLLBACK")
        assert other.execute("SELECT 2").fetchone() == (2,)
    refused = penstock.events("client_refused_session")
    assert [event["traceparent"] for event in refused] == [PARENT, PARENT]
    assert {event["statement"] for event in refused} == {"select ?"}
    assert "busy=1" in refused[0]["picture"]
    assert "topsecret" not in "\n".join(penstock.log)


def test_the_queries_of_a_pool_are_counted_by_fingerprint(make_proxy: Make) -> None:
    penstock = make_proxy(max=2, query_stats=True)
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        for number in range(5):
            client.execute(f"SELECT generate_series(1, {number + 1})")
            client.execute("SELECT %s::text", (f"secret {number}",))
        for _ in range(2):
            with pytest.raises(psycopg.errors.UndefinedTable):
                client.execute("SELECT * FROM no_such_table WHERE id = 5")
    at_rest(penstock)
    (pool,) = penstock.http("/api/v1/queries").json()
    found: dict[str, Any] = {query["query"]: query for query in pool["queries"]}
    series = found["select generate_series(?)"]
    assert (series["calls"], series["rows"], series["errors"]) == (5, 15, 0)
    assert found["select ?::text"]["calls"] == 5
    assert found["select * from no_such_table where id = ?"]["errors"] == 2
    assert series["total"] >= series["longest"] > 0
    page = penstock.http("/").text
    assert "select generate_series(?)" in page
    assert "secret" not in page
    assert "generate_series" not in penstock.http("/metrics").text
    assert not penstock.events("slow_query")


def test_what_is_not_asked_for_is_neither_counted_nor_logged(penstock: Penstock) -> None:
    with psycopg.connect(penstock.dsn(), autocommit=True) as client:
        client.execute(f"SELECT pg_sleep(0.1) {COMMENT}")
    assert penstock.http("/api/v1/queries").json() == []
    assert penstock.metric("penstock_pool_query_seconds_count") == 0
    assert not penstock.events("slow_query")
