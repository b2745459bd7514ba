"""TLS that begins without a request for it, and the channel bound on both sides: clients' own libraries in
front, and for the way to a server a second Penstock in its place.
"""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from integration.looking import at_rest, directly, until
from integration.raw import Raw, startup
from integration.test_tls import secured
from proxy.embedded import EmbeddedPostgres
from servers import Certificates, Penstock, debian_programs

pytestmark = [pytest.mark.integration, pytest.mark.tls]
Make = Callable[..., Penstock]

if psycopg.pq.version() < 170000:
    pytest.skip("psycopg's libpq knows no sslnegotiation=direct", allow_module_level=True)


def front(make_proxy: Make, behind: Penstock, certificates: Certificates, wishes: str) -> Penstock:
    """A Penstock whose server is another one."""
    backend = behind.dsn(sslmode="verify-full", sslrootcert=str(certificates.ca)) + wishes
    text = secured(certificates, "require", "").replace("$backend?", backend)
    return make_proxy(text, server=behind.server, max=2)


def test_libpq_begins_with_tls_and_binds_the_channel(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates, "require"), server=debian_postgres, max=2)
    wishes = {"sslnegotiation": "direct", "channel_binding": "require"}
    wishes |= {"sslmode": "verify-full", "sslrootcert": str(certificates.ca)}
    with psycopg.connect(penstock.dsn(**wishes), autocommit=True) as client:
        row = client.execute("SELECT repeat('x', 3000000)").fetchone()
        assert row is not None
        assert len(row[0]) == 3_000_000
        assert client.execute("SELECT length(%s)", ("y" * 3_000_000,)).fetchone() == (3_000_000,)
        with ThreadPoolExecutor(1) as pool:
            sleeping = pool.submit(client.execute, "SELECT pg_sleep(30)")
            until(lambda: penstock.metric("penstock_pool_busy") == 1)
            time.sleep(0.1)
            client.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(penstock.dsn(password="wrong", **wishes))
    at_rest(penstock)


def test_tls_that_begins_at_once_may_come_byte_by_byte_and_needs_alpn(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates, listener='auth = "trust"'), server=debian_postgres)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for alpn, served in (("postgresql", True), ("http/1.1", False)):
        context.set_alpn_protocols([alpn])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        with socket.create_connection(("127.0.0.1", penstock.port), timeout=20) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while tls.version() is None or not outgoing.pending:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    hello = outgoing.read()
                    for at in range(0, len(hello), 40):
                        sock.sendall(hello[at : at + 40])
                        time.sleep(0.001)
                    incoming.write(sock.recv(65536))
            tls.write(startup(user="app", database="app"))
            sock.sendall(outgoing.read())
            answer = b""
            while not answer:
                try:
                    answer = tls.read(65536)
                    break
                except ssl.SSLWantReadError:
                    received = sock.recv(65536)
                    if not received:
                        break
                    incoming.write(received)
            assert (answer[:1] == b"R") is served, answer
    [refused] = until(lambda: penstock.events("client_refused"))
    assert "postgresql" in refused["detail"]


def test_tls_that_begins_at_once_is_refused_where_there_is_none(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates, "disable"), server=debian_postgres)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(penstock.dsn(sslmode="require", sslnegotiation="direct"))
    [refused] = until(lambda: penstock.events("client_refused"))
    assert "sslnegotiation=direct" in refused["detail"]
    assert "tls_mode" in refused["detail"]


def test_a_server_is_met_with_tls_at_once_and_with_its_name_and_a_bound_channel(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    behind = make_proxy(secured(certificates, "require"), server=debian_postgres, max=2)
    penstock = front(make_proxy, behind, certificates, "&sslnegotiation=direct&channel_binding=require")
    with psycopg.connect(penstock.dsn(sslmode="require", sslnegotiation="direct"), autocommit=True) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
        with ThreadPoolExecutor(1) as pool, directly(debian_postgres) as own:
            sleeping = pool.submit(client.execute, "SELECT pg_sleep(30)")
            running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
            until(lambda: own.execute(running).fetchone() == (1,))
            client.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                sleeping.result()
    assert behind.metric("penstock_tls_failures_total") == 0
    at_rest(penstock)


def test_a_server_that_cannot_begin_with_tls_is_named_as_such(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    backend = "sslmode=require&sslnegotiation=direct"
    penstock = make_proxy(secured(certificates, "disable", backend), server=debian_postgres)
    until(lambda: "sslnegotiation=direct" in penstock.http("/readyz").text)


def test_channel_binding_is_demanded_of_a_server_and_by_psql(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    backend = f"sslmode=verify-full&sslrootcert={certificates.ca}&channel_binding=require"
    penstock = make_proxy(secured(certificates, "require", backend), server=debian_postgres)
    programs = debian_programs()
    assert programs is not None
    where = penstock.dsn(sslmode="verify-full", sslrootcert=str(certificates.ca), channel_binding="require")
    done = subprocess.run([programs / "psql", where, "-Atc", "SELECT 42"], capture_output=True, timeout=60)
    assert done.stdout == b"42\n", done.stderr


def test_a_name_is_kept_from_the_server_where_that_is_wished(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    asked: dict[str, str | None] = {}
    with socket.create_server(("127.0.0.1", 0)) as told, socket.create_server(("127.0.0.1", 0)) as kept:
        doors = {"1": told, "0": kept}
        urls = [
            f"postgresql://app:x@localhost:{door.getsockname()[1]}/app?sslmode=require&sslsni={wish}"
            for wish, door in doors.items()
        ]
        text = secured(certificates, "disable", "", more=f'[pools.other]\nbackend = "{urls[1]}"\n')
        make_proxy(text.replace("$backend?", urls[0]), server=debian_postgres)
        for wish, door in doors.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificates.server)
            context.sni_callback = lambda _connection, name, _default, wish=wish: asked.update({wish: name})
            door.settimeout(20)
            sock, _ = door.accept()
            with sock:
                assert sock.recv(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"
                sock.sendall(b"S")
                context.wrap_socket(sock, server_side=True).close()
    assert asked == {"1": "localhost", "0": None}


def test_data_that_is_stuffed_behind_a_request_is_an_error(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    penstock = make_proxy(secured(certificates), server=debian_postgres)
    with Raw(penstock.port) as raw:
        raw.send(b"\0\0\0\x08\x04\xd2\x16\x2f" + startup(user="app", database="app"))
        assert b"unencrypted data" in b"".join(body for _, body in raw.to_the_end())
