"""Many clients of all kinds on ten sessions, for long: every answer is checked, whatever is killed.

What they do is in soaking/acts.py. Sessions are killed all the time, so a client may lose what it has
under way, but never more clients than sessions killed; all else that is not as on a connection of its own
is wrong. In the end everything is as it was in the beginning. SOAK_SECONDS, SOAK_CLIENTS and SOAK_SEED
in the environment change the long run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import proxy
from integration.looking import at_rest, kill, pool_of, sessions_on, until
from integration.soaking.around import Around, Seen, footprint
from integration.soaking.client import Plan
from integration.soaking.ears import LAST
from proxy.embedded import EmbeddedPostgres
from servers import Penstock, free_port

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
Server = psycopg.Connection[Any]

BOUND = 10
GRACE = 120.0  # seconds after which whoever has not ended hangs
EARS = 6
SCHEMAS = 4
# The clients' drivers, and what part of all clients are theirs.
SHARES = {"asyncpg": 0.35, "tasks": 0.3, "threads": 0.15, "wire": 0.2}

CONFIGURATION = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"

[listeners.trusting]
protocol = "postgres"
address = "127.0.0.1:TRUSTING"
auth = "trust"

[users.soak_ears]
password = "all ears"

[pools.app]
backend = "$backend"
max = 10
stmt_cache = 20
wait_timeout = "5m"
max_lifetime = "1h"

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "info"
"""

TABLES = """
CREATE TABLE soak_accounts AS SELECT n AS account, 0 AS balance FROM generate_series(0, 39) n;
ALTER TABLE soak_accounts ADD PRIMARY KEY (account);
CREATE TABLE soak_transfers
    (client int, turn int, one int, other int, amount int, PRIMARY KEY (client, turn));
CREATE TABLE soak_rows (client int, turn int, number int, said text);
CREATE TABLE soak_version AS SELECT 0 AS version;
CREATE TABLE soak_shape (t0 text DEFAULT 'is 0', i1 int DEFAULT 1, t2 text DEFAULT 'is 2');
INSERT INTO soak_shape DEFAULT VALUES;
CREATE ROLE soak_ears LOGIN PASSWORD 'all ears';
""" + "".join(
    f"CREATE SCHEMA soak_{n}; CREATE TABLE soak_{n}.soak_where AS SELECT {n} AS number;"
    for n in range(SCHEMAS)
)
NO_TABLES = (
    "DROP TABLE soak_accounts, soak_transfers, soak_rows, soak_version, soak_shape; DROP ROLE soak_ears;"
    + "".join(f"DROP SCHEMA soak_{n} CASCADE;" for n in range(SCHEMAS))
)

# What must not be left on the server, and how to count it.
LEFT = {
    "temporary tables": "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'",
    "advisory locks": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    "prepared transactions": "SELECT count(*) FROM pg_prepared_xacts",
    "open transactions": "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND xact_start IS NOT NULL",
}


@pytest.fixture
def tables(server: Server) -> Iterator[Server]:
    server.execute(TABLES)
    yield server
    server.execute(NO_TABLES)


@contextmanager
def _started(module: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of soaking/, which does not outlive the body."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join((str(tests), str(Path(proxy.__file__).parents[1])))
    process = subprocess.Popen(
        [sys.executable, "-m", f"integration.soaking.{module}", *words],
        env=os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        kill(process)


def _told(process: subprocess.Popen[str], patience: float) -> Any:
    """What it says at its end. One that never ends is to say on stderr what its clients do."""
    try:
        output, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        raise
    assert process.returncode == 0, output[-2000:]
    return json.loads(output)


def _crowd(plan: Plan, first: int, clients: int) -> dict[str, Any]:
    """Have all clients live at once; what their processes tell, together."""
    words = json.dumps(asdict(plan))
    told: dict[str, Any] = {"acts": Counter(), "lost": Counter(), "losses": Counter(), "vanished": 0}
    told |= {"wrong": [], "transfers": {}, "news": {}}
    with ExitStack() as stack:
        started = []
        for kind, share in SHARES.items():
            count = max(1, round(clients * share))
            started.append(stack.enter_context(_started("crowd", kind, str(first), str(count), words)))
            first += count
        reports = [_told(process, plan.seconds + GRACE) for process in started]
    for report in reports:
        told["acts"] += Counter(report["acts"])
        told["lost"] += Counter(report["lost"])
        told["losses"] += Counter(report["losses"])
        told["vanished"] += report["vanished"]
        told["wrong"] += report["wrong"]
        told["transfers"] |= report["transfers"]
        told["news"] |= report["news"]
    return told


def _check_transfers(server: Server, told: dict[str, Any]) -> None:
    """What was committed for certain is there; what is there was committed; no money was made or lost."""
    found: dict[str, set[int]] = {}
    for client, turn in server.execute("SELECT client, turn FROM soak_transfers").fetchall():
        found.setdefault(str(client), set()).add(turn)
    for client, turns in told["transfers"].items():
        there = found.pop(client, set())
        assert set(turns["sure"]) <= there, f"transfers of client {client} are lost"
        assert there <= {*turns["sure"], *turns["unsure"]}, f"transfers that client {client} never made"
    assert not found
    wrong = server.execute(
        "SELECT account, balance, sum FROM soak_accounts LEFT JOIN (SELECT account, sum(amount) FROM"
        " (SELECT one AS account, -amount AS amount FROM soak_transfers"
        " UNION ALL SELECT other, amount FROM soak_transfers) moves GROUP BY 1) sums USING (account)"
        " WHERE balance <> coalesce(sum, 0)"
    ).fetchall()
    assert wrong == []


def _check_news(heard: list[dict[str, list[str]]], told: dict[str, Any]) -> int:
    """Every ear has heard all that was sent for certain, once and in order, and nothing that was not sent."""
    sure: dict[str, set[str]] = {}
    unsure: dict[str, set[str]] = {}
    for client, sent in told["news"].items():
        for how, where in (("sure", sure), ("unsure", unsure)):
            for channel, turn in sent[how]:
                where.setdefault(f"soak_{channel}", set()).add(f"{client}:{turn}")
    for ear in heard:
        for channel, payloads in ear.items():
            assert payloads.pop() == LAST
            assert len(set(payloads)) == len(payloads), "told twice"
            assert sure.get(channel, set()) <= set(payloads), "not told"
            assert set(payloads) <= sure.get(channel, set()) | unsure.get(channel, set()), "told but not sent"
            latest: dict[str, int] = {}
            for client, turn in (payload.split(":") for payload in payloads):
                assert int(turn) > latest.get(client, -1), "told in another order"
                latest[client] = int(turn)
    return sum(map(len, sure.values()))


def _run(penstock: Penstock, server: Server, plan: Plan, first: int, clients: int, pace: float) -> str:
    """One crowd, from its first client to the last, and all that must hold behind it; returns what was."""
    assert isinstance(penstock.server, EmbeddedPostgres)
    around = Around(penstock, penstock.server, BOUND, random.Random(plan.seed), pace)
    ears_plan = asdict(plan) | {"dsn": penstock.dsn(user="soak_ears", password="all ears")}
    with _started("ears", str(EARS), json.dumps(ears_plan)) as ears:
        assert ears.stdout is not None
        assert ears.stdout.readline() == "listening\n"
        with around.going_on() as seen:
            try:
                told = _crowd(plan, first, clients)
            except subprocess.TimeoutExpired:
                print(json.dumps(pool_of(penstock)), penstock.http("/api/v1/pools/app/holders").text)
                print(sessions_on(server))
                print("\n".join(penstock.log[-100:]))
                raise
        summary = _summary(told, seen)
        assert not told["wrong"], summary + "\n" + "\n".join(told["wrong"])
        for channel in range(plan.channels):
            server.execute(f"NOTIFY soak_{channel}, '{LAST}'")
        news = _check_news(_told(ears, GRACE), told)
    _check_transfers(server, told)
    # Whoever listens by itself shares a session with others that do.
    alone = sum(count for act, count in told["lost"].items() if act != "as one that listens")
    assert alone <= seen.kills, summary
    at_rest(penstock)
    for what, count in LEFT.items():
        until(lambda count=count: server.execute(count).fetchone() == (0,), f"no {what}")
    until(lambda: penstock.metric("penstock_clients") == 0)
    assert penstock.metric("penstock_pool_pinned") == 0
    server.execute("TRUNCATE soak_transfers; UPDATE soak_accounts SET balance = 0")
    return f"{summary}\n{news} news, each heard {EARS} times"


def _summary(told: dict[str, Any], seen: Seen) -> str:
    losses = "\n".join(f"{count} times {loss}" for loss, count in told["losses"].most_common(20))
    return (
        f"{losses}\n{told['acts'].total()} acts {dict(told['acts'])}\nlost {dict(told['lost'])}, "
        f"vanished {told['vanished']}\n{seen}"
    )


def _descriptors(penstock: Penstock) -> int:
    """Those that are no session's, the fewest of many looks: a visit of ours may still be on its way out."""
    found = []
    for _ in range(10):
        opened = int(at_rest(penstock)["opened"])
        time.sleep(0.03)
        found.append(footprint(penstock.pid).descriptors - opened)
    return min(found)


LONG = (float(os.environ.get("SOAK_SECONDS", "600")), int(os.environ.get("SOAK_CLIENTS", "200")))


@pytest.mark.parametrize(
    ("seconds", "clients"), [(8.0, 40), pytest.param(*LONG, marks=pytest.mark.soak)], ids=["short", "long"]
)
def test_a_mixed_crowd_is_answered_rightly_and_leaves_nothing(
    make_proxy: Make, tables: Server, postgres: EmbeddedPostgres, seconds: float, clients: int
) -> None:
    trusting = free_port()
    penstock = make_proxy(CONFIGURATION.replace("TRUSTING", str(trusting)))
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1 << 30))
    defaults = {
        name: str(
            tables.execute("SELECT reset_val FROM pg_settings WHERE name = %s", [name]).fetchall()[0][0]
        )
        for name in ("search_path", "statement_timeout", "TimeZone")
    }
    plan = Plan(penstock.dsn(), trusting, seconds, seed, 40, 3, SCHEMAS, clients / 500, defaults)
    print(f"SOAK_SEED={seed}")
    at_rest(penstock)
    before = _descriptors(penstock)
    if seconds > 60:
        # What a warm proxy takes is known only behind the first crowd.
        _run(penstock, tables, replace(plan, seconds=seconds / 5), 1000, clients, 1.0)
    warm = footprint(penstock.pid)
    print(_run(penstock, tables, plan, 1, clients, 1.0 if seconds > 60 else 0.4))
    until(lambda: _descriptors(penstock) <= before, f"{before} descriptors besides those of sessions")
    after = footprint(penstock.pid)
    print(warm, after)
    if seconds > 60:
        assert after.memory < 1.2 * warm.memory + 10_000
