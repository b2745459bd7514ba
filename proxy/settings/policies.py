"""Every policy of a pool in one table, and its way into the frozen Limits that the ledger reads."""

from typing import Any

from proxy.pool.limits import (
    AFFINITIES,
    BEGINS,
    FORCED_RELEASES,
    GETMODES,
    LOG_STATEMENTS,
    PING_FAILURES,
    PING_MODES,
    PREFILLS,
    PUT_FULLS,
    REAPS,
    REUSES,
    TAGS,
    Limits,
)
from proxy.settings.pool_acquire import AcquireSettings
from proxy.settings.pool_health import HealthSettings
from proxy.settings.pool_listen import ListenSettings
from proxy.settings.pool_opening import OpeningSettings
from proxy.settings.pool_pins import PinSettings
from proxy.settings.pool_size import SizeSettings
from proxy.settings.pool_state import StateSettings
from proxy.settings.pool_timing import TimingSettings

# Field by field the same in both: numbers, and times in seconds.
_AS_THEY_ARE = (
    "min",
    "max",
    "max_idle",
    "min_per_endpoint",
    "max_per_endpoint",
    "keep_min",
    "wait_timeout",
    "max_waiting",
    "refuse_early",
    "peek",
    "ping_interval",
    "ping_timeout",
    "idle_timeout",
    "max_lifetime",
    "reap_batch",
    "max_opening",
    "slow_start",
    "breaker_failures",
    "breaker_timeout",
    "connect_timeout",
    "io_parallel",
    "reset_timeout",
    "close_timeout",
    "drain_timeout",
    "begin_max_age",
    "idle_transaction_timeout",
    "hold_warning",
    "query_timeout",
    "transaction_timeout",
    "client_idle_timeout",
    "query_wait_notify",
    "log_min_duration",
    "log_statement_bytes",
    "query_stats",
)
# Words in the file, numbers in the ledger.
_CHOICES = {
    "prefill": PREFILLS,
    "forced_release": FORCED_RELEASES,
    "put_full": PUT_FULLS,
    "getmode": GETMODES,
    "reuse": REUSES,
    "affinity": AFFINITIES,
    "tags": TAGS,
    "ping_mode": PING_MODES,
    "ping_failure": PING_FAILURES,
    "reap": REAPS,
    "begin": BEGINS,
    "log_statements": LOG_STATEMENTS,
}


# pydantic puts the settings of the last base first.
class Policies(
    ListenSettings,
    PinSettings,
    StateSettings,
    OpeningSettings,
    HealthSettings,
    TimingSettings,
    AcquireSettings,
    SizeSettings,
):
    """What one pool may do, as the file has it."""

    def to_limits(self, weights: tuple[float, ...], freedoms: frozenset[str]) -> Limits:
        """Return the same for the ledger: times in seconds, choices as numbers.

        ``weights`` are those of the priority classes, ``freedoms`` what clients may choose for themselves.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in _AS_THEY_ARE}
        for name, words in _CHOICES.items():
            values[name] = words.index(getattr(self, name))
        return Limits(
            **values,
            increment=self.increment or 1,
            max_forced=self.forced_bound,
            evict=self.evict == "idle",
            lifetime_jitter=self.lifetime_jitter / 100.0,
            weights=weights,
            client_may_set=freedoms,
        )

    @property
    def forced_bound(self) -> int:
        """How many sessions forceget may open above ``max``, written or not."""
        if self.max_forced is not None:
            return self.max_forced
        return self.max if self.getmode == "forceget" else 0
