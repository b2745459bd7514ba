"""TLS in the configuration: of listeners, and in the URL of a backend."""

from pathlib import Path

import pytest

from proxy.settings.dsn import parse_dsn
from proxy.settings.listener_tls import files_of
from servers import Certificates


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require&sslnegotiation=direct",
        "sslmode=verify-ca&ssl_min_protocol_version=TLSv1.3&sslsni=0",
        "sslmode=verify-full&channel_binding=require",
        "channel_binding=disable",
        "sslmode=verify-full&sslcrl=/etc/crl.pem",
    ],
)
def test_what_the_url_says_about_tls_is_shown_as_it_was_written(query: str) -> None:
    address = parse_dsn(f"postgresql://app:x@db/app?{query}")
    assert parse_dsn(address.masked()).tls == address.tls
    assert set(address.tls.written().items()) <= {tuple(pair.split("=")) for pair in query.split("&")}


def test_servers_of_an_unknown_protocol_take_what_concerns_tls_alone() -> None:
    url = "tls://cache:6380?sslmode=verify-ca&sslsni=0&ssl_min_protocol_version=TLSv1.3&sslcrl=/etc/crl.pem"
    address = parse_dsn(url)
    assert (address.tls.min_version, address.tls.sslsni, address.tls.sslcrl) == ("1.3", "0", "/etc/crl.pem")
    assert parse_dsn(address.masked()) == address
    with pytest.raises(ValueError, match="the parameters of a tls:// URL"):
        parse_dsn("tls://cache:6380?sslnegotiation=direct")


def test_what_happens_anyway_may_be_written() -> None:
    usual = "sslnegotiation=postgres&sslsni=1&channel_binding=prefer&ssl_min_protocol_version=TLSv1.2"
    assert parse_dsn(f"postgresql://app@db/app?{usual}") == parse_dsn("postgresql://app@db/app")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("sslnegotiation=direct", "sslnegotiation=direct needs sslmode"),
        ("sslmode=require&sslnegotiation=secret", "sslnegotiation is one of postgres, direct"),
        ("channel_binding=require", "channel_binding=require needs TLS"),
        ("host=/run/x&sslmode=require&channel_binding=require", "channel_binding=require needs TLS"),
        ("ssl_min_protocol_version=TLSv1", "ssl_min_protocol_version is one of TLSv1.2, TLSv1.3"),
        ("sslmode=require&sslcrl=/etc/crl.pem", "sslcrl needs sslmode=verify-ca"),
        ("sslmode=verify-full&sslcrl=", "the path of a file"),
        ("sslmode=verify-full&sslsni=0", "use verify-ca"),
        ("sslsni=secret", "sslsni is one of 0, 1"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(query: str, sentence: str) -> None:
    place = "" if query.startswith("host=") else "db"
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_dsn(f"postgresql://app@{place}/app?{query}")
    assert "secret" not in str(caught.value)


def listener(certificates: Certificates, more: str) -> str:
    cert, key = certificates.server
    return (
        '[pools.app]\nbackend = "postgresql://app:x@db/app"\n[listeners.main]\ntls_mode = "allow"\n'
        f'tls_cert_file = "{cert}"\ntls_key_file = "{key}"\n{more}'
    )


def test_a_listener_s_table_becomes_its_files(configuration, certificates: Certificates) -> None:
    cert, key = certificates.server
    more = (
        f'tls_min_version = "1.3"\ntls_ciphers = "ECDHE+AESGCM"\ntls_ca_file = "{certificates.ca}"\n'
        f'[listeners.main.tls_sni."*.db.internal"]\ncert_file = "{cert}"\nkey_file = "{key}"\n'
    )
    made = files_of(configuration.load(listener(certificates, more)).listeners["main"])
    assert made is not None
    assert (made.min_version, made.ciphers, made.ca) == ("1.3", "ECDHE+AESGCM", str(certificates.ca))
    assert made.names == (("*.db.internal", str(cert), str(key)),)
    assert made.alpn


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ('tls_ciphers = "none"', "listeners.main.tls_ciphers: names no cipher"),
        ('tls_crl_file = "$ca"', "listeners.main.tls_crl_file: needs tls_ca_file"),
        ('tls_ca_file = "$ca"\ntls_crl_file = "$ca"', "tls_crl_file: holds no list of revoked"),
        ('tls_min_version = "1.1"', 'tls_min_version: expected "1.2" or "1.3"'),
        ('[listeners.main.tls_sni."a b"]\ncert_file = "$cert"\nkey_file = "$key"', "is not a host name"),
        (
            '[listeners.main.tls_sni.db]\ncert_file = "$cert"\nkey_file = "$other"',
            "db.key_file: is not the key",
        ),
        ('[listeners.main.tls_sni.db]\ncert_file = "$cert"', "db.key_file: is required"),
    ],
)
def test_files_that_do_not_load_are_named(
    configuration, certificates: Certificates, more: str, mistake: str
) -> None:
    files: dict[str, Path] = {
        "$ca": certificates.ca,
        "$cert": certificates.server[0],
        "$key": certificates.server[1],
        "$other": certificates.client[1],
    }
    for name, path in files.items():
        more = more.replace(name, str(path))
    found = configuration.mistakes(listener(certificates, more))
    assert any(mistake in f"{place}: {sentence}" for place, sentence in found.items()), found
