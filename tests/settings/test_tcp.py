"""The settings of raw TCP: URLs, scripts, and what does not go with what."""

import pytest

from proxy.settings import read
from proxy.settings.dsn import parse_dsn

POOL = '[pools.cache]\nbackend = "tcp://cache:6379"\n'
LISTENER = '[listeners.main]\nprotocol = "tcp"\npool = "cache"\n'
SCRIPTS = 'share = "stateless"\nreset_script = { send = "A", expect = "B" }\n'
POSTGRES = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'


@pytest.mark.parametrize(
    ("text", "place", "sslmode"),
    [
        ("tcp://cache.internal:6379", "cache.internal:6379", "disable"),
        ("tcp://[::1]:6379", "[::1]:6379", "disable"),
        ("tls://cache.internal:6380", "cache.internal:6380", "verify-full"),
        ("tls://cache:6380?sslmode=require", "cache:6380", "require"),
        ("tls://cache:6380?sslrootcert=/ca.pem&sslmode=require", "cache:6380", "verify-ca"),
        ("tls://cache:6380?sslcert=/c.pem&sslkey=/k.pem&sslrootcert=system", "cache:6380", "verify-full"),
        ("unix:/run/cache.sock", "/run/cache.sock", "disable"),
    ],
)
def test_a_url_says_where_the_server_is(text: str, place: str, sslmode: str) -> None:
    address = parse_dsn(text)
    assert (address.protocol, address.place, address.sslmode) == ("tcp", place, sslmode)
    assert (address.user, address.database, address.password) == ("", "", None)
    assert parse_dsn(address.masked()) == address


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tcp://cache", "no host with its port"),
        ("tcp://:6379", "no host with its port"),
        ("tcp://cache:0", "from 1 to 65535"),
        ("tcp://cache:65536", "from 1 to 65535"),
        ("tcp://secret@cache:6379", "no user"),
        ("tcp://cache:6379/0", "from 1 to 65535"),
        ("tcp://cache:6379?sslmode=require", "goes? with tls://|go with tls://"),
        ("tls://cache:6379?sslmode=prefer", "begins with tcp://"),
        ("tls://cache:6379?sslcert=/c.pem", "go together"),
        ("tls://cache:6379?password=secret", "the parameters of a tls:// URL are"),
        ("tls://cache:6379?sslmode=require&sslmode=require", "given twice"),
        ("unix:cache.sock", "the whole path"),
        ("unix:/" + "x" * 107, "at most 107 bytes"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_repeating_it(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        parse_dsn(text)
    assert "secret" not in str(refused.value)


def test_a_pool_of_raw_tcp_gives_sessions_for_the_whole_connection(configuration) -> None:
    settings = configuration.load(LISTENER + POOL)
    assert settings.pools["cache"].pool_mode == "session"
    assert settings.pools["cache"].share == "never"


def test_scripts_are_bytes_written_as_text(configuration) -> None:
    text = POOL + 'share = "stateless"\n[pools.cache.reset_script]\nsend = "A\\r\\n"\nexpect = '
    written = r"""'\x00\n\\\t\0 é'"""
    settings = configuration.load(LISTENER + text + written)
    script = settings.pools["cache"].reset_script
    assert script is not None
    assert (script.send, script.expect) == (b"A\r\n", b"\0\n\\\t\0 \xc3\xa9")
    again = type(script).model_validate(script.model_dump())
    assert again == script


@pytest.mark.parametrize(
    ("lines", "key", "sentence"),
    [
        ('pool_mode = "transaction"', "pool_mode", "nobody can tell where a transaction"),
        ('password = "x"', "password", "nobody logs in"),
        ('share = "stateless"', "share", "needs a reset_script"),
        ('ping_script = { send = "A", expect = "B" }', "ping_script", "spends it"),
        (SCRIPTS + 'send_proxy = "v1"', "send_proxy", "gives it to several"),
        ('affinity = "key"', "affinity", "over plain TCP none can"),
        ('role = "writer"', "role", "is for PostgreSQL"),
        ('reset_script = { send = "\\\\q", expect = "B" }', "reset_script.send", "the escapes are"),
        ('reset_script = { send = "", expect = "B" }', "reset_script.send", "expected text with escapes"),
    ],
)
def test_what_does_not_go_with_raw_tcp_is_a_mistake(
    configuration, lines: str, key: str, sentence: str
) -> None:
    assert sentence in configuration.mistakes(LISTENER + POOL + lines)[f"penstock.toml: pools.cache.{key}"]


def test_a_header_cannot_stand_in_front_of_a_tls_that_is_made_already(configuration) -> None:
    text = LISTENER + '[pools.cache]\nbackend = "tls://cache:6380"\nsend_proxy = "v2"'
    assert "stands in front of TLS" in configuration.only_mistake(text)


@pytest.mark.parametrize("line", ['share = "stateless"', 'send_proxy = "v1"'])
def test_what_is_for_raw_tcp_is_a_mistake_with_postgresql(configuration, line: str) -> None:
    assert "tcp://" in configuration.only_mistake(POSTGRES + line)


@pytest.mark.parametrize(
    ("lines", "key", "sentence"),
    [
        ('protocol = "tcp"', "pool", "is required"),
        ('protocol = "tcp"\npool = "cache"\nauth = "trust"', "auth", "nobody proves who it is"),
        ('protocol = "tcp"\npool = "app"', "pool", 'to servers of "postgres"'),
        ('pool = "cache"', "pool", 'to servers of "tcp"'),
        ('protocol = "redis"', "protocol", "not built yet"),
        ('proxy_protocol = "maybe"', "proxy_protocol", "require"),
    ],
)
def test_listeners_lead_to_pools_of_their_protocol(
    configuration, lines: str, key: str, sentence: str
) -> None:
    found = configuration.mistakes(f"[listeners.main]\n{lines}\n{POOL}{POSTGRES}")
    assert sentence in found[f"penstock.toml: listeners.main.{key}"]


def test_tls_is_not_a_matter_of_taste_over_raw_tcp(configuration) -> None:
    text = LISTENER + 'tls_mode = "allow"\n' + POOL
    assert any('"require" or "disable"' in sentence for sentence in configuration.mistakes(text).values())


def test_nobody_has_to_be_able_to_log_in_to_raw_tcp(configuration, tmp_path) -> None:
    file = configuration.write(LISTENER + POOL)
    assert read(file, {}, {}).warnings() == []
