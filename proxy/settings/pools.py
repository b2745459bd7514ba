"""``[pools.<name>]``: one pool, its server or servers, and how much of them Penstock may use.

Turns itself into the frozen Limits that the ledger reads and the addresses that sessions are opened to.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator

from proxy.pool.limits import Limits
from proxy.settings.knobs import knob
from proxy.settings.mistakes import Mistake, collect
from proxy.settings.policies import Policies
from proxy.settings.pool_checks import pool_mistakes
from proxy.settings.pool_lookup import LookupSettings, lookup_mistakes
from proxy.settings.pool_targets import TargetSettings, has_roles, held_for, target_mistakes
from proxy.settings.pool_tcp import TcpSettings, tcp_mistakes
from proxy.settings.presets import preset_values
from proxy.settings.priorities import Priorities, PrioritySettings, priorities, priority_mistakes
from proxy.settings.servers import ServerSettings
from proxy.settings.sockets import SocketSettings


# pydantic puts the settings of the last base first.
class PoolSettings(TcpSettings, LookupSettings, Policies, TargetSettings, ServerSettings, SocketSettings):
    """One bounded pool of sessions; its name is the database that clients ask for, and `*` takes any."""

    priority: dict[str, PrioritySettings] = knob({}, "Classes of clients that share unequally.")

    _from_preset: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="wrap")
    @classmethod
    def _with_preset(cls, written: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(written, dict) or not isinstance(written.get("preset"), str):
            return validate(written)
        added = preset_values(written["preset"], written)
        pool = validate({**added, **written})
        # What is set is what somebody wrote: whoever changes that must have the preset follow again.
        pool.model_fields_set.difference_update(added)
        pool._from_preset = frozenset(added)
        return pool

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        collect(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Mistake]:
        yield from self._server_mistakes()
        yield from self._lookup_mistakes()
        yield from lookup_mistakes(self)
        yield from priority_mistakes(self.priority)
        yield from pool_mistakes(self)
        yield from tcp_mistakes(self)
        yield from target_mistakes(self)

    @property
    def from_preset(self) -> frozenset[str]:
        """The settings whose values the preset has given."""
        return self._from_preset

    @property
    def freedoms(self) -> tuple[str, ...]:
        """What clients may choose for themselves: as written, else what the other settings are about."""
        if "client_may_set" in self.model_fields_set:
            return self.client_may_set
        asked = (
            ("key", self.affinity == "key"),
            ("tag", self.tags != "off"),
            ("shard_key", self.route),
            ("target", has_roles(self)),
        )
        return (*self.client_may_set, *(word for word, wanted in asked if wanted))

    @property
    def priority_of(self) -> Priorities:
        """Which class a client is in: call it with the user and the application_name."""
        return priorities(self.priority)

    @property
    def limits(self) -> Limits:
        """The bounds of this pool as the ledger reads them: times in seconds, modes as numbers."""
        limits = self.to_limits(self.priority_of.weights, frozenset(self.freedoms))
        return replace(limits, failover_wait=held_for(self), role_check_interval=self.role_check_interval)
