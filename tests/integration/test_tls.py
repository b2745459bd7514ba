"""TLS and the ways to prove who one is, on both sides, against a PostgreSQL that knows TLS."""

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest

from integration.looking import at_rest, directly, finished_transactions, reset_on_close, run, until
from integration.raw import TERMINATE, Raw, query
from proxy.embedded import EmbeddedPostgres
from servers import Certificates, Penstock, debian_programs, lacking

pytestmark = [pytest.mark.integration, pytest.mark.tls]
Make = Callable[..., Penstock]

SECURED = """
[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"
$listener

[listeners.socket]
protocol = "postgres"
address = "unix:$socket"

[pools.app]
backend = "$backend$sslmode"
$pool

$more

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""


def secured(
    certificates: Certificates,
    tls_mode: str = "allow",
    backend: str = "sslmode=require",
    listener: str = "",
    more: str = "",
) -> str:
    certificate, key = certificates.server
    table = f'tls_mode = "{tls_mode}"\ntls_cert_file = "{certificate}"\ntls_key_file = "{key}"\n{listener}'
    return SECURED.replace("$listener", table).replace("$sslmode", f"?{backend}").replace("$more", more)


def test_every_sslmode_of_a_client_works_as_libpq_means_it(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates), server=debian_postgres)
    for sslmode, more, in_use in (
        ("disable", {}, False),
        ("prefer", {}, True),
        ("require", {}, True),
        ("verify-ca", {"sslrootcert": str(certificates.ca)}, True),
        ("verify-full", {"sslrootcert": str(certificates.ca)}, True),
        ("require", {"channel_binding": "require"}, True),
        ("verify-full", {"sslrootcert": str(certificates.ca), "channel_binding": "require"}, True),
    ):
        with psycopg.connect(penstock.dsn(sslmode=sslmode, **more)) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
            assert client.pgconn.ssl_in_use is in_use, sslmode
    assert {entry["tls"] for entry in penstock.events("client_connected")} == {True, False}
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(penstock.dsn(sslmode="verify-ca", sslrootcert=str(certificates.stranger_ca)))
    with psycopg.connect(penstock.socket_dsn()) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_every_sslmode_towards_the_server_works_as_libpq_means_it(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, sslmode: str
) -> None:
    backend = f"sslmode={sslmode}"
    if sslmode.startswith("verify"):
        backend += f"&sslrootcert={certificates.ca}"
    penstock = make_proxy(secured(certificates, "disable", backend), server=debian_postgres)
    with psycopg.connect(penstock.dsn()) as client:
        assert client.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (
            sslmode != "disable",
        )


def test_a_server_with_a_certificate_of_a_stranger_is_refused_in_clear_words(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    backend = f"sslmode=verify-full&sslrootcert={certificates.stranger_ca}"
    penstock = make_proxy(secured(certificates, "disable", backend), server=debian_postgres)
    until(lambda: "certificate verify failed" in penstock.http("/readyz").text)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(penstock.dsn())


def test_a_server_under_another_name_is_refused_by_verify_full_only(
    make_proxy: Make, strict: EmbeddedPostgres, certificates: Certificates
) -> None:
    # 127.0.0.2 is this machine as well, but not what the certificate says.
    where = strict.dsn().replace("@127.0.0.1:", "@127.0.0.2:")
    for sslmode, ready in (("verify-ca", 200), ("verify-full", 503)):
        text = secured(certificates, "disable", f"sslmode={sslmode}&sslrootcert={certificates.ca}")
        penstock = make_proxy(text.replace("$backend", where), server=strict)
        until(lambda penstock=penstock, ready=ready: penstock.http("/readyz").status == ready)


def test_a_listener_that_requires_tls_refuses_a_client_without(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates, "require"), server=debian_postgres)
    with pytest.raises(psycopg.OperationalError, match="takes connections with TLS only"):
        psycopg.connect(penstock.dsn(sslmode="disable"))
    with psycopg.connect(penstock.dsn(sslmode="require")) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_listener_that_verifies_refuses_a_client_without_a_certificate(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    certificate, key = (str(path) for path in certificates.client)
    text = secured(certificates, "verify-ca", listener=f'tls_ca_file = "{certificates.ca}"')
    penstock = make_proxy(text, server=debian_postgres)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(penstock.dsn(sslmode="require"))
    with psycopg.connect(penstock.dsn(sslmode="require", sslcert=certificate, sslkey=key)) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    until(lambda: penstock.metric("penstock_client_refusals_total", reason="tls") == 1)


def test_large_results_and_copies_pass_over_tls_both_ways(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates), server=debian_postgres, max=2)
    with psycopg.connect(penstock.dsn(sslmode="require"), prepare_threshold=None) as client:
        row = client.execute("SELECT repeat('x', 5000000)").fetchone()
        assert row is not None
        assert len(row[0]) == 5_000_000
        assert client.execute("SELECT length(%s)", ("y" * 5_000_000,)).fetchone() == (5_000_000,)
        client.execute("CREATE TEMP TABLE large (a int, b text) ON COMMIT DROP")
        with client.cursor().copy("COPY large FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, "z" * 100))
        digest = hashlib.sha256()
        with client.cursor().copy("COPY (SELECT * FROM large ORDER BY a) TO STDOUT") as copy:
            for data in copy:
                digest.update(data)
        expected = "".join(f"{number}\t{'z' * 100}\n" for number in range(20_000))
        assert digest.hexdigest() == hashlib.sha256(expected.encode()).hexdigest()
    at_rest(penstock)


def test_cancel_works_over_tls(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates, "require"), server=debian_postgres, max=1)
    with (
        directly(debian_postgres) as own,
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(penstock.dsn(sslmode="require"), autocommit=True) as client,
    ):
        job = pool.submit(client.execute, "SELECT pg_sleep(60)")
        until(
            lambda: own.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
            ).fetchone()
        )
        client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            job.result(20)
        assert client.execute("SELECT 1").fetchone() == (1,)
    at_rest(penstock)


def test_pgbench_runs_over_tls(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    pgbench = shutil.which("pgbench") or lacking("there is no pgbench (apt-get install postgresql-contrib)")
    assert run(pgbench, "-i", "-q", debian_postgres.dsn()).returncode == 0
    penstock = make_proxy(secured(certificates), server=debian_postgres, max=4, wait_timeout="60s")
    for how in (["-S", "-c", "20", "-t", "50"], ["-S", "-C", "-c", "5", "-t", "5"]):
        done = run(pgbench, "-n", "-j", "2", *how, penstock.dsn(sslmode="require"))
        assert done.returncode == 0, done.stderr
        assert finished_transactions(done.stdout) > 0
    assert at_rest(penstock)["opened"] <= 4
    with directly(debian_postgres) as own:
        own.execute("DROP TABLE pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers")


def test_clients_that_vanish_under_tls_leave_nothing_behind(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    text = secured(certificates, "require", listener='auth = "trust"')
    penstock = make_proxy(text, server=debian_postgres, max=2)
    for number in range(12):
        client = Raw.logged_in(penstock.port, tls=True)
        if number % 2:
            client.send(query("SELECT pg_sleep(30)"))
        else:
            client.send(query("SELECT repeat('x', 5000000)"))
            client.read()
        if number % 3:
            reset_on_close(client.sock)
        client.close()
    pool = at_rest(penstock)
    assert pool["opened"] <= 2
    with Raw.logged_in(penstock.port, tls=True) as client:
        assert client.value("SELECT 'served'") == "served"
        client.send(TERMINATE)
        assert client.is_closed()


def test_asyncpg_and_psycopg2_speak_tls(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates, "require"), server=debian_postgres)
    client = psycopg2.connect(penstock.dsn(sslmode="require"))
    with client, client.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]
    client.close()

    async def ask() -> Any:
        fast = await asyncpg.connect(penstock.dsn(sslmode="require"), statement_cache_size=0)
        try:
            return await fast.fetchval("SELECT 2")
        finally:
            await fast.close()

    assert asyncio.run(ask()) == 2


# -- proofs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password", "trust"])
def test_every_auth_method_lets_the_right_client_in_and_no_other(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, auth: str
) -> None:
    text = secured(certificates, listener=f'auth = "{auth}"')
    penstock = make_proxy(text, server=debian_postgres)
    for sslmode in ("disable", "require"):
        with psycopg.connect(penstock.dsn(sslmode=sslmode)) as client:
            assert client.execute("SELECT current_user").fetchone() == ("app",)
        if auth != "trust":
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(penstock.dsn(password="wrong", sslmode=sslmode))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(penstock.dsn(user="nobody", password="wrong"))


@pytest.fixture(scope="module")
def strict(certificates: Certificates) -> Iterator[EmbeddedPostgres]:
    """A server with one user for each method that it may ask for."""
    programs = debian_programs()
    if programs is None:
        lacking("there is no PostgreSQL with TLS (apt-get install postgresql)")
    hba = [
        "hostssl all ida all scram-sha-256",
        "host all max all md5",
        "host all pat all password",
        "host all tom all trust",
        "host all all all scram-sha-256",
    ]
    options = {"listen_addresses": "127.0.0.1,127.0.0.2"}
    with EmbeddedPostgres(bin_dir=programs, tls=certificates.server, hba=hba, options=options) as server:
        with directly(server) as own:
            own.execute("CREATE ROLE ida LOGIN PASSWORD 'ida''s'")
            own.execute("SET password_encryption = md5")
            own.execute("CREATE ROLE max LOGIN PASSWORD 'max''s'")
            own.execute("RESET password_encryption")
            own.execute("CREATE ROLE pat LOGIN PASSWORD 'pat''s'")
            own.execute("CREATE ROLE tom LOGIN")
        yield server


@pytest.mark.parametrize("user", ["ida", "max", "pat", "tom"])
def test_every_method_that_a_server_asks_for_is_answered(
    make_proxy: Make, strict: EmbeddedPostgres, certificates: Certificates, user: str
) -> None:
    more = f'[users.{user}]\npassword = "{user}\'s"\n'
    penstock = make_proxy(secured(certificates, more=more), server=strict)
    with psycopg.connect(penstock.dsn(user, password=f"{user}'s")) as client:
        assert client.execute("SELECT current_user").fetchone() == (user,)


def test_a_stored_verifier_lets_a_client_in_and_passes_its_proof_to_the_server(
    make_proxy: Make, strict: EmbeddedPostgres, certificates: Certificates
) -> None:
    with directly(strict) as own:
        row = own.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'ida'").fetchone()
    assert row is not None
    more = f'[users.ida]\nverifier = "{row[0]}"\n'
    penstock = make_proxy(secured(certificates, more=more), server=strict)
    for sslmode in ("disable", "require"):
        with psycopg.connect(penstock.dsn("ida", password="ida's", sslmode=sslmode)) as client:
            assert client.execute("SELECT current_user").fetchone() == ("ida",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(penstock.dsn("ida", password="wrong"))
    log = "\n".join(penstock.log)
    assert row[0] not in log
    assert "ida's" not in log
