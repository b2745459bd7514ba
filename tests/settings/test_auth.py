"""The settings of the login: what is read from files, and every sentence about what does not fit."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from proxy.building_auth import file_changes, residents_of, terms_of, ways_of
from proxy.errors import ConfigError
from proxy.postgres.lookup import DEFAULT_QUERY
from proxy.settings.loading import load, read
from proxy.settings.model import Settings
from proxy.settings.show import show

BACKEND = "postgresql://app:own@db/app"


def settings(
    listener: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **more: Any
) -> Settings:
    return load(
        Path("/dev/null"),
        {
            "listeners": {"main": listener or {}},
            "pools": {"app": {"backend": BACKEND, **(pool or {})}},
            **more,
        },
        {},
    )


def mistakes(*args: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as wrong:
        settings(*args, **more)
    return "\n".join(f"{place}: {sentence}" for place, sentence in wrong.value.mistakes)


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        ({"auth": "cert"}, '"cert" needs tls_mode = "verify-ca"'),
        ({"auth": "peer"}, '"peer" needs a Unix socket'),
        (
            {"auth": "peer", "address": "unix:/run/x", "proxy_protocol": "require"},
            '"peer" needs a Unix socket',
        ),
        ({"clientcert": "verify-full"}, 'clientcert: needs tls_mode = "verify-ca"'),
        ({"map": "ours"}, 'map: goes with auth = "cert" or "peer"'),
        ({"address": "unix:/run/x", "auth": "peer", "map": "none"}, "names a map that does not exist"),
        ({"hba_trust": "any"}, "is about the rules of hba_file"),
        ({"auth_file": "/nowhere"}, "auth_file: the file cannot be read"),
        ({"hba_file": "/nowhere"}, "hba_file: the file cannot be read"),
        ({"hba_file": "/nowhere", "auth": "md5"}, "auth: the rules of hba_file say this"),
        ({"protocol": "tcp", "pool": "app", "auth_file": "/nowhere"}, 'when protocol is "tcp": leave it out'),
    ],
)
def test_a_listener_that_cannot_be(listener: dict[str, Any], said: str) -> None:
    assert said in mistakes(listener)


@pytest.mark.parametrize(
    ("rule", "listener", "said"),
    [
        ("host all all all trust", {"address": "0.0.0.0:1"}, "line 1: trust lets everybody in"),
        ("host all all 10.0.0.0/8 trust", {"address": "0.0.0.0:1"}, "line 1: trust lets everybody in"),
        ("host all all 127.0.0.1/32 trust", {"proxy_protocol": "require"}, "line 1: trust lets everybody in"),
        ("host all all all trust", {"proxy_protocol": "require"}, "line 1: trust lets everybody in"),
        ("hostssl all all all cert", {}, "line 1: a certificate is only asked for with tls_ca_file"),
        ("local all all peer map=x", {}, "line 1: map names one that does not exist"),
        ("local all all peer", {"address": "unix:/x", "proxy_protocol": "require"}, "line 1: peer does not"),
        ("host all +x all md5", {}, "line 1: the members of a role"),
    ],
)
def test_a_rule_that_does_not_fit_its_listener(
    tmp_path: Path, rule: str, listener: dict[str, Any], said: str
) -> None:
    file = tmp_path / "hba.conf"
    file.write_text(rule + "\n")
    assert said in mistakes({**listener, "hba_file": str(file)})


@pytest.mark.parametrize(
    ("rule", "listener"),
    [
        ("host all all 127.0.0.1/32 trust", {"address": "0.0.0.0:1"}),
        ("host all all samehost trust", {"address": "0.0.0.0:1"}),
        ("local all all trust", {"address": "0.0.0.0:1"}),
        ("host all all all trust", {}),
        ("host all all all trust", {"address": "0.0.0.0:1", "hba_trust": "any"}),
        ("local all all peer", {}),
    ],
)
def test_a_rule_that_trusts_only_who_may_be_trusted(
    tmp_path: Path, rule: str, listener: dict[str, Any]
) -> None:
    file = tmp_path / "hba.conf"
    file.write_text(rule + "\n")
    found = settings({**listener, "hba_file": str(file)})
    assert found.listeners["main"].rules is not None


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"auth_user": "x"}, "auth_user: has no effect without auth_query"),
        ({"auth_query": "SELECT 1, 2"}, "auth_query: lacks $1"),
        ({"auth_query": "defualt"}, "auth_query: expected"),
        ({"auth_query": "default", "auth_user_password": "x"}, "auth_user: is required with its password"),
        ({"auth_query": "default", "homogeneous": True}, "auth_query: finds users who run as themselves"),
        (
            {"auth_query": "default", "auth_user": "x", "auth_user_password_file": "/nowhere"},
            "auth_user_password_file: the file cannot be read",
        ),
        ({"backend": "tcp://db:1", "auth_query": "default"}, "auth_query: is for PostgreSQL"),
    ],
)
def test_a_lookup_that_cannot_be(pool: dict[str, Any], said: str) -> None:
    assert said in mistakes(pool=pool)


def test_what_is_looked_up_and_as_whom() -> None:
    plain = terms_of(settings(pool={"auth_query": "default"}).pools["app"])
    assert plain is not None
    assert (plain.statement, plain.account, plain.user, plain.database) == (DEFAULT_QUERY, None, "app", "app")
    assert plain.keep == 10.0
    other = terms_of(
        settings(
            pool={
                "auth_query": "SELECT * FROM f($1)",
                "auth_user": "asker",
                "auth_user_password": "hush",
                "auth_database": "secrets",
                "auth_cache": "off",
            }
        ).pools["app"]
    )
    assert other is not None
    assert other.account is not None
    assert (other.account.name, other.account.password) == ("asker", "hush")
    assert (other.user, other.database, other.keep) == ("asker", "secrets", 0.0)
    assert "hush" not in repr(other)
    assert terms_of(settings().pools["app"]) is None


def test_the_users_of_files_at_their_listeners_and_those_of_the_configuration_above_them(
    tmp_path: Path,
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text('"ann" "ann\'s"\n"bob" "from the file"\n')
    theirs.write_text('"cid" "cid\'s"\n')
    found = settings(
        auth_file=str(ours),
        users={"bob": {"password": "from the table", "pools": ["app"]}},
        listeners={"main": {}, "other": {"address": "127.0.0.1:2", "auth_file": str(theirs)}},
    )
    people = residents_of(found)
    main, other = people.at("main"), people.at("other")
    assert [main.find(name) is not None for name in ("ann", "bob", "cid", "app")] == [True, True, False, True]
    assert [other.find(name) is not None for name in ("ann", "bob", "cid", "app")] == [
        False,
        True,
        True,
        True,
    ]
    bob = main.find("bob")
    assert bob is not None
    assert bob.password == "from the table"
    assert set(people.accounts) == {"ann", "bob", "cid"}
    assert main.stand_in("zoe").verifier == other.stand_in("zoe").verifier
    ours.write_text('"ann" "new"\n"dan" "dan\'s"\n')
    after = settings(
        auth_file=str(ours),
        listeners={"main": {}, "other": {"address": "127.0.0.1:2", "auth_file": str(theirs)}},
    )
    assert file_changes(found, after) == ["auth_file: 1 users added, 1 changed, 1 removed"]


def test_two_files_may_not_know_two_secrets_of_one_user(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text('"ann" "one"\n')
    theirs.write_text('\n"ann" "hush"\n')
    said = mistakes(auth_file=str(ours), listeners={"main": {"auth_file": str(theirs)}})
    assert "listeners.main.auth_file: line 2: another auth_file has another secret" in said
    assert "hush" not in said


def test_a_pool_without_a_password_is_fine_where_others_are_known_or_nobody_shows_one(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text('"ann" "x"\n')
    bare = {"backend": "postgresql://app@db/app"}
    assert "has no password" in mistakes(pool=bare)
    assert settings(pool=bare, auth_file=str(users)).userlist is not None
    assert settings(pool={**bare, "auth_query": "default"}).pools
    assert settings({"address": "unix:/run/x", "auth": "peer"}, bare).pools


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "is empty"),
        ({"web": "\\1"}, "entry 1: \\1 needs a regular expression"),
        ({"web": 5}, "a user, or a list of users"),
        ({"web": "app", "/(": "app"}, "entry 2: what follows the slash"),
    ],
)
def test_a_map_that_means_nothing(entries: dict[str, Any], said: str) -> None:
    assert said in mistakes(maps={"ours": {"entries": entries}})


def test_a_map_reaches_the_ways_in() -> None:
    found = settings(
        {"address": "unix:/run/x", "auth": "peer", "map": "ours"},
        maps={"ours": {"entries": {"root": "app", "web": ["ann", "bob"]}}},
    )
    usual = ways_of(found.listeners["main"], found)._usual
    assert usual.mapping is not None
    assert usual.mapping.lets("root", "app")
    assert usual.mapping.lets("web", "bob")
    assert not usual.mapping.lets("root", "ann")


def test_a_map_is_shown_as_a_file_could_have_it(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    text = f"""
[pools.app]
backend = "{BACKEND}"
[maps.ours]
entries = {{ "/^(.*)@example\\\\.com$" = ["\\\\1", 'a "b"'], web = "app" }}
"""
    file.write_text(text)
    loaded = read(file, {}, {})
    shown = tomllib.loads(show(loaded))
    assert shown["maps"]["ours"]["entries"] == {
        "/^(.*)@example\\.com$": ["\\1", 'a "b"'],
        "web": ["app"],
    }
