"""What the clients of a pool may choose for themselves, from its settings and the bounds of today. Pure."""

from collections.abc import Callable

from proxy.pool.limits import BY_KEY, GETMODES, TAGS_OFF, Limits
from proxy.pool.routes import Routes
from proxy.postgres.begin import LOOK
from proxy.postgres.own import CCLASS, GETMODE, KEY, PURITY, SHARD_KEY, TAG, TARGET, WAIT_TIMEOUT
from proxy.postgres.terms import Terms
from proxy.roles import word_for
from proxy.servers import routes_of
from proxy.settings.durations import format_duration, parse_duration
from proxy.settings.pool_targets import has_roles, target_of
from proxy.settings.pools import PoolSettings


def terms(name: str, pool: PoolSettings, limits: Limits) -> Terms:
    """What clients may choose. ``limits`` are the pool's of today, which may be others than at the start."""
    shown = {
        GETMODE: GETMODES[limits.getmode],
        WAIT_TIMEOUT: format_duration(limits.wait_timeout),
        CCLASS: pool.cclass,
        PURITY: pool.purity,
        TARGET: word_for(target_of(pool)),
    }
    rules: dict[str, Callable[[str], str]] = {
        GETMODE: lambda text: _getmode(name, limits, text),
        WAIT_TIMEOUT: lambda text: _wait_timeout(name, limits, text),
        CCLASS: lambda text: _word(name, limits, "cclass", text),
        PURITY: lambda text: text if text == pool.purity else _word(name, limits, "purity", text),
        TAG: lambda text: _word(name, limits, "tag", text, "tags", limits.tags != TAGS_OFF),
        KEY: lambda text: _word(name, limits, "key", text, "affinity", limits.affinity == BY_KEY),
    }
    routes = routes_of(name, pool)
    rules[SHARD_KEY] = lambda text: _shard_key(name, limits, routes, text)
    rules[TARGET] = lambda text: _word(name, limits, "target", text, "endpoints", has_roles(pool))
    made = Terms(name, shown, lambda setting, text: rules[setting](text), parse_duration, limits.begin)
    if pool.read_only_to_replica:
        made.reads_elsewhere, made.begin = True, made.begin or LOOK
    return made


def _getmode(name: str, limits: Limits, text: str) -> str:
    word = text.strip().lower()
    if word not in GETMODES:
        raise ValueError(f"{GETMODE} is one of {', '.join(GETMODES)}")
    if word not in limits.client_may_set and word != GETMODES[limits.getmode]:
        raise ValueError(f'clients of pool "{name}" may not choose getmode {word}')
    return word


def _wait_timeout(name: str, limits: Limits, text: str) -> str:
    seconds = parse_duration(text)
    if "wait_timeout" not in limits.client_may_set:
        raise ValueError(f'clients of pool "{name}" may not choose their wait_timeout')
    if seconds > limits.wait_timeout:
        most = format_duration(limits.wait_timeout)
        raise ValueError(f'clients of pool "{name}" may choose a wait_timeout up to {most}')
    return text


def _word(name: str, limits: Limits, word: str, text: str, setting: str = "", matters: bool = True) -> str:
    if not matters:
        raise ValueError(f'pool "{name}" does not look at a {word}: its operator sets pools.{name}.{setting}')
    if word not in limits.client_may_set:
        raise ValueError(f'clients of pool "{name}" may not choose their {word}')
    return text


def _shard_key(name: str, limits: Limits, routes: Routes | None, text: str) -> str:
    if text:
        _word(name, limits, "shard_key", text, "route", routes is not None)
    if routes is not None:
        routes.endpoint_for(text)
    return text
