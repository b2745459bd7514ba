"""Certificates that are exchanged while clients are there, chosen by name, revoked; versions of TLS."""

import signal
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from certificate_shop import Mounted, issue, revocation_list
from integration.looking import until
from integration.raw import Raw
from integration.test_tls import secured
from proxy.embedded import EmbeddedPostgres
from servers import Certificates, Penstock

pytestmark = [pytest.mark.integration, pytest.mark.tls]
Make = Callable[..., Penstock]


def shown(port: int, name: str | None = None) -> bytes:
    """The certificate that a client is shown which asks for this name."""
    with Raw(port) as client:
        client.send(b"\0\0\0\x08\x04\xd2\x16\x2f")
        assert client.sock.recv(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.sock = sock = context.wrap_socket(client.sock, server_hostname=name)
        certificate = sock.getpeercert(True)
        assert certificate is not None
        return certificate


def strictly(penstock: Penstock, certificates: Certificates) -> str:
    """A URL that demands all that TLS can give."""
    return penstock.dsn(sslmode="verify-full", sslrootcert=str(certificates.ca), channel_binding="require")


def mounted(folder: Path, certificates: Certificates) -> Mounted:
    (folder / "secret").mkdir()
    return Mounted(folder / "secret", certificates.server)


def another(folder: Path, certificates: Certificates, name: str = "another") -> tuple[Path, Path]:
    (folder / name).mkdir()
    return issue(folder / name, certificates, "localhost", "DNS:localhost,IP:127.0.0.1")


def test_an_exchanged_secret_is_shown_to_new_clients_while_others_work_on(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    secret, fresh = mounted(folder, certificates), another(folder, certificates)
    text = 'tls_reload_interval = "100ms"\n' + secured(replace(certificates, server=secret.pair))
    penstock = make_proxy(text, server=debian_postgres)
    before, expiry = shown(penstock.port), penstock.metric("penstock_tls_certificate_expiry_seconds")
    stop, worked = threading.Event(), [0]

    def work() -> None:
        with psycopg.connect(strictly(penstock, certificates), autocommit=True) as old:
            while not stop.is_set():
                assert old.execute("SELECT 1").fetchone() == (1,)
                with psycopg.connect(strictly(penstock, certificates)) as client:
                    assert client.execute("SELECT 2").fetchone() == (2,)
                worked[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        until(lambda: worked[0] > 2)
        secret.exchange(fresh)
        until(lambda: shown(penstock.port) != before)
        done = worked[0]
        until(lambda: worked[0] > done + 2)
    finally:
        stop.set()
        worker.join()
    assert penstock.metric("penstock_tls_reloads_total", listener="main", outcome="loaded") == 1
    assert 0 < penstock.metric("penstock_tls_certificate_expiry_seconds") < expiry
    assert penstock.metric("penstock_client_refusals_total") == 0


def test_a_pair_that_is_half_written_changes_nothing(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    fresh, home = another(folder, certificates), folder / "mine"
    home.mkdir()
    pair = home / "tls.crt", home / "tls.key"
    for path, source in zip(pair, certificates.server, strict=True):
        path.write_bytes(source.read_bytes())
    text = 'tls_reload_interval = "100ms"\n' + secured(replace(certificates, server=pair))
    penstock = make_proxy(text, server=debian_postgres)
    before = shown(penstock.port)
    pair[0].write_bytes(fresh[0].read_bytes())
    until(lambda: penstock.events("certificates_refused"))
    assert shown(penstock.port) == before
    with psycopg.connect(strictly(penstock, certificates)) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    pair[1].write_bytes(fresh[1].read_bytes())
    until(lambda: shown(penstock.port) != before)
    [refused] = penstock.events("certificates_refused")
    assert refused["error"] == "tls_key_file: is not the key of the certificate"
    assert penstock.metric("penstock_tls_reloads_total", outcome="failed") == 1


def test_a_reload_reads_certificates_where_nobody_looks_by_itself(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    secret, fresh = mounted(folder, certificates), another(folder, certificates)
    authorities = folder / "authorities.crt"
    authorities.write_bytes(certificates.ca.read_bytes())
    backend = f"sslmode=verify-full&sslrootcert={authorities}&channel_binding=require"
    text = 'tls_reload_interval = "off"\n' + secured(
        replace(certificates, server=secret.pair), "allow", backend
    )
    penstock = make_proxy(text, server=debian_postgres)
    before = shown(penstock.port)
    with psycopg.connect(strictly(penstock, certificates), autocommit=True) as client:
        first = client.execute("SELECT pg_backend_pid()").fetchone()
        secret.exchange(fresh)
        authorities.write_bytes(certificates.ca.read_bytes() + certificates.stranger_ca.read_bytes())
        penstock.signal(signal.SIGHUP)
        until(lambda: shown(penstock.port) != before)
        # The sessions were opened under other certificates: the next one is new.
        until(lambda: penstock.events("pool_renewed"))
        assert client.execute("SELECT pg_backend_pid()").fetchone() != first
    assert penstock.metric("penstock_pool_drops_total", reason="generation") >= 1
    assert penstock.metric("penstock_tls_reloads_total", outcome="loaded") == 1
    assert penstock.metric("penstock_pool_tls_reloads_total", outcome="loaded") == 1


def test_a_name_leads_to_its_own_certificate_and_every_other_to_the_usual_one(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    (folder / "sni").mkdir()
    cert, key = issue(
        folder / "sni", certificates, "db.example.com", "DNS:db.example.com,DNS:*.db.example.com"
    )
    usual = ssl.PEM_cert_to_DER_cert(certificates.server[0].read_text())
    own = ssl.PEM_cert_to_DER_cert(cert.read_text())
    table = (
        f'[listeners.main.tls_sni."db.example.com"]\ncert_file = "{cert}"\nkey_file = "{certificates.ca}"\n'
        f'[listeners.main.tls_sni."*.db.example.com"]\ncert_file = "{cert}"\nkey_file = "{key}"\n'
    )
    # A variable goes before the file, also in a table that is named after a host.
    variable = {"PENSTOCK_LISTENERS__MAIN__TLS_SNI__DB_EXAMPLE_COM__KEY_FILE": str(key)}
    penstock = make_proxy(secured(certificates, more=table), server=debian_postgres, env=variable)
    for name, expected in (
        ("db.example.com", own),
        ("DB.Example.com", own),
        ("eu.db.example.com", own),
        ("example.com", usual),
        ("a.eu.db.example.com", usual),
        (None, usual),
    ):
        assert shown(penstock.port, name) == expected, name
    # The channel is bound to the certificate that was really shown.
    place = penstock.dsn().replace("@127.0.0.1:", "@db.example.com:")
    strict = f"hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={certificates.ca}&channel_binding=require"
    with psycopg.connect(f"{place}?{strict}") as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_revoked_certificate_of_a_client_is_refused(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    good, bad = (another(folder, certificates, name) for name in ("good", "bad"))
    crl = revocation_list(folder, certificates, bad[0])
    files = f'tls_ca_file = "{certificates.ca}"\ntls_crl_file = "{crl}"'
    penstock = make_proxy(secured(certificates, "verify-ca", listener=files), server=debian_postgres)

    def connect(pair: tuple[Path, Path]) -> psycopg.Connection:
        cert, key = map(str, pair)
        return psycopg.connect(penstock.dsn(sslmode="require", sslcert=cert, sslkey=key))

    with connect(good) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        connect(bad)
    [refused] = until(lambda: penstock.events("client_refused"))
    assert refused["detail"] == "TLS failed: certificate verify failed: certificate revoked"
    assert penstock.metric("penstock_tls_failures_total", reason="certificate") == 1


def test_a_server_whose_certificate_is_revoked_is_refused(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates, folder: Path
) -> None:
    crl = revocation_list(folder, certificates, certificates.server[0])
    backend = f"sslmode=verify-ca&sslrootcert={certificates.ca}&sslcrl={crl}"
    penstock = make_proxy(secured(certificates, "disable", backend), server=debian_postgres)
    until(lambda: "certificate revoked" in penstock.http("/readyz").text)


def test_what_was_wrong_with_a_handshake_is_logged_and_counted(
    make_proxy: Make, debian_postgres: EmbeddedPostgres, certificates: Certificates
) -> None:
    more = 'tls_min_version = "1.3"\nlogin_timeout = "1s"'
    penstock = make_proxy(secured(certificates, listener=more), server=debian_postgres)
    with psycopg.connect(penstock.dsn(sslmode="require")) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(penstock.dsn(sslmode="require", ssl_max_protocol_version="TLSv1.2"))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(penstock.dsn(sslmode="verify-ca", sslrootcert=str(certificates.stranger_ca)))
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"stranger" * 8, b"\x16\x03"):
        with Raw(penstock.port) as raw:
            raw.send(b"\0\0\0\x08\x04\xd2\x16\x2f")
            assert raw.sock.recv(1) == b"S"
            raw.send(said)
            assert raw.is_closed()
    failures = "penstock_tls_failures_total"
    for reason, count in (("version", 1), ("rejected", 1), ("not_tls", 2), ("timeout", 1)):
        assert penstock.metric(failures, reason=reason) == count, reason
    details = [entry["detail"] for entry in penstock.events("client_refused")]
    assert "TLS failed: the client speaks HTTP" in details
    assert "TLS failed: the client does not accept our certificate: it does not know who signed it" in details
    assert any("the TLS handshake is not finished" in detail for detail in details)
