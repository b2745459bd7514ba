import base64
import math

import pytest

from proxy.pool.limits import FORCEGET, LRU, OFF, TIMEDWAIT, Limits
from proxy.settings import Settings, read

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'
KEY = base64.b64encode(b"k" * 32).decode()
SCRAM = f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}"
MD5 = "md5" + "0" * 32


def test_a_pool_without_settings_has_the_limits_of_the_design(configuration) -> None:
    assert configuration.load(APP).pools["app"].limits == Limits()


def test_a_pool_becomes_limits(configuration) -> None:
    text = (
        APP
        + """
        min = 1
        max = 3
        increment = 0
        getmode = "forceget"
        wait_timeout = "1m30s"
        max_waiting = 7
        ping_interval = "always"
        idle_timeout = "off"
        reuse = "lru"
        client_may_set = ["wait"]
        """
    )
    limits = configuration.load(text).pools["app"].limits
    assert limits == Limits(
        min=1,
        max=3,
        increment=1,
        getmode=FORCEGET,
        max_forced=3,
        wait_timeout=90.0,
        max_waiting=7,
        ping_interval=0.0,
        idle_timeout=OFF,
        reuse=LRU,
        client_may_set=frozenset({"wait"}),
    )


def test_max_forced_is_zero_unless_the_pool_itself_forces(configuration) -> None:
    assert configuration.load(APP + 'client_may_set = ["forceget"]').pools["app"].limits.max_forced == 0
    limits = configuration.load(APP + 'getmode = "forceget"\nmax_forced = 2').pools["app"].limits
    assert (limits.max_forced, limits.ceiling) == (2, 12)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("min = 11", "min (11) is above max (10)"),
        ("max = 0", "must be at least 1"),
        ("min = -1", "must be at least 0"),
        ("max_forced = -1", "must be at least 0"),
        ("max = true", "expected a whole number"),
        ("max = 2.5", "expected a whole number"),
        ("max_waiting = 0", 'getmode = "nowait"'),
        ('max_waiting = "x"', '"off"'),
        ("wait_timeout = 30", "others in milliseconds"),
        ("wait_timeout = 0.5", "others in milliseconds"),
        ('wait_timeout = "30"', "others in milliseconds"),
        ("wait_timeout = []", "expected a duration"),
        ('ping_timeout = "0s"', "longer than zero"),
        ('wait_timeout = "always"', "has no meaning here"),
        ('ping_timeout = "off"', "has no meaning here"),
        ('connect_timeout = "off"', "has no meaning here"),
        ('ping_interval = "often"', '"off" or "always"'),
        ('tcp_keepalive_idle = "1500ms"', "whole seconds"),
        ('tcp_keepalive = "perhaps"', "true or false"),
        ('client_may_set = ["nowait", "maybe"]', 'expected "wait", "nowait"'),
        ("client_may_set = 3", "expected a list"),
        ('pool_mode = "command"', 'expected "transaction", "session" or "statement"'),
        ('password = "y"', "given twice"),
        ('password_file = "/x"', "given twice"),
        ("password_file = 3", "expected text in quotes"),
    ],
)
def test_a_wrong_value_of_a_pool_is_refused_with_a_sentence(configuration, line: str, sentence: str) -> None:
    mistake = configuration.only_mistake(APP + line)
    key = line.split()[0]
    assert mistake.startswith(f"penstock.toml: pools.app.{key}: ")
    assert sentence in mistake


def test_a_table_that_is_no_table_is_a_mistake(configuration) -> None:
    assert "expected a table" in configuration.only_mistake("pools = 3")
    assert "expected a table" in configuration.only_mistake("[pools]\napp = 3")


def test_a_password_file_is_read_without_its_newline(configuration, secret_file) -> None:
    file = secret_file(b" pw \r\n")
    text = f'[pools.app]\nbackend = "postgresql://app@db/app"\npassword_file = "{file}"'
    assert configuration.load(text).pools["app"].dsn.password.get_secret_value() == " pw "


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8"), (b"a\0b", "zero byte"), (b"x" * 5000, "larger")],
)
def test_a_password_file_without_a_password_is_a_mistake(
    configuration, secret_file, content: bytes, sentence: str
) -> None:
    text = f'[pools.app]\nbackend = "postgresql://app@db/app"\npassword_file = "{secret_file(content)}"'
    assert sentence in configuration.only_mistake(text)


def test_a_password_written_where_its_file_belongs_is_not_repeated(configuration) -> None:
    text = '[pools.app]\nbackend = "postgresql://app@db/app"\npassword_file = "hunter2"'
    mistake = configuration.only_mistake(text)
    assert "No such file" in mistake
    assert "hunter2" not in mistake


def test_certificates_of_a_backend_are_loaded_at_once(configuration, certificate) -> None:
    cert, key = certificate
    url = f"postgresql://app:x@db/app?sslmode=verify-full&sslrootcert={cert}&sslcert={cert}&sslkey={key}"
    assert configuration.load(f'[pools.app]\nbackend = "{url}"').pools["app"].dsn.sslkey == str(key)
    mistake = configuration.only_mistake(f'[pools.app]\nbackend = "{url.replace(str(key), "/none")}"')
    assert "pools.app.backend: sslkey: the file cannot be read" in mistake


def test_the_pool_for_any_database_may_leave_the_database_out(configuration) -> None:
    settings = configuration.load('[pools."*"]\nbackend = "postgresql://app:x@db"')
    assert settings.pools["*"].dsn.database == ""
    assert "names no database" in configuration.only_mistake('[pools.app]\nbackend = "postgresql://app:x@db"')


@pytest.mark.parametrize(
    ("lines", "key", "sentence"),
    [
        ('address = "0.0.0.0:1"\nauth = "trust"', "auth", "loopback address or a Unix socket"),
        ('tls_mode = "require"', "tls_cert_file", "is required"),
        ('tls_mode = "require"', "tls_key_file", "is required"),
        ('tls_mode = "verify-ca"', "tls_ca_file", "is required"),
        ('tls_mode = "on"', "tls_mode", "expected"),
        ('protocol = "redis"', "protocol", '"redis" is not built yet'),
        ('protocol = "http"', "protocol", 'expected "postgres"'),
        ('unix_socket_mode = "0999"', "unix_socket_mode", "octal"),
        ("unix_socket_mode = 0o777", "unix_socket_mode", "octal"),
        ("max_clients = 0", "max_clients", "at least 1"),
        ('login_timeout = "off"', "login_timeout", "no meaning here"),
        ('pool = "ap"', "pool", "did you mean app?"),
        ("max_message_bytes = 2147483648", "max_message_bytes", "at most 1073741823"),
        ("address = 6432", "address", "expected an address"),
        ('address = "127.0.0.1:9127"', "address", "is the address of http already"),
    ],
)
def test_a_wrong_value_of_a_listener_is_refused_with_a_sentence(
    configuration, lines: str, key: str, sentence: str
) -> None:
    mistakes = configuration.mistakes(f"{APP}[listeners.main]\n{lines}")
    assert sentence in mistakes[f"penstock.toml: listeners.main.{key}"]


def test_trust_is_allowed_on_loopback_and_on_a_unix_socket(configuration) -> None:
    text = APP + '[listeners.a]\nauth = "trust"\n[listeners.b]\nauth = "trust"\naddress = "unix:/run/x"\n'
    assert len(configuration.load(text).listeners) == 2


def test_two_listeners_on_one_address_are_a_mistake_unless_the_kernel_picks_the_port(configuration) -> None:
    assert "is the address of listeners.a already" in configuration.only_mistake(
        APP + "[listeners.a]\n[listeners.b]"
    )
    port = 'address = "127.0.0.1:0"\n'
    configuration.load(f"{APP}[listeners.a]\n{port}[listeners.b]\n{port}")


def test_certificates_of_a_listener_are_loaded_at_once(configuration, certificate, secret_file) -> None:
    cert, key = certificate
    good = f'{APP}[listeners.main]\ntls_mode = "require"\ntls_cert_file = "{cert}"\ntls_key_file = "{key}"\n'
    assert configuration.load(good).listeners["main"].tls_key_file == str(key)
    swapped = good.replace(f'key_file = "{key}"', f'key_file = "{cert}"')
    assert "cannot be loaded (" in configuration.only_mistake(swapped)
    nonsense = good + f'tls_ca_file = "{secret_file(b"nonsense")}"\n'
    assert "no certificates can be loaded" in configuration.only_mistake(nonsense)


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(
    configuration, certificate, tmp_path
) -> None:
    import subprocess

    cert, key = certificate
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-aes256", "-passout", "pass:abcd", "-in", str(key), "-out", str(locked)],
        check=True,
        capture_output=True,
    )
    text = f'{APP}[listeners.main]\ntls_mode = "allow"\ntls_cert_file = "{cert}"\ntls_key_file = "{locked}"\n'
    assert "has a passphrase" in configuration.only_mistake(text)


def test_a_readable_password_on_the_network_is_a_warning(configuration) -> None:
    file = configuration.write(APP + '[listeners.main]\naddress = "0.0.0.0:6432"\nauth = "md5"')
    [(place, sentence)] = read(file, None, {}).warnings()
    assert place == "penstock.toml: listeners.main.auth"
    assert "without TLS" in sentence
    assert read(configuration.write(APP), None, {}).warnings() == []


def test_a_pools_own_user_needs_a_password_somewhere(configuration) -> None:
    bare = '[pools.app]\nbackend = "postgresql://shop@db/app"\n'
    mistake = configuration.only_mistake(bare)
    for word in ("pools.app", "pools.app.password_file", "users.shop.password"):
        assert word in mistake
    configuration.load(bare + '[users.shop]\npassword = "x"')
    configuration.load(bare + f'[users.shop]\nverifier = "{SCRAM}"')
    configuration.load(bare + '[listeners.main]\nauth = "trust"')


@pytest.mark.parametrize(
    ("lines", "auth", "key", "sentence"),
    [
        ("", "scram-sha-256", "password", "give password, password_file or verifier"),
        (f'verifier = "{MD5}"\nrun_as = "pool"', "scram-sha-256", "verifier", "cannot answer a listener"),
        (f'verifier = "{MD5}"', "md5", "verifier", "cannot log in to the server as the user itself"),
        (f'verifier = "{SCRAM}"', "md5", "verifier", 'auth = "md5"'),
        (f'password = "x"\nverifier = "{SCRAM}"', "md5", "verifier", "keep one of them"),
        ('verifier = "x"', "md5", "verifier", "pg_authid"),
        ('verifier = "SCRAM-SHA-256$0:c2FsdA==$x:x"', "md5", "verifier", "base64"),
        (f'verifier = "SCRAM-SHA-256$4096:c2FsdA==${KEY}:c2FsdA=="', "md5", "verifier", "32 bytes"),
        ('password = ""', "md5", "password", "empty"),
        ('password = "x"\npools = ["none"]', "md5", "pools", "does not exist"),
        ('password = "x"\nrun_as = "root"', "md5", "run_as", 'expected "" or "pool"'),
    ],
)
def test_a_user_who_could_not_log_in_is_a_mistake(
    configuration, lines: str, auth: str, key: str, sentence: str
) -> None:
    text = f'{APP}[listeners.main]\nauth = "{auth}"\n[users.bob]\n{lines}\n'
    mistakes = configuration.mistakes(text)
    assert list(mistakes) == [f"penstock.toml: users.bob.{key}"]
    assert sentence in mistakes[f"penstock.toml: users.bob.{key}"]


def test_a_listed_user_is_read(configuration, secret_file) -> None:
    text = f'{APP}[users.bob]\npassword_file = "{secret_file(b"pw")}"\npools = ["app"]\nadmin = true'
    user = configuration.load(text).users["bob"]
    assert (user.secret.get_secret_value(), user.pools, user.admin, user.run_as, user.md5) == (
        "pw",
        ("app",),
        True,
        "",
        False,
    )


def test_a_name_that_cannot_be_a_database_is_a_mistake(configuration) -> None:
    assert "1 to 63 bytes" in configuration.only_mistake(
        '[pools."a\\nb"]\nbackend = "postgresql://app:x@db/app"'
    )
    assert "1 to 63 bytes" in configuration.only_mistake(APP.replace("app]", "x" * 64 + "]"))


def test_http_and_log_are_read(configuration) -> None:
    settings = configuration.load(APP + '[http]\naddress = "off"\n[log]\nlevel = "debug"\nformat = "console"')
    assert settings.http.address is None
    assert (settings.log.level, settings.log.format) == ("debug", "console")
    assert settings.drain_timeout == 30.0


def test_settings_built_directly_read_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_POOLS__APP__MAX", "3")
    monkeypatch.setenv("POOLS", "nonsense")
    settings = Settings(pools={"app": {"backend": "postgresql://app:x@db/app"}}, drain_timeout="off")
    assert settings.pools["app"].limits.getmode == TIMEDWAIT
    assert settings.pools["app"].max == 10
    assert settings.drain_timeout == math.inf


def test_settings_are_frozen(configuration) -> None:
    settings = configuration.load(APP)
    with pytest.raises(ValueError):
        settings.pools["app"].max = 3


def test_one_user_with_two_passwords_must_be_listed(configuration) -> None:
    """A client that logs in proves one password, so two pools cannot disagree about it in silence."""
    text = APP + '[pools.other]\nbackend = "postgresql://app:y@db/other"\n'
    (mistake,) = configuration.mistakes(text).items()
    assert mistake[0].endswith("pools.other.backend")
    assert "users.app.password" in mistake[1]
    listed = text + '[users.app]\npassword = "x"\n'
    assert set(configuration.load(listed).pools) == {"app", "other"}
