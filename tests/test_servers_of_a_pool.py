"""From the settings of a pool to its endpoints, its logins and its route."""

from pathlib import Path
from typing import Any

import pytest

from postgres.playbook import TERMS_OF_POOL
from proxy.postgres.accounts import Account
from proxy.postgres.served import Login, Served
from proxy.relay.sockets import KeepAlive
from proxy.servers import endpoints_of, logins_of, routes_of
from proxy.settings.pools import PoolSettings
from proxy.steps import StartTls


def pool(**values: Any) -> PoolSettings:
    return PoolSettings.model_validate(values)


EAST = "postgresql://app:secret@east:5433/app?sslmode=disable"
WEST = "postgresql://app:secret@west/app?sslmode=require"


def two(**values: Any) -> PoolSettings:
    return pool(endpoints={"east": {"backend": EAST}, "west": {"backend": WEST}}, **values)


def shards(rule: str, default: str | None, *entries: dict[str, Any]) -> PoolSettings:
    tables = {
        name: {"backend": f"postgresql://app:secret@{name}/app", **entry}
        for name, entry in zip("abc", entries, strict=False)
    }
    route = {"rule": rule} if default is None else {"rule": rule, "default": default}
    return pool(endpoints=tables, route=route)


def test_each_endpoint_has_its_own_address_and_tls() -> None:
    east, west = endpoints_of("app", two(), KeepAlive())
    assert (east.host, east.port, east.tls) == ("east", 5433, None)
    assert (west.host, west.port) == ("west", 5432)
    assert west.tls is not None


def test_a_plain_backend_is_the_only_endpoint(tmp_path: Path) -> None:
    socket = pool(backend="postgresql://app@/app?host=/run/pg&sslmode=require")
    [only] = endpoints_of("app", socket, KeepAlive())
    assert (only.path, only.tls) == ("/run/pg/.s.PGSQL.5432", None)
    assert logins_of(pool(backend=EAST)) == {}
    assert routes_of("app", pool(backend=EAST)) is None


def test_the_same_user_is_the_same_account_everywhere() -> None:
    logins = logins_of(two())
    assert list(logins) == [1]
    assert (logins[1].account, logins[1].sslmode, logins[1].database) == (None, "require", "app")


def test_a_user_of_its_own_is_another_account() -> None:
    made = pool(
        endpoints={
            "east": {"backend": EAST, "keys": ["eu"]},
            "west": {"backend": "postgresql://shard:other@west/data", "keys": ["us"]},
        },
        route={"rule": "list", "default": "east"},
    )
    account = logins_of(made)[1].account
    assert account is not None
    assert (account.name, account.password) == ("shard", "other")


def test_a_list() -> None:
    routes = routes_of("app", shards("list", "b", {"keys": ["eu", 7]}, {"keys": ["us"]}))
    assert routes is not None
    assert [routes.endpoint_for(key) for key in ("eu", "7", "us", None)] == [0, 0, 1, 1]


@pytest.mark.parametrize(("low", "inside"), [("10", "9"), ("m", "a")])
def test_a_range(low: str, inside: str) -> None:
    routes = routes_of("app", shards("range", "", {"to": low}, {"from": low}))
    assert routes is not None
    assert [routes.endpoint_for(key) for key in (inside, low, None)] == [0, 1, None]


def test_a_hash() -> None:
    routes = routes_of("app", shards("hash", None, {}, {}, {}))
    assert routes is not None
    assert routes.hashed == (0, 1, 2)
    with pytest.raises(ValueError, match="needs a shard key"):
        routes.endpoint_for(None)


# -- how one logs in at each of them --------------------------------------------------------------


def served() -> Served:
    own, bob = Account("app", password="secret"), Account("bob", password="his")
    made = Served("app", "transaction", TERMS_OF_POOL, own, "app", "disable", {"a": "1"}, {"bob": bob})
    made.logins = {
        1: Login(Account("shard", password="other"), "data", "require", {"b": "2"}),
        2: Login(None, "app", "disable", {}),
    }
    return made


def startup(made: Served, database: str, user: str, endpoint: int) -> bytes:
    """What the session sends first; TLS is taken for granted."""
    conversation = made.begin(database, user, endpoint).log_in()
    step = next(conversation)
    if step == b"\0\0\0\x08\x04\xd2\x16\x2f":
        assert isinstance(conversation.send(b"S"), StartTls)
        step = conversation.send(None)
    assert isinstance(step, bytes)
    return step


def test_the_pool_s_own_user_and_database_have_other_names_at_another_endpoint() -> None:
    made = served()
    assert b"user\0app\0database\0app\0a\x001\0" in startup(made, "app", "app", 0)
    assert b"user\0shard\0database\0data\0b\x002\0" in startup(made, "app", "app", 1)
    assert b"user\0app\0database\0app\0" in startup(made, "app", "app", 2)


def test_a_listed_user_is_itself_everywhere() -> None:
    made = served()
    assert b"user\0bob\0database\0app\0" in startup(made, "app", "bob", 0)
    assert b"user\0bob\0database\0data\0" in startup(made, "app", "bob", 1)


def test_a_database_that_the_client_chose_keeps_its_name() -> None:
    assert b"user\0shard\0database\0elsewhere\0" in startup(served(), "elsewhere", "app", 1)


def test_no_login_shows_its_secret() -> None:
    login = served().logins[1]
    assert "other" not in f"{login!r} {login.account!r}"
