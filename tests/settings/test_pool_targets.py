"""What a pool of several servers makes of its settings, and which of them contradict each other."""

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.roles import TARGETS
from proxy.settings.pool_targets import is_in_order, replica_name_mistakes, target_of
from proxy.settings.pools import PoolSettings

TWO = "postgresql://app:secret@a,b/app"
ONE = "postgresql://app:secret@a/app"
TABLES = {
    "endpoints": {
        "east": {"backend": "postgresql://app:secret@a/app"},
        "west": {"backend": "postgresql://app:secret@b/app"},
    }
}


def pool(**values: Any) -> PoolSettings:
    return PoolSettings.model_validate(values)


def test_several_hosts_are_endpoints_by_their_places() -> None:
    made = pool(backend=f"{TWO}?target_session_attrs=primary")
    assert list(made.endpoints) == ["a:5432", "b:5432"]
    assert TARGETS[target_of(made)] == "primary"
    assert is_in_order(made)
    assert "target" in made.limits.client_may_set
    assert made.limits.failover_wait == 15.0


def test_a_single_server_has_no_roles_and_holds_nobody() -> None:
    made = pool(backend=ONE)
    assert made.limits.failover_wait == 0.0
    assert "target" not in made.limits.client_may_set
    assert pool(backend=ONE, failover_wait="5s").limits.failover_wait == 5.0


def test_tables_of_endpoints_are_spread_over_unless_told_otherwise() -> None:
    assert not is_in_order(pool(**TABLES))
    assert is_in_order(pool(**TABLES, load_balance_hosts="disable"))
    assert not is_in_order(pool(backend=f"{TWO}?load_balance_hosts=random"))
    assert TARGETS[target_of(pool(**TABLES, target_session_attrs="standby"))] == "standby"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"backend": f"{TWO}?target_session_attrs=standby", "target_session_attrs": "primary"},
            "something else",
        ),
        ({"backend": f"{TWO}?load_balance_hosts=random", "load_balance_hosts": "disable"}, "something else"),
        ({"backend": ONE, "read_only_to_replica": True}, "a single server"),
        ({"backend": ONE, "replica_database": "app_ro"}, "a single server"),
        ({"backend": TWO, "read_only_to_replica": True, "pool_mode": "session"}, 'pool_mode = "transaction"'),
        ({"backend": "tcp://a:1", "target_session_attrs": "primary"}, "is for PostgreSQL"),
        (
            {**TABLES, "route": {"rule": "hash"}, "target_session_attrs": "primary"},
            "this pool has a route",
        ),
        ({"backend": TWO, "failover_wait": "off"}, "has no meaning here"),
    ],
)
def test_contradictions(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        pool(**values)


def test_a_name_for_replicas_leads_to_one_pool() -> None:
    pools = {
        "app": pool(backend=TWO, replica_database="app_ro"),
        "other": pool(backend=TWO, replica_database="app_ro"),
        "third": pool(backend=TWO, replica_database="app"),
        "*": pool(backend=TWO, replica_database="any_ro"),
    }
    mistakes = [(path[1], sentence) for path, sentence in replica_name_mistakes(pools)]
    assert [name for name, _ in mistakes] == ["other", "third", "*"]
    assert "pools.app already" in mistakes[0][1]
