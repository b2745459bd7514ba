"""Who may log in, and how: files of users, lookups on the server, certificates, peers, rules of pg_hba.conf.

Real clients through the proxy, against a PostgreSQL that asks each role for its own kind of proof.
"""

import asyncio
import base64
import getpass
import re
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from integration.looking import at_rest, directly, run, until
from integration.raw import Raw, message, startup
from proxy.embedded import EmbeddedPostgres
from proxy.postgres.scram import SCRAM, ScramClient
from proxy.postgres.verifier import keys_of, salt_password
from servers import Certificates, Penstock, debian_programs, lacking

pytestmark = [pytest.mark.integration, pytest.mark.tls]
Make = Callable[..., Penstock]

CONFIGURATION = """
$top

[listeners.main]
protocol = "postgres"
address = "127.0.0.1:$port"
$listener

[listeners.socket]
protocol = "postgres"
address = "unix:$socket"
$local

[pools.app]
backend = "$backend"
max = 3
wait_timeout = "10s"
$lines

$more

[http]
address = "127.0.0.1:$http"

[log]
format = "json"
level = "debug"
"""
ASKED = 'auth_query = "default"\nauth_cache = "1h"\n'


def configuration(**parts: str) -> str:
    text = CONFIGURATION
    for name in ("top", "listener", "local", "lines", "more"):
        text = text.replace(f"${name}", parts.get(name, ""))
    return text


def secured(certificates: Certificates, mode: str = "verify-ca") -> str:
    certificate, key = certificates.server
    return (
        f'tls_mode = "{mode}"\ntls_cert_file = "{certificate}"\ntls_key_file = "{key}"\n'
        f'tls_ca_file = "{certificates.ca}"\n'
    )


@pytest.fixture(scope="module")
def folk(certificates: Certificates) -> Iterator[EmbeddedPostgres]:
    """A server with a few roles: ann, bob and cid by SCRAM, mia by md5, eve whose time is over."""
    programs = debian_programs()
    if programs is None:
        lacking("there is no PostgreSQL with TLS (apt-get install postgresql)")
    hba = ["host all mia all md5", "host all all all scram-sha-256"]
    with EmbeddedPostgres(bin_dir=programs, tls=certificates.server, hba=hba) as server:
        with directly(server) as own:
            for name in ("ann", "bob", "cid"):
                own.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}''s'")
            own.execute("CREATE ROLE eve LOGIN PASSWORD 'eve''s' VALID UNTIL '2001-01-01'")
            own.execute("CREATE ROLE group_of_many NOLOGIN PASSWORD 'secret'")
            own.execute("CREATE ROLE asker LOGIN PASSWORD 'asker''s'")
            own.execute(
                "CREATE FUNCTION public.looked_up(wanted name, OUT name name, OUT secret text) LANGUAGE sql"
                " SECURITY DEFINER SET search_path = pg_catalog AS"
                " 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = wanted'"
            )
            own.execute("SET password_encryption = md5")
            own.execute("CREATE ROLE mia LOGIN PASSWORD 'mia''s'")
        yield server


def secret_of(server: EmbeddedPostgres, role: str) -> str:
    with directly(server) as own:
        row = own.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,)).fetchone()
    assert row is not None
    return str(row[0])


def who(penstock: Penstock, user: str, password: str = "", **more: str) -> str:
    with psycopg.connect(penstock.dsn(user, password=password or f"{user}'s", **more)) as client:
        row = client.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])


def denied(penstock: Penstock, user: str, password: str, **more: str) -> str:
    with pytest.raises(psycopg.OperationalError) as error:
        psycopg.connect(penstock.dsn(user, password=password, **more))
    return str(error.value).partition("FATAL:")[2].strip()


def reloaded(penstock: Penstock, event: str = "configuration_reloaded") -> dict[str, Any]:
    before = len(penstock.events(event))
    penstock.signal(signal.SIGHUP)
    return until(lambda: penstock.events(event)[before:])[0]


# -- auth_file --------------------------------------------------------------------------------------


def test_a_file_of_users_lets_each_in_with_its_kind_of_secret_and_as_itself(
    make_proxy: Make, folk: EmbeddedPostgres, folder: Path
) -> None:
    users = folder / "users.txt"
    verifier, digest = secret_of(folk, "bob"), secret_of(folk, "mia")
    assert verifier.startswith("SCRAM-SHA-256$")
    assert digest.startswith("md5")
    users.write_text(f'; ours\n"ann" "ann\'s"\n"bob" "{verifier}"\n"mia" "{digest}"\n')
    penstock = make_proxy(configuration(top=f'auth_file = "{users}"', listener='auth = "md5"'), server=folk)
    assert [who(penstock, name) for name in ("ann", "bob", "mia")] == ["ann", "bob", "mia"]

    async def fast() -> Any:
        client = await asyncpg.connect(penstock.dsn("bob", password="bob's"))
        try:
            return await client.fetchval("SELECT current_user")
        finally:
            await client.close()

    assert asyncio.run(fast()) == "bob"
    text = "password authentication failed for user"
    for name in ("ann", "bob", "mia", "cid"):
        assert text in denied(penstock, name, "wrong")
    users.write_text('"ann" "ann\'s"\n"cid" "cid\'s"\n')
    entry = reloaded(penstock)
    assert entry["changes"] == ["auth_file: 1 users added, 0 changed, 2 removed"]
    assert (who(penstock, "ann"), who(penstock, "cid")) == ("ann", "cid")
    assert text in denied(penstock, "bob", "bob's")
    users.write_text('"ann" "ann\'s"\n"cid" cid\'s\n')
    entry = reloaded(penstock, "configuration_refused")
    assert 'auth_file: line 2: expected "name" "secret"' in entry["mistakes"][0]
    assert who(penstock, "cid") == "cid"
    assert at_rest(penstock)["opened"] <= 3
    log = "\n".join(penstock.log)
    assert not [secret for secret in (verifier, digest, "cid's", "ann's") if secret in log]


def test_the_users_of_a_heterogeneous_pool_share_its_one_bound(
    make_proxy: Make, folk: EmbeddedPostgres, folder: Path
) -> None:
    users = folder / "users.txt"
    users.write_text("".join(f'"{name}" "{secret_of(folk, name)}"\n' for name in ("ann", "bob", "cid")))
    penstock = make_proxy(configuration(listener=f'auth_file = "{users}"'), server=folk)

    def work(number: int) -> bool:
        name = ("ann", "bob", "cid")[number % 3]
        with psycopg.connect(penstock.dsn(name, password=f"{name}'s"), autocommit=True) as client:
            seen = {
                client.execute("SELECT session_user, current_user, pg_sleep(0.002)").fetchone()
                for _ in range(5)
            }
        return {row[:2] for row in seen if row is not None} == {(name, name)}

    with ThreadPoolExecutor(6) as pool, directly(folk) as own:
        jobs = [pool.submit(work, number) for number in range(9)]
        most = 0
        while not all(job.done() for job in jobs):
            row = own.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND application_name <> 'the tests'"
            ).fetchone()
            assert row is not None
            most = max(most, row[0])
        assert all(job.result() for job in jobs)
    assert most <= 3
    assert at_rest(penstock)["opened"] <= 3


# -- auth_query -------------------------------------------------------------------------------------


def test_a_user_that_is_looked_up_runs_as_itself_by_its_own_proof(
    make_proxy: Make, folk: EmbeddedPostgres
) -> None:
    penstock = make_proxy(configuration(lines=ASKED, local='auth = "md5"'), server=folk)
    assert [who(penstock, name) for name in ("ann", "bob")] == ["ann", "bob"]
    for name in ("mia", "ann"):
        with psycopg.connect(penstock.socket_dsn(name, password=f"{name}'s")) as client:
            assert client.execute("SELECT session_user").fetchone() == (name,)
    texts = {
        denied(penstock, name, password).replace(f'"{name}"', "-")
        for name, password in (
            ("ann", "wrong"),
            ("eve", "eve's"),  # its time is over
            ("group_of_many", "secret"),
            ("mia", "mia's"),  # SCRAM cannot be checked against an md5 hash
            ("nobody", "x"),
            ("' OR true --", "x"),
        )
    }
    assert texts == {"password authentication failed for user -"}
    assert at_rest(penstock)["opened"] <= 3
    assert secret_of(folk, "ann") not in "\n".join(penstock.log)


def test_a_lookup_is_safe_from_what_a_client_says_and_from_its_leaving(
    make_proxy: Make, folk: EmbeddedPostgres
) -> None:
    query = (
        "SELECT found.* FROM public.looked_up($1) AS found, pg_catalog.pg_sleep(0.2)"
        " WHERE current_setting('search_path') = 'pg_catalog'"
    )
    lines = (
        f'auth_query = "{query}"\nauth_user = "asker"\nauth_user_password = "asker\'s"\n'
        'auth_cache = "1h"\nauth_database = "app"\n'
    )
    penstock = make_proxy(configuration(lines=lines), server=folk)
    for _ in range(6):
        client = Raw(penstock.port)
        client.send(startup(user="ann", database="app", search_path="evil", options="-c work_mem=1MB"))
        client.close()
    dsn = penstock.dsn("ann", password="ann's", options="-c search_path=evil,public")
    with psycopg.connect(dsn) as found:
        assert found.execute("SELECT current_user, current_setting('search_path')").fetchone() == (
            "ann",
            "evil,public",
        )
    at_rest(penstock)
    with directly(folk) as own:
        rows = own.execute(
            "SELECT usename, count(*) FROM pg_stat_activity WHERE application_name <> 'the tests'"
            " AND backend_type = 'client backend' GROUP BY 1"
        ).fetchall()
    assert dict(rows)["asker"] == 1


def test_a_password_that_changes_on_the_server_is_found_out(make_proxy: Make, folk: EmbeddedPostgres) -> None:
    for auth in ("scram-sha-256", "password"):
        penstock = make_proxy(configuration(lines=ASKED, listener=f'auth = "{auth}"'), server=folk)
        assert who(penstock, "cid") == "cid"
        try:
            with directly(folk) as own:
                own.execute("ALTER ROLE cid PASSWORD 'new'")
                own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cid'")
            until(lambda penstock=penstock: _lets_in(penstock, "cid", "new"), patience=5.0)
            denied(penstock, "cid", "cid's")
            assert who(penstock, "cid", "new") == "cid"
        finally:
            with directly(folk) as own:
                own.execute("ALTER ROLE cid PASSWORD 'cid''s'")


def _lets_in(penstock: Penstock, user: str, password: str) -> bool:
    try:
        return who(penstock, user, password) == user
    except psycopg.OperationalError:
        return False


def test_a_lookup_that_fails_is_logged_and_told_as_a_wrong_password(
    make_proxy: Make, folk: EmbeddedPostgres
) -> None:
    lines = 'auth_query = "SELECT a, b FROM no_such_table WHERE a = $1"\n'
    penstock = make_proxy(configuration(lines=lines), server=folk)
    assert "password authentication failed" in denied(penstock, "ann", "ann's")
    assert "no_such_table" in penstock.events("auth_query_failed")[0]["detail"]
    assert who(penstock, "app", folk.password) == "app"
    at_rest(penstock)


# -- nobody finds out who exists --------------------------------------------------------------------


def conversation(port: int, user: str, password: str) -> list[bytes]:
    """What the server's side of a failing SCRAM login looks like: all of it, but what is random by design."""
    seen: list[bytes] = []
    with Raw(port) as client:
        client.send(startup(user=user, database="app"))
        kind, body = client.read()
        seen.append(kind + body)
        exchange = ScramClient()
        first = exchange.first()
        client.send(message(b"p", SCRAM.encode() + b"\0" + struct.pack("!i", len(first)) + first))
        kind, body = client.read()
        exchange.challenge(body[4:])
        shape = re.sub(rb"r=[^,]*", b"r=" + b"x" * len(exchange._nonce), body)
        seen.append(kind + re.sub(rb"s=[^,]*", b"s=%d" % len(base64.b64decode(_salt(body))), shape))
        client_key, server_key = keys_of(salt_password(password, exchange.salt, exchange.iterations))
        client.send(message(b"p", exchange.final(client_key, server_key)))
        seen += [kind + body.replace(user.encode(), b"-") for kind, body in client.to_the_end()]
    return seen


def _salt(challenge: bytes) -> bytes:
    found = re.search(rb"s=([^,]*)", challenge)
    assert found is not None
    return found.group(1)


def test_unknown_users_and_wrong_passwords_are_told_apart_by_no_byte(
    make_proxy: Make, folk: EmbeddedPostgres, folder: Path
) -> None:
    users = folder / "users.txt"
    users.write_text(f'"ann" "{secret_of(folk, "ann")}"\n"old" "md5{"0" * 32}"\n"none" ""\n')
    penstock = make_proxy(configuration(top=f'auth_file = "{users}"', lines=ASKED), server=folk)
    names = ("ann", "bob", "eve", "old", "none", "nobody", "app", "group_of_many")
    pictures = {name: conversation(penstock.port, name, "wrong") for name in names}
    assert {name for name in names if pictures[name] != pictures["nobody"]} == set()
    again = {name: _challenge(penstock.port, name) for name in names}
    assert again == {name: _challenge(penstock.port, name) for name in names}  # salts stay as they were


def _challenge(port: int, user: str) -> bytes:
    with Raw(port) as client:
        client.send(startup(user=user, database="app"))
        client.read()
        first = b"n,,n=,r=abcdefghijklmnop"
        client.send(message(b"p", SCRAM.encode() + b"\0" + struct.pack("!i", len(first)) + first))
        return _salt(client.read()[1])


# -- certificates and peers -------------------------------------------------------------------------


def test_a_certificate_names_the_user_or_a_map_says_whom_it_may_be(
    make_proxy: Make, folk: EmbeddedPostgres, certificates: Certificates
) -> None:
    certificate, key = (str(path) for path in certificates.client)
    shown = {"sslmode": "require", "sslcert": certificate, "sslkey": key}
    listener = secured(certificates) + 'auth = "cert"\n'
    penstock = make_proxy(configuration(listener=listener), server=folk)
    assert who(penstock, "app", "unused", **shown) == "app"
    assert denied(penstock, "ann", "x", **shown) == 'certificate authentication failed for user "ann"'
    more = "[maps.ours]\nentries = { '/^(a.)p$' = ['\\1n', 'app'] }\n[users.apn]\nrun_as = 'pool'\n"
    mapped = make_proxy(
        configuration(listener=listener + 'map = "ours"\ncert_name = "san-dns"\n', more=more), server=folk
    )
    assert who(mapped, "app", "unused", **shown) == "app"
    assert who(mapped, "apn", "unused", **shown) == "app"
    assert denied(mapped, "ann", "x", **shown) == 'certificate authentication failed for user "ann"'


def test_a_certificate_may_be_asked_for_besides_the_password(
    make_proxy: Make, folk: EmbeddedPostgres, certificates: Certificates
) -> None:
    certificate, key = (str(path) for path in certificates.client)
    shown = {"sslmode": "require", "sslcert": certificate, "sslkey": key}
    listener = secured(certificates) + 'clientcert = "verify-full"\n'
    penstock = make_proxy(configuration(listener=listener, lines=ASKED), server=folk)
    assert who(penstock, "app", folk.password, **shown) == "app"
    assert "password authentication failed" in denied(penstock, "app", "wrong", **shown)
    assert denied(penstock, "ann", "ann's", **shown) == 'certificate authentication failed for user "ann"'


def test_a_peer_on_a_unix_socket_is_who_the_kernel_says(make_proxy: Make, folk: EmbeddedPostgres) -> None:
    me = getpass.getuser()
    more = f"[maps.here]\nentries = {{ '{me}' = 'app' }}\n"
    local = 'auth = "peer"\nmap = "here"\n'
    penstock = make_proxy(configuration(local=local, more=more), server=folk)
    with psycopg.connect(penstock.socket_dsn(password="unused")) as client:
        assert client.execute("SELECT current_user").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match='peer authentication failed for user "ann"'):
        psycopg.connect(penstock.socket_dsn(user="ann", password="unused"))
    done = run("psql", "-Atc", "SELECT current_user", penstock.socket_dsn(password="unused"))
    assert done.stdout.strip() == "app", done.stderr


# -- hba_file ---------------------------------------------------------------------------------------


def test_the_first_rule_that_fits_decides(
    make_proxy: Make, folk: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    me = getpass.getuser()
    rules = folder / "hba.conf"
    rules.write_text(
        "# kind database user address method\n"
        "local all app peer map=here\n"
        "host all cid all reject\n"
        'hostssl all "app" 127.0.0.0 255.0.0.0 cert\n'
        "hostssl app ann,bob all scram-sha-256 clientcert=verify-ca\n"
        "hostnossl app ann samehost password\n"
        "host sameuser /^d 127.0.0.1/32 trust\n"
    )
    listener = secured(certificates, "allow") + f'hba_file = "{rules}"\n'
    more = f"[maps.here]\nentries = {{ '{me}' = 'app' }}\n"
    text = configuration(listener=listener, local=f'hba_file = "{rules}"', lines=ASKED, more=more)
    penstock = make_proxy(text, server=folk)
    certificate, key = (str(path) for path in certificates.client)
    shown = {"sslmode": "require", "sslcert": certificate, "sslkey": key}
    with psycopg.connect(penstock.socket_dsn(password="unused")) as client:
        assert client.execute("SELECT current_user").fetchone() == ("app",)
    assert "a rule of hba_file rejects" in denied(penstock, "cid", "cid's")
    assert who(penstock, "app", "unused", **shown) == "app"
    assert "needs a certificate" in denied(penstock, "ann", "ann's", sslmode="require")
    assert who(penstock, "bob", **shown) == "bob"
    assert who(penstock, "ann", sslmode="disable") == "ann"
    said = denied(penstock, "bob", "bob's", sslmode="disable")
    assert "no rule of hba_file lets in" in said
    assert 'host "127.0.0.1", user "bob", database "app", without TLS' in said
    rules.write_text("host all all all scram-sha-256\n")
    assert "listeners.main.hba_file: its rules have changed, 6 -> 1" in reloaded(penstock)["changes"]
    assert who(penstock, "cid", sslmode="disable") == "cid"
    rules.write_text("host all all all trust\nhost all all gss\n")
    mistakes = reloaded(penstock, "configuration_refused")["mistakes"]
    assert "hba_file: line 2: " in mistakes[0]


def test_rules_look_at_the_address_that_was_announced(
    make_proxy: Make, folk: EmbeddedPostgres, folder: Path
) -> None:
    rules = folder / "hba.conf"
    rules.write_text("host all all 203.0.113.0/24 scram-sha-256\n")
    listener = f'proxy_protocol = "require"\nhba_file = "{rules}"'
    penstock = make_proxy(configuration(listener=listener), server=folk)
    for source, kind in (("203.0.113.9", b"R"), ("127.0.0.1", b"E")):
        with Raw(penstock.port) as client:
            client.send(f"PROXY TCP4 {source} 127.0.0.1 4711 5432\r\n".encode())
            client.send(startup(user="app", database="app"))
            found, body = client.read()
            assert found == kind, body
            if kind == b"E":
                assert f'no rule of hba_file lets in host "{source}"'.encode() in body


def test_check_finds_what_is_wrong_in_every_file(folder: Path) -> None:
    users, rules = folder / "users.txt", folder / "hba.conf"
    users.write_text('"ann" "SCRAM-SHA-256$broken-secret"\n')
    rules.write_text("host all all 10.0.0.0/8 trust\nhost all +admins all md5\n")
    (folder / "penstock.toml").write_text(
        f'[listeners.main]\naddress = "0.0.0.0:6432"\nauth_file = "{users}"\n'
        f'[listeners.other]\naddress = "0.0.0.0:6433"\nhba_file = "{rules}"\n'
        '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'
    )
    done = run(sys.executable, "-m", "proxy", "check", "--config", str(folder / "penstock.toml"))
    assert done.returncode == 78
    told = done.stdout + done.stderr
    assert "auth_file: line 1: a SCRAM verifier" in told
    assert "hba_file: line 2: the members of a role" in told
    assert "broken-secret" not in told
