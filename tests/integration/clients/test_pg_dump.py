"""pg_dump and pg_restore: what comes through the proxy is what comes without it, to the byte."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from integration.clients.crowd import in_threads, zone
from integration.looking import at_rest, directly, run
from proxy.embedded import EmbeddedPostgres
from servers import Penstock

pytestmark = pytest.mark.integration

# Two pools for each database: with two sessions, and with room for two jobs, each with a session for as
# long as its transaction goes, beside their leader's.
CONFIGURATION = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"

[pools.dumped]
backend = "{dumped}"
max = 2

[pools.dumped_by_jobs]
backend = "{dumped}"
max = 4

[pools.restored]
backend = "{restored}"
max = 2

[pools.restored_by_jobs]
backend = "{restored}"
max = 4

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""
CONTENT = """
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('calm', 'cross');
CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0);
CREATE TABLE shop.customers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    mood shop.mood DEFAULT 'calm',
    picture bytea,
    tags text[],
    more jsonb
);
CREATE TABLE shop.orders (
    id serial PRIMARY KEY,
    customer int REFERENCES shop.customers,
    items shop.positive,
    made timestamptz DEFAULT now()
);
CREATE INDEX orders_by_customer ON shop.orders (customer) WHERE items > 2;
CREATE SEQUENCE shop.tickets START 1000 INCREMENT 7;
CREATE VIEW shop.busy AS SELECT name, count(*) AS orders FROM shop.customers c
    JOIN shop.orders o ON o.customer = c.id GROUP BY name;
CREATE MATERIALIZED VIEW shop.sums AS SELECT customer, sum(items) FROM shop.orders GROUP BY customer;
CREATE FUNCTION shop.next_ticket() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('shop.tickets')$$;
CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.made := now(); RETURN NEW; END$$;
CREATE TRIGGER stamp BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.stamp();
CREATE TABLE shop.parts (day date, n int) PARTITION BY RANGE (day);
CREATE TABLE shop.parts_2026 PARTITION OF shop.parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
COMMENT ON TABLE shop.customers IS 'who buys: äöü € 🐘';
INSERT INTO shop.customers (name, picture, tags, more)
    SELECT 'name ' || n || E'\\t\\\\ äöü', decode(md5(n::text), 'hex'), ARRAY[n::text, NULL, 'a,b'],
        jsonb_build_object('n', n)
    FROM generate_series(1, 2000) n;
INSERT INTO shop.orders (customer, items) SELECT 1 + n % 2000, 1 + n % 5 FROM generate_series(1, 5000) n;
INSERT INTO shop.parts SELECT '2026-01-01'::date + n % 365, n FROM generate_series(1, 1000) n;
SELECT shop.next_ticket(), lo_from_bytea(0, 'a large object');
REFRESH MATERIALIZED VIEW shop.sums;
"""
# pg_dump writes a line with a random word into a script, unless it is told the word.
SAME_WORD = "--restrict-key=penstock"


@pytest.fixture(scope="module")
def dumped(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a database with something of everything in it."""
    with directly(postgres) as server:
        server.execute("CREATE DATABASE dumped")
    with psycopg.connect(postgres.dsn(database="dumped"), autocommit=True) as inside:
        inside.execute(CONTENT)
    yield "dumped"
    with directly(postgres) as server:
        server.execute("DROP DATABASE dumped WITH (FORCE)")


@pytest.fixture
def restored(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of an empty database."""
    with directly(postgres) as server:
        server.execute("CREATE DATABASE restored")
    yield "restored"
    with directly(postgres) as server:
        server.execute("DROP DATABASE restored WITH (FORCE)")


@pytest.fixture
def penstock(make_proxy: object, postgres: EmbeddedPostgres, dumped: str, restored: str) -> Penstock:
    assert callable(make_proxy)
    configuration = CONFIGURATION.format(
        dumped=postgres.dsn(database=dumped), restored=postgres.dsn(database=restored)
    )
    started: Penstock = make_proxy(configuration)
    return started


def does(program: Path, *words: str | Path) -> str:
    """What the program prints; it must have nothing to complain of."""
    done = run(program, *map(str, words), timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_script(programs: Path, penstock: Penstock, postgres: EmbeddedPostgres) -> None:
    """The dump is the same, and so is the dump of what psql made of it through the proxy."""
    pg_dump = programs / "pg_dump"
    script = does(pg_dump, SAME_WORD, penstock.dsn(database="dumped"))
    assert script == does(pg_dump, SAME_WORD, postgres.dsn(database="dumped"))
    assert b"a large object".hex() in script
    inserts = [SAME_WORD, "--inserts", "--rows-per-insert=100", "--data-only", "--disable-triggers"]
    assert does(pg_dump, *inserts, penstock.dsn(database="dumped")) == does(
        pg_dump, *inserts, postgres.dsn(database="dumped")
    )
    done = run(
        programs / "psql",
        *("-X", "-q", "-v", "ON_ERROR_STOP=1", penstock.dsn(database="restored")),
        text=script,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert does(pg_dump, SAME_WORD, postgres.dsn(database="restored")) == script
    for pool in ("dumped", "restored"):
        assert at_rest(penstock, pool)["opened"] <= 2


def test_a_script_made_while_others_work(
    programs: Path, penstock: Penstock, postgres: EmbeddedPostgres
) -> None:
    """They share the second session with each other, and the first one as soon as pg_dump has done."""
    scripts = []

    def work(number: int) -> None:
        if number == 0:
            scripts.append(does(programs / "pg_dump", SAME_WORD, penstock.dsn(database="dumped")))
            return
        with psycopg.connect(penstock.dsn(database="dumped"), autocommit=True, prepare_threshold=0) as client:
            client.execute(f"SET TimeZone = '{zone(number)}'")
            client.execute("SET DateStyle = 'German'")
            client.execute("SET search_path = shop")
            for turn in range(20):
                found = client.execute(f"SELECT {number}, id FROM customers WHERE id = %s", (turn + 1,))
                assert found.fetchone() == (number, turn + 1)
                assert client.execute("SHOW TimeZone").fetchone() == (zone(number),)

    in_threads(work)
    assert scripts == [does(programs / "pg_dump", SAME_WORD, postgres.dsn(database="dumped"))]
    assert at_rest(penstock, "dumped")["opened"] <= 2


@pytest.mark.parametrize("how", ["custom", "directory"])
def test_an_archive(
    programs: Path, penstock: Penstock, postgres: EmbeddedPostgres, tmp_path: Path, how: str
) -> None:
    archive, direct = tmp_path / "archive", tmp_path / "direct"
    pg_dump, pg_restore = programs / "pg_dump", programs / "pg_restore"
    does(pg_dump, f"--format={how}", "-f", archive, penstock.dsn(database="dumped"))
    does(pg_dump, f"--format={how}", "-f", direct, postgres.dsn(database="dumped"))
    script = does(pg_restore, SAME_WORD, "-f", "-", archive)
    assert script == does(pg_restore, SAME_WORD, "-f", "-", direct)
    does(pg_restore, "--exit-on-error", "-d", penstock.dsn(database="restored"), archive)
    assert does(pg_dump, SAME_WORD, postgres.dsn(database="restored")) == does(
        pg_dump, SAME_WORD, postgres.dsn(database="dumped")
    )
    for pool in ("dumped", "restored"):
        assert at_rest(penstock, pool)["opened"] <= 2


def test_two_jobs(programs: Path, penstock: Penstock, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """They see one snapshot, each in a transaction of its own."""
    archive, direct = tmp_path / "archive", tmp_path / "direct"
    pg_dump, pg_restore = programs / "pg_dump", programs / "pg_restore"
    how = ["--format=directory", "--compress=none", "-j", "2", "-f"]
    does(pg_dump, *how, archive, penstock.dsn(database="dumped_by_jobs"))
    does(pg_dump, *how, direct, postgres.dsn(database="dumped"))
    data = sorted(path.name for path in direct.iterdir() if path.name != "toc.dat")
    assert len(data) >= 5
    for name in data:
        assert (archive / name).read_bytes() == (direct / name).read_bytes()
    does(pg_restore, "--exit-on-error", "-j", "2", "-d", penstock.dsn(database="restored_by_jobs"), archive)
    assert does(pg_dump, SAME_WORD, postgres.dsn(database="restored")) == does(
        pg_dump, SAME_WORD, postgres.dsn(database="dumped")
    )
    for pool in ("dumped_by_jobs", "restored_by_jobs"):
        assert at_rest(penstock, pool)["opened"] <= 4
