"""Which differences between two configurations a running daemon takes over, and how they are said."""

from pathlib import Path
from typing import Any

import pytest

from proxy.reloading import FIXED, LIVE_POOL, compare, effective
from proxy.settings import Settings, load

APP = {"backend": "postgresql://app:hunter2@db/app", "max": 8}


def settings(**tables: Any) -> Settings:
    return load(Path("/dev/null"), {"pools": {"app": APP}, **tables}, {})


def pool(**values: Any) -> Settings:
    return settings(pools={"app": {**APP, **values}})


def listener(**values: Any) -> Settings:
    return settings(listeners={"main": values})


def live(old: Settings, new: Settings) -> list[str]:
    found = compare(old, old, new)
    assert found.restart == ()
    return list(found.live)


def restart(old: Settings, new: Settings) -> list[str]:
    found = compare(old, old, new)
    assert found.live == ()
    return list(found.restart)


def test_the_same_is_the_same() -> None:
    assert live(settings(), settings()) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"max": 2}, "pools.app.max: 8 -> 2"),
        ({"min": 2}, "pools.app.min: 0 -> 2"),
        ({"wait_timeout": "500ms"}, 'pools.app.wait_timeout: "30s" -> "500ms"'),
        ({"max_waiting": 5}, 'pools.app.max_waiting: "off" -> 5'),
        ({"idle_timeout": "off"}, 'pools.app.idle_timeout: "10m" -> "off"'),
        ({"ping_interval": "always"}, 'pools.app.ping_interval: "1m" -> "0s"'),
        (
            {"client_may_set": ["wait"]},
            'pools.app.client_may_set: ["nowait", "timedwait", "wait_timeout"] -> ["wait"]',
        ),
    ],
)
def test_limits_are_live_and_said_in_the_words_of_the_configuration(
    values: dict[str, Any], sentence: str
) -> None:
    assert live(pool(), pool(**values)) == [sentence]


def test_what_follows_from_a_change_is_said_too() -> None:
    assert set(live(pool(), pool(getmode="forceget"))) == {
        'pools.app.getmode: "timedwait" -> "forceget"',
        "pools.app.max_forced: 0 -> 8",
    }


@pytest.mark.parametrize(
    "values",
    [
        {"pool_mode": "session"},
        {"session_init": "SELECT 1"},
        {"begin": "deferred"},
        {"tcp_keepalive": False},
        {"role": "reader"},
    ],
)
def test_the_rest_of_a_pool_needs_a_restart(values: dict[str, Any]) -> None:
    [sentence] = restart(pool(), pool(**values))
    assert sentence.startswith(f"pools.app.{next(iter(values))}: ")


def test_another_password_is_live_and_never_shown() -> None:
    new = pool(backend="postgresql://app:hunter3@db/app")
    assert live(pool(), new) == ["pools.app.password: changed"]
    assert "hunter" not in str(compare(pool(), pool(), new))


def test_another_server_needs_a_restart_and_keeps_its_password_until_then() -> None:
    new = pool(backend="postgresql://app:hunter3@db2/app")
    assert set(restart(pool(), new)) == {
        'pools.app.backend: ["postgresql://app@db:5432/app"] -> ["postgresql://app@db2:5432/app"]',
        "pools.app.password: changed",
    }


def test_a_password_in_a_file_is_compared_by_what_the_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "password"
    values = {"backend": "postgresql://app@db/app", "password_file": str(file)}
    file.write_text("one")
    before = pool(**values)
    assert live(before, pool(**values)) == []
    file.write_text("two")
    assert live(before, pool(**values)) == ["pools.app.password: changed"]


def test_users_are_live_and_their_secrets_are_not_shown() -> None:
    ann = {"password": "hunter2"}
    assert live(settings(), settings(users={"ann": ann})) == ["users.ann: added"]
    assert live(settings(users={"ann": ann}), settings()) == ["users.ann: removed"]
    assert live(settings(users={"ann": ann}), settings(users={"ann": {"password": "hunter3"}})) == [
        "users.ann.password: changed"
    ]
    assert live(settings(users={"ann": ann}), settings(users={"ann": {**ann, "pools": ["app"]}})) == [
        'users.ann.pools: unset -> ["app"]'
    ]


def test_pools_that_come_or_go_need_a_restart() -> None:
    both = settings(pools={"app": APP, "orders": {**APP, "backend": "postgresql://o:x@db/orders"}})
    assert restart(settings(), both) == ["pools.orders: added"]
    assert restart(both, settings()) == ["pools.orders: removed"]


def test_of_a_listener_all_is_live_but_where_it_listens() -> None:
    assert live(listener(max_clients=5), listener(max_clients=9)) == ["listeners.main.max_clients: 5 -> 9"]
    assert restart(listener(), listener(address="127.0.0.1:7000")) == [
        'listeners.main.address: "127.0.0.1:6432" -> "127.0.0.1:7000"'
    ]
    assert restart(listener(), listener(unix_socket_mode="0700"))


def test_what_is_right_for_another_address_is_not_taken_over_for_this_one() -> None:
    # trust on loopback is fine; on the address that is bound it would let everybody in
    old, new = listener(address="0.0.0.0:6432"), listener(address="127.0.0.1:6432", auth="trust")
    assert len(restart(old, new)) == 2


def test_addresses_of_the_daemon_itself_need_a_restart_and_the_log_does_not() -> None:
    assert restart(settings(), settings(http={"address": "off"}))
    assert restart(settings(), settings(control={"address": "unix:/tmp/c.sock"}))
    assert live(settings(), settings(log={"level": "debug"})) == ['log.level: "info" -> "debug"']
    assert live(settings(), settings(drain_timeout="5s")) == ['drain_timeout: "30s" -> "5s"']


def test_what_needs_a_restart_is_said_until_there_was_one() -> None:
    old, new = pool(), pool(pool_mode="session", max=2)
    assert compare(old, old, new).live == ("pools.app.max: 8 -> 2",)
    again = compare(old, new, new)
    assert again.live == ()
    assert again.restart == ('pools.app.pool_mode: "transaction" -> "session"',)


def test_weights_are_live_and_classes_are_not() -> None:
    def classed(**classes: Any) -> Settings:
        return pool(priority=classes)

    web = {"weight": 2, "users": ["web"]}
    assert live(classed(web=web), classed(web={**web, "weight": 4})) == [
        "pools.app.priority.web.weight: 2 -> 4"
    ]
    assert restart(classed(web=web), classed(web={**web, "users": ["web", "www"]}))
    old, new = classed().pools["app"].limits, classed(web=web).pools["app"].limits
    assert effective(old, new).weights == old.weights


def test_what_is_fixed_keeps_its_value() -> None:
    old, new = pool().pools["app"].limits, pool(begin="deferred", affinity="key", max=3).pools["app"].limits
    after = effective(old, new)
    assert after.max == 3
    assert all(getattr(after, name) == getattr(old, name) for name in FIXED)
    assert not FIXED & LIVE_POOL
