import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigError
from proxy.settings import check_descriptors, load, raise_descriptor_limit, read
from proxy.settings.address import Address

APP = '[pools.app]\nbackend = "postgresql://app:x@db/app"\n'


def test_one_variable_is_enough(configuration) -> None:
    settings = configuration.load(PENSTOCK_DATABASE_URL="postgresql://app:x@db/shop")
    assert settings.listeners["main"].address == Address("127.0.0.1", 6432)
    assert list(settings.pools) == ["shop"]
    assert settings.pools["shop"].dsn.password.get_secret_value() == "x"


def test_without_anything_the_one_variable_is_named(configuration) -> None:
    assert "PENSTOCK_DATABASE_URL=postgresql://" in configuration.only_mistake()
    assert "PENSTOCK_DATABASE_URL=postgresql://" in configuration.only_mistake("")


def test_the_pool_of_the_one_variable_can_be_tuned(configuration) -> None:
    settings = configuration.load(
        PENSTOCK_DATABASE_URL="postgresql://app:x@db/shop", PENSTOCK_POOLS__SHOP__MAX="3"
    )
    assert settings.pools["shop"].limits.max == 3


def test_a_pool_of_another_name_may_stand_beside_the_one_variable(configuration) -> None:
    settings = configuration.load(APP, PENSTOCK_DATABASE_URL="postgresql://app:x@db/shop")
    assert sorted(settings.pools) == ["app", "shop"]


def test_a_second_backend_for_the_same_name_is_a_mistake(configuration) -> None:
    mistake = configuration.only_mistake(APP, PENSTOCK_DATABASE_URL="postgresql://app:x@db/app")
    assert mistake.startswith("penstock.toml: pools.app.backend: database_url makes a pool of this name too")


def test_a_one_variable_without_a_database_is_a_mistake(configuration) -> None:
    assert "names no database" in configuration.only_mistake(PENSTOCK_DATABASE_URL="postgresql://app:x@db")


def test_command_line_beats_environment_beats_secrets_beats_file(configuration, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for key in ("max", "min", "increment"):
        (secrets / f"pools__app__{key}").write_text("3\n")
    configuration.overrides = {"pools": {"app": {"max": "5"}}}
    configuration.environ = {"PENSTOCK_SECRETS_DIR": str(secrets)}
    text = APP + "max = 2\nmin = 2\nincrement = 2\nmax_opening = 2\n"
    pool = configuration.load(text, PENSTOCK_POOLS__APP__MAX="4", PENSTOCK_POOLS__APP__MIN="4").pools["app"]
    assert (pool.max, pool.min, pool.increment, pool.max_opening) == (5, 4, 3, 2)


def test_secrets_are_read_from_folders_and_kubernetes_links_are_skipped(
    configuration, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "pools" / "app").mkdir(parents=True)
    (secrets / "pools" / "app" / "password").write_text("from-folder\n")
    (secrets / "..data").mkdir()
    (secrets / "..data" / "pools__app__nonsense").write_text("x")
    (secrets / "somebody-elses").write_text("x")
    text = '[pools.app]\nbackend = "postgresql://app@db/app"\n'
    pool = configuration.load(text, PENSTOCK_SECRETS_DIR=str(secrets)).pools["app"]
    assert pool.dsn.password.get_secret_value() == "from-folder"


def test_a_typo_in_the_secrets_directory_is_a_mistake(configuration, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "pools__app__pasword").write_text("x")
    mistake = configuration.only_mistake(APP, PENSTOCK_SECRETS_DIR=str(secrets))
    assert "pools__app__pasword" in mistake
    assert "did you mean" in mistake


def test_a_missing_secrets_directory_is_a_mistake(configuration, tmp_path: Path) -> None:
    mistake = configuration.only_mistake(APP, PENSTOCK_SECRETS_DIR=str(tmp_path / "none"))
    assert "cannot read the secrets directory" in mistake


def test_a_variable_finds_a_name_with_hyphens_and_capitals(configuration) -> None:
    text = '[pools.My-Db]\nbackend = "postgresql://app:x@db/app"\n'
    assert configuration.load(text, PENSTOCK_POOLS__MY_DB__MAX="7").pools["My-Db"].max == 7


def test_a_list_in_a_variable_is_written_with_commas(configuration) -> None:
    pool = configuration.load(APP, PENSTOCK_POOLS__APP__CLIENT_MAY_SET="wait, forceget").pools["app"]
    assert pool.limits.client_may_set == {"wait", "forceget"}


def test_an_empty_variable_counts_as_not_set(configuration) -> None:
    assert configuration.load(APP, PENSTOCK_POOLS__APP__MAX="", PENSTOCK_NONSENSE="").pools["app"].max == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_SERVICE_HOST", "10.0.0.1"),
        ("PENSTOCK_SERVICE_PORT", "6432"),
        ("PENSTOCK_SERVICE_PORT_METRICS", "9127"),
        ("PENSTOCK_PORT", "tcp://10.0.0.1:6432"),
        ("PENSTOCK_PORT_6432_TCP", "tcp://10.0.0.1:6432"),
        ("PENSTOCK_PORT_6432_TCP_PROTO", "tcp"),
        ("PENSTOCK_PORT_6432_TCP_PORT", "6432"),
        ("PENSTOCK_PORT_6432_TCP_ADDR", "10.0.0.1"),
        ("PENSTOCK_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("PENSTOCK_METRICS_SERVICE_PORT_HTTP", "9127"),
        ("PENSTOCK_METRICS_PORT", "tcp://10.0.0.1:9127"),
        ("PENSTOCK_METRICS_PORT_9127_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_injects_for_a_service_is_left_alone(configuration, name: str, value: str) -> None:
    configuration.load(APP, **{name: value})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PENSTOCK_POLS__APP__MAX", "did you mean PENSTOCK_POOLS__APP__MAX?"),
        ("PENSTOCK_DATABSE_URL", "did you mean PENSTOCK_DATABASE_URL?"),
        ("PENSTOCK_CONFGI", "did you mean PENSTOCK_CONFIG?"),
        ("PENSTOCK_POOLS_APP_MAX", "PENSTOCK_POOLS__<NAME>__<KEY>"),
        ("PENSTOCK_PORT", "is not a known variable"),
        ("PENSTOCK_XYZ", "is not a known variable"),
        ("PENSTOCK_POOLS__APP__MAKS", "did you mean PENSTOCK_POOLS__APP__MAX?"),
        ("PENSTOCK_POOLS__APP____MAX", "empty part"),
        ("PENSTOCK_POOLS__APP__MAX__X", "expected a whole number"),
    ],
)
def test_an_unknown_variable_is_a_mistake_with_a_hint(configuration, name: str, hint: str) -> None:
    mistakes = configuration.mistakes(APP, **{name: "7"})
    assert hint in mistakes[name.removesuffix("__X")]


def test_two_variables_that_collide_are_a_mistake(configuration) -> None:
    mistakes = configuration.mistakes(APP, PENSTOCK_POOLS__APP="x", PENSTOCK_POOLS__APP__MAX="3")
    assert "PENSTOCK_POOLS__APP__MAX" in mistakes


def test_every_mistake_is_reported_at_once_where_it_was_made(configuration) -> None:
    text = """
        drain_timeout = 30
        [pool.app]
        max = 3
        [pools.app]
        backend = "postgresql://app:x@db/app"
        maks = 3
        getmode = "fast"
        [pools.orders]
        backend = "postgresql://orders@db/orders"
        [users.bob]
        pools = ["order"]
        password = "x"
        [listeners.main]
        protocol = "redis"
        """
    mistakes = configuration.mistakes(text, PENSTOCK_POOLS__APP__MIN="few", PENSTOCK_NONSENSE="1")
    assert set(mistakes) == {
        "PENSTOCK_NONSENSE",
        "PENSTOCK_POOLS__APP__MIN",
        "penstock.toml: drain_timeout",
        "penstock.toml: pool",
        "penstock.toml: pools.app.maks",
        "penstock.toml: pools.app.getmode",
        "penstock.toml: users.bob.pools",
        "penstock.toml: listeners.main.protocol",
    }
    assert mistakes["penstock.toml: pool"] == "is not a known setting; did you mean pools?"
    assert mistakes["penstock.toml: pools.app.maks"] == "is not a known setting; did you mean pools.app.max?"
    assert "did you mean orders?" in mistakes["penstock.toml: users.bob.pools"]
    assert "not built yet" in mistakes["penstock.toml: listeners.main.protocol"]
    assert (
        mistakes["penstock.toml: pools.app.getmode"] == 'expected "wait", "nowait", "timedwait" or "forceget"'
    )


def test_the_place_is_the_source_whose_value_counts(configuration) -> None:
    configuration.overrides = {"pools": {"app": {"min": "x"}}}
    mistakes = configuration.mistakes(APP + 'max = "x"\nmin = "x"\n', PENSTOCK_POOLS__APP__MAX="y")
    assert set(mistakes) == {"PENSTOCK_POOLS__APP__MAX", "--set pools.app.min"}


def test_a_missing_key_is_named_in_the_style_of_its_table(configuration) -> None:
    assert (
        configuration.only_mistake("[pools.app]\nmax = 3") == "penstock.toml: pools.app.backend: is required"
    )
    assert (
        configuration.only_mistake(PENSTOCK_POOLS__APP__MAX="3")
        == "PENSTOCK_POOLS__APP__BACKEND: is required"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = [", "is not valid TOML"),
        ("a = 1\na = 2", "is not valid TOML"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_what_is_no_toml_is_a_mistake_of_the_file(configuration, text: str, sentence: str) -> None:
    assert sentence in configuration.only_mistake(text)


def test_a_file_that_is_not_utf8_is_a_mistake(configuration, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file, environ={})


def test_a_missing_file_is_a_mistake_whoever_named_it(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read the configuration file: No such file"):
        load(file, environ={})
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read the configuration file: No such file"):
        load(environ={"PENSTOCK_CONFIG": str(file)})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, environ={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_a_mistake(configuration) -> None:
    file = configuration.write(APP)
    file.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load(file, environ={})


def test_the_origin_of_each_value_is_known(configuration) -> None:
    loaded = read(configuration.write(APP + "max = 2\n"), None, {"PENSTOCK_POOLS__APP__MIN": "1"})
    assert loaded.origin(("pools", "app", "max")) == "penstock.toml: pools.app.max"
    assert loaded.origin(("pools", "app", "min")) == "PENSTOCK_POOLS__APP__MIN"
    assert loaded.origin(("pools", "app", "increment")) is None


def test_more_clients_than_descriptors_are_a_mistake_that_says_what_to_do(configuration) -> None:
    settings = configuration.load(APP + "max = 10\nmax_forced = 6\n[listeners.main]\nmax_clients = 100")
    assert check_descriptors(settings, 180) == []
    [(path, sentence)] = check_descriptors(settings, 179)
    assert path == ("listeners", "main", "max_clients")
    for word in ("max_clients (100)", "180", "179", "ulimit -n", "LimitNOFILE"):
        assert word in sentence
    mistake = configuration.only_mistake(APP + "[listeners.main]\nmax_clients = 2000000000")
    assert mistake.startswith("penstock.toml: listeners.main.max_clients: ")


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert raise_descriptor_limit() == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_two_loads_of_the_same_configuration_are_equal_and_a_new_password_is_a_difference(
    configuration, secret_file
) -> None:
    text = f'[pools.app]\nbackend = "postgresql://app@db/app"\npassword_file = "{secret_file(b"one")}"\n'
    first = configuration.load(text)
    assert configuration.load(text) == first
    secret_file(b"two")
    assert configuration.load(text) != first


KEYS = [
    "pools",
    "listeners",
    "users",
    "http",
    "log",
    "app",
    "main",
    "*",
    "backend",
    "max",
    "min",
    "wait_timeout",
    "endpoints",
    "route",
    "rule",
    "keys",
    "from",
    "priority",
    "users",
    "weight",
    "labels",
    "preset",
    "max_idle",
    "reset",
]
KEYS += ["address", "password", "pool", "tls_mode", "auth", "client_may_set", "database_url", "level", "x"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        [
            "postgresql://app:x@db/app",
            "postgresql://u@/d?host=/x",
            "trust",
            "require",
            "5s",
            "off",
            "",
            "fixed",
            "range",
        ]
    ),
    st.text(max_size=6),
)
TREES = st.recursive(
    LEAVES,
    lambda children: (
        st.lists(children, max_size=2) | st.dictionaries(st.sampled_from(KEYS), children, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5))
def test_any_tree_is_settings_or_mistakes(tree: dict[str, object]) -> None:
    try:
        load(Path(os.devnull), tree, {})
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        return
    assert mistakes
    assert all(place and sentence for place, sentence in mistakes)
