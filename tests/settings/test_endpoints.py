import pytest

from proxy.settings import read
from proxy.settings.endpoints import Route
from proxy.settings.show import show, summary

EU = '[pools.app.endpoints.eu]\nbackend = "postgresql://app:x@eu/app"\n'
US = '[pools.app.endpoints.us]\nbackend = "postgresql://app:x@us/app"\n'


def route(rule: str, default: str | None = None) -> str:
    return f'[pools.app.route]\nrule = "{rule}"\n' + ("" if default is None else f'default = "{default}"\n')


def test_one_backend_is_one_endpoint_named_for_its_place(configuration) -> None:
    pool = configuration.load('[pools.app]\nbackend = "postgresql://app:x@db/app"').pools["app"]
    assert list(pool.endpoints) == ["db:5432"]
    assert pool.endpoints["db:5432"] == pool.dsn
    assert pool.route is None
    socket = "postgresql://app:x@/app?host=/run/pg"
    pool = configuration.load(f'[pools.app]\nbackend = "{socket}"').pools["app"]
    assert list(pool.endpoints) == ["/run/pg/.s.PGSQL.5432"]


def test_several_endpoints_stand_in_the_order_of_the_file(configuration) -> None:
    pool = configuration.load(US + EU).pools["app"]
    assert [(name, dsn.host) for name, dsn in pool.endpoints.items()] == [("us", "us"), ("eu", "eu")]
    assert pool.dsn.host == "us"
    assert "shard_key" not in pool.limits.client_may_set


def test_the_pools_password_is_that_of_every_endpoint(configuration, secret_file) -> None:
    text = (EU + US).replace(":x@", "@")
    for line in ('password = "pw"\n', f'password_file = "{secret_file(b"pw")}"\n'):
        pool = configuration.load("[pools.app]\n" + line + text).pools["app"]
        assert [dsn.password.get_secret_value() for dsn in pool.endpoints.values()] == ["pw", "pw"]
        mistake = configuration.only_mistake("[pools.app]\n" + line + text.replace("app@us", "app:y@us"))
        assert "given twice" in mistake


def test_an_endpoint_can_be_a_variable(configuration) -> None:
    environ = {
        "PENSTOCK_POOLS__APP__ENDPOINTS__EU__BACKEND": "postgresql://app:x@env/app",
        "PENSTOCK_POOLS__APP__ENDPOINTS__EU__KEYS": "eu,de",
        "PENSTOCK_POOLS__APP__ROUTE__RULE": "list",
        "PENSTOCK_POOLS__APP__ROUTE__DEFAULT": "eu",
    }
    pool = configuration.load(**environ).pools["app"]
    assert pool.endpoints["eu"].host == "env"
    assert pool.route == Route("list", ("eu",), keys=(("eu", ("eu", "de")),), default="eu")


def test_a_variable_finds_an_endpoint_with_hyphens_and_capitals(configuration) -> None:
    text = EU.replace("endpoints.eu", "endpoints.EU-1")
    environ = {"PENSTOCK_POOLS__APP__ENDPOINTS__EU_1__BACKEND": "postgresql://app:x@env/app"}
    pool = configuration.load(text, **environ).pools["app"]
    assert [(name, dsn.host) for name, dsn in pool.endpoints.items()] == [("EU-1", "env")]


def test_it_finds_it_even_where_a_secret_is_below_the_same_pool(configuration, tmp_path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "pools__app__password").write_text("pw")
    text = EU.replace("endpoints.eu", "endpoints.EU").replace(":x@", "@")
    environ = {"PENSTOCK_POOLS__APP__ENDPOINTS__EU__KEYS": "de", "PENSTOCK_POOLS__APP__ROUTE__RULE": "list"}
    pool = configuration.load(text, PENSTOCK_SECRETS_DIR=str(secrets), **environ).pools["app"]
    assert pool.route.keys == (("EU", ("de",)),)
    assert pool.dsn.password.get_secret_value() == "pw"


def test_a_list_leads_to_the_endpoint_that_names_the_key(configuration) -> None:
    text = EU + 'keys = ["eu", 7]\n' + US + route("list", "us")
    pool = configuration.load(text).pools["app"]
    assert pool.route == Route("list", ("eu", "us"), keys=(("eu", ("eu", "7")),), default="us")
    assert "shard_key" in pool.limits.client_may_set
    hash(pool.route)


@pytest.mark.parametrize(
    ("eu", "us", "ranges", "integers"),
    [
        ("to = 10", "from = 10", (("eu", None, "10"), ("us", "10", None)), True),
        ('from = "a"\nto = "m"', 'from = "m"', (("eu", "a", "m"), ("us", "m", None)), False),
        ("from = -5\nto = 9", "from = 10\nto = 20", (("eu", "-5", "9"), ("us", "10", "20")), True),
    ],
)
def test_a_range_ends_before_its_end(configuration, eu: str, us: str, ranges: object, integers: bool) -> None:
    pool = configuration.load(EU + eu + "\n" + US + us + "\n" + route("range")).pools["app"]
    assert pool.route == Route("range", ("eu", "us"), ranges=ranges, integers=integers)


def test_a_hash_needs_nothing_but_the_endpoints(configuration) -> None:
    pool = configuration.load(EU + US + route("hash", "")).pools["app"]
    assert pool.route == Route("hash", ("eu", "us"), default="")


def test_sharded_endpoints_may_differ_in_user_and_database(configuration) -> None:
    shard = US.replace("app:x@us/app", "us:y@us/us")
    pool = configuration.load(EU + shard + route("hash")).pools["app"]
    assert [(dsn.user, dsn.database) for dsn in pool.endpoints.values()] == [("app", "app"), ("us", "us")]


WRONG = [
    ("[pools.app]\nmax = 3\n", "backend", "is required"),
    ("[pools.app.endpoints]\n", "backend", "is required"),
    ('[pools.app]\nbackend = "postgresql://app:x@db/app"\n' + EU, "backend", "keep one of both"),
    ("[pools.app.endpoints.eu]\n", "endpoints.eu.backend", "is required"),
    (EU.replace("postgresql", "mysql"), "endpoints.eu.backend", "expected a URL"),
    (EU + 'bakend = "x"\n', "endpoints.eu.bakend", "did you mean pools.app.endpoints.eu.backend?"),
    (EU + 'start = "x"\n', "endpoints.eu.start", "is not a known setting"),
    (EU.replace("endpoints.eu", 'endpoints."a\\nb"'), 'endpoints."a\nb"', "1 to 63 bytes"),
    (EU.replace("@eu/app", "@eu"), "endpoints.eu.backend", "names no database"),
    (EU + US.replace("us/app", "us/other"), "endpoints.us.backend", "another database than endpoints.eu"),
    (EU + US.replace("app:x@us", "bob:x@us"), "endpoints.us.backend", "another user than endpoints.eu"),
    (EU + US.replace(":x@", ":y@"), "endpoints.us.backend", "another password than endpoints.eu"),
    (EU + US.replace("@us/", "@eu/"), "endpoints.us.backend", "is the same server as endpoints.eu"),
    (EU + 'keys = ["a"]\n', "endpoints.eu.keys", 'there is no route, and keys needs route.rule = "list"'),
    (EU + "keys = [true]\n" + route("list"), "endpoints.eu.keys", "expected a shard key"),
    (EU + 'from = "a"\n' + route("hash"), "endpoints.eu.from", 'route.rule is "hash", and from needs'),
    (EU + 'from = "a"\nkeys = ["a"]\n' + route("range"), "endpoints.eu.keys", 'route.rule = "list"'),
    (
        EU + 'keys = ["a"]\n' + US + 'keys = ["a"]\n' + route("list"),
        "endpoints.us.keys",
        "endpoints.eu already",
    ),
    (EU + 'keys = ["a"]\n' + US + route("list"), "endpoints.us", "no shard key leads here: give keys"),
    (EU + "to = 9\n" + US + route("range", "eu"), "endpoints.us", "give from or to"),
    (EU + "to = 11\n" + US + "from = 10\n" + route("range"), "endpoints.us", "overlaps that of endpoints.eu"),
    (EU + "to = 11\n" + US + "to = 12\n" + route("range"), "endpoints.us", "overlaps that of endpoints.eu"),
    (
        EU + "from = 9\n" + US + "from = 10\n" + route("range"),
        "endpoints.us",
        "overlaps that of endpoints.eu",
    ),
    (EU + "from = 10\nto = 9\n" + route("range"), "endpoints.eu.to", "compared as integers"),
    (EU + 'from = "b"\nto = "a"\n' + route("range"), "endpoints.eu.to", "compared as text"),
    (EU + 'from = 1\nto = "b"\n' + route("range"), "endpoints.eu.from", "write all as one kind"),
    (EU + route("list", "eur"), "route.default", "did you mean eu?"),
    (EU + route("list", "nowhere"), "route.default", "the endpoints are: eu"),
    (EU + '[pools.app.route]\ndefault = "eu"\n', "route.rule", "is required"),
    (EU + route("modulo"), "route.rule", 'expected "list", "range" or "hash"'),
    (EU + route("hash") + "rul = 1\n", "route.rul", "did you mean pools.app.route.rule?"),
    ('[pools.app]\nbackend = "postgresql://app:x@db/app"\n' + route("hash"), "route", "give endpoints"),
    (
        "[pools.app]\nclient_may_set = []\n" + EU + route("hash"),
        "client_may_set",
        "every client would be refused",
    ),
    ("[pools.app]\nendpoints = 3\n", "endpoints", "expected a table"),
]


@pytest.mark.parametrize(("text", "key", "sentence"), WRONG)
def test_a_wrong_endpoint_or_route_is_refused_with_a_sentence(
    configuration, text: str, key: str, sentence: str
) -> None:
    mistakes = configuration.mistakes(text)
    assert sentence in mistakes[f"penstock.toml: pools.app.{key}"]


def test_integers_are_not_compared_as_text(configuration) -> None:
    text = EU + "from = 9\nto = 10\n" + US + "from = 10\nto = 11\n" + route("range")
    assert configuration.load(text).pools["app"].route.integers


def test_the_one_variable_beside_endpoints_is_a_mistake(configuration) -> None:
    mistake = configuration.only_mistake(EU, PENSTOCK_DATABASE_URL="postgresql://app:x@db/app")
    assert mistake.startswith(
        "penstock.toml: pools.app.endpoints: database_url makes a pool of this name too"
    )


def test_certificates_of_an_endpoint_are_loaded_at_once(configuration) -> None:
    text = EU.replace("@eu/app", "@eu/app?sslmode=verify-full&sslrootcert=/none")
    mistake = configuration.only_mistake(text)
    assert "pools.app.endpoints.eu.backend: sslrootcert: the file cannot be read" in mistake


def test_endpoints_are_shown_without_their_passwords(configuration) -> None:
    text = '[pools.app]\nlabels = { team = "web" }\n' + EU + 'keys = ["eu"]\n' + US + route("list", "us")
    text = text.replace(":x@", ":canary@") + '[pools.app.priority.web]\nusers = ["web"]\n'
    loaded = read(configuration.write(text), None, {"PENSTOCK_POOLS__APP__ENDPOINTS__EU__KEYS": "de"})
    shown = show(loaded)
    assert "canary" not in shown + summary(loaded) + repr(loaded.settings)
    lines = shown.splitlines()
    for line in (
        'labels = { team = "web" }  # from penstock.toml: pools.app.labels',
        "[pools.app.endpoints.eu]",
        'keys = ["de"]  # from PENSTOCK_POOLS__APP__ENDPOINTS__EU__KEYS',
        "[pools.app.route]",
        'default = "us"  # from penstock.toml: pools.app.route.default',
        "[pools.app.priority.web]",
        'users = ["web"]  # from penstock.toml: pools.app.priority.web.users',
        'client_may_set = ["nowait", "timedwait", "wait_timeout", "shard_key"]',
    ):
        assert line in lines
    assert "app@eu:5432, us:5432/app" in summary(loaded)


@pytest.mark.parametrize(
    "line", ['backend = "canary"', 'keys = [["canary"]]', 'from = ["canary"]', "canary = 1"]
)
def test_a_wrong_endpoint_shows_no_value(configuration, line: str) -> None:
    mistakes = configuration.mistakes(f"[pools.app.endpoints.eu]\n{line}\n")
    assert "canary" not in "".join(mistakes.values())
