"""Which of several servers a pool's sessions go to by what the servers are, and what a fail-over is given.

Plain values, and what is wrong between them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from proxy.roles import TARGETS
from proxy.settings.knobs import SecondsOrOff, Table, duration, knob
from proxy.settings.mistakes import Mistake

if TYPE_CHECKING:
    from proxy.settings.pools import PoolSettings

# What clients of a pool of several servers are held for, unless it says otherwise.
HELD_FOR = 15.0


class TargetSettings(Table):
    """Which server of several."""

    target_session_attrs: (
        Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] | None
    ) = knob(
        None,
        "Which servers the pool's sessions are opened on, by what they are, as libpq has it; `any` unless "
        "the URL in `backend` says otherwise. A server that changes its role loses the sessions it no longer "
        "suits.",
        examples=["read-write"],
        ancestors="libpq `target_session_attrs`",
    )
    load_balance_hosts: Literal["disable", "random"] | None = knob(
        None,
        "`disable`: sessions go to the first server, in the order of the file, that can be had. `random`: "
        "they are spread over all that suit. `disable` where one URL names several hosts, as libpq, else "
        "`random`. Clients that ask for replicas are always spread.",
        examples=["random"],
        ancestors="libpq `load_balance_hosts`",
    )
    failover_wait: Annotated[float, duration(zero=True)] | None = knob(
        None,
        "While no server that suits can be had, clients that begin a transaction wait for up to so long "
        "after that began (and no longer than `wait_timeout`), and all servers are tried; later they get an "
        "error at once. `15s` for a pool of several PostgreSQL servers without a route, else `0s`: nobody is "
        "held.",
        examples=["15s"],
    )
    role_check_interval: SecondsOrOff = knob(
        "30s",
        "A server that no session has told of for so long is asked what it is, with an idle session or a "
        "short login, where that matters to somebody.",
    )
    dns_ttl: SecondsOrOff = knob(
        "15s",
        "The addresses behind a server's name are looked up again after so long, and sessions to those that "
        "are gone are renewed. `off`: looked up for each new session, and sessions stay.",
        ancestors="PgBouncer `dns_max_ttl`",
    )
    read_only_to_replica: bool = knob(
        False,
        "A transaction that begins with `BEGIN READ ONLY` or `START TRANSACTION READ ONLY` goes to a "
        "replica, if it is not serializable. Nothing is guessed from a SELECT.",
    )
    replica_database: str | None = knob(
        None,
        "Another name of the pool: clients that ask for this database get it as if they had set "
        "`penstock.target` to `replica`.",
        min_length=1,
        max_length=63,
        examples=["app_ro"],
    )
    target_fallback: Literal["primary", "refuse"] = knob(
        "primary",
        "Where there is no replica, clients that ask for one get the primary, or an error.",
    )


def target_of(pool: "PoolSettings") -> int:
    """The pool's own target, one of roles.TARGETS by number."""
    return TARGETS.index(pool.target_session_attrs or pool.url_target or "any")


def is_in_order(pool: "PoolSettings") -> bool:
    """Sessions go to the first server that can be had, not to the one with the fewest."""
    from_url = "disable" if pool.backend is not None and len(pool.endpoints) > 1 else "random"
    return (pool.load_balance_hosts or pool.url_balance or from_url) == "disable"


def has_roles(pool: "PoolSettings") -> bool:
    """The servers are alike but for their roles, so that a client may choose among those."""
    return pool.protocol == "postgres" and pool.route_table is None and len(pool.endpoints) > 1


def held_for(pool: "PoolSettings") -> float:
    """How long clients are held when no server suits, in seconds."""
    if pool.failover_wait is not None:
        return pool.failover_wait
    return HELD_FOR if has_roles(pool) else 0.0


def target_mistakes(pool: "PoolSettings") -> Iterator[Mistake]:
    """Yield what is wrong between these settings and the servers."""
    if pool.target_session_attrs and pool.url_target and pool.target_session_attrs != pool.url_target:
        yield ("target_session_attrs",), "says something else than the URL in backend: keep one of both"
    if pool.load_balance_hosts and pool.url_balance and pool.load_balance_hosts != pool.url_balance:
        yield ("load_balance_hosts",), "says something else than the URL in backend: keep one of both"
    asked = {
        "target_session_attrs": (pool.target_session_attrs or pool.url_target or "any") != "any",
        "read_only_to_replica": pool.read_only_to_replica,
        "replica_database": pool.replica_database is not None,
    }
    for key, is_asked in asked.items():
        if not is_asked:
            continue
        if pool.protocol != "postgres":
            yield (key,), f"is for PostgreSQL, and the servers of this pool speak {pool.protocol}"
        elif pool.route_table is not None:
            yield (key,), "chooses among servers that are alike, and this pool has a route: drop one of both"
        elif key != "target_session_attrs" and len(pool.endpoints) < 2:
            yield (key,), "is for a pool of several servers, and this one has a single server"
    if pool.read_only_to_replica and pool.pool_mode != "transaction":
        yield ("read_only_to_replica",), 'needs pool_mode = "transaction"'


def replica_name_mistakes(pools: "dict[str, PoolSettings]") -> Iterator[Mistake]:
    """Yield the names for replicas that lead to two pools, or to none."""
    owners: dict[str, str] = {}
    for name, pool in pools.items():
        database = pool.replica_database
        if database is None:
            continue
        other = owners.setdefault(database, name)
        if name == "*":
            yield (
                ("pools", name, "replica_database"),
                'cannot be the name of a pool "*", which serves any database: give that database a pool',
            )
        elif database in pools or database == "*":
            yield ("pools", name, "replica_database"), "is the name of a pool already"
        elif other != name:
            yield ("pools", name, "replica_database"), f"is that of pools.{other} already"
