"""What an operator does to the daemon while it runs: reload, pause, resume, and the commands of the socket.

Says what was done and logs it; what changes settings is in takeover.py, what changes a pool is the pool's
own. Each command is done whole, in one step of the loop, or refused with a sentence. No secret is ever said.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final

import structlog

from proxy.building import Parts
from proxy.control.commands import Answer, CommandRefused, Commands
from proxy.errors import ConfigError, PoolError
from proxy.holding import holders
from proxy.log import configure
from proxy.observe.snapshot import DaemonStats
from proxy.pool.limits import OFF
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, CARE, CLOSING, GONE, IDLE, OPENING, STATES
from proxy.reasons import DropReason
from proxy.reloading import LIVE_POOL, compare_pool
from proxy.settings import Loaded, Settings
from proxy.settings.changing import changed_pool
from proxy.settings.durations import format_duration
from proxy.settings.mistakes import nearest
from proxy.takeover import Takeover
from proxy.tasks import spawn

_log = structlog.get_logger("penstock")
_PASSING: Final = "This holds until the next reload or restart: to keep it, write it into the configuration."
_SHOWN: Final = ("getmode", "opened", "busy", "idle", "opening", "closing", "waiting", "min", "max")
_AT_WORK: Final = {
    OPENING: "being opened",
    CARE: "being pinged or reset",
    CLOSING: "closing already",
    GONE: "gone",
}


class Operator(Commands):
    """The commands, for the daemon that consists of ``parts`` and was started with ``settings``.

    ``read`` reads the configuration anew, or raises ConfigError; None where there is none to read.
    ``snapshot`` is the daemon at a moment.
    """

    def __init__(
        self,
        parts: Parts,
        settings: Settings,
        snapshot: Callable[[], DaemonStats],
        read: Callable[[], Loaded] | None = None,
    ) -> None:
        self._parts = parts
        self._takeover = Takeover(parts, settings)
        self._snapshot = snapshot
        self._read = read
        self._reloading = asyncio.Lock()

    @property
    def settings(self) -> Settings:
        """The settings in effect, but for what needs a restart."""
        return self._takeover.latest

    # -- the configuration ----------------------------------------------------------------------

    async def reload(self) -> Answer:
        """Read all sources again, and take over what can be; or refuse all of it, with every mistake."""
        if self._read is None:
            raise CommandRefused("there is nothing to read again: this daemon was given its settings")
        async with self._reloading:
            try:
                loaded = await asyncio.to_thread(self._read)
            except ConfigError as error:
                raise _refused([f"{place}: {sentence}" for place, sentence in error.mistakes]) from None
            return self._adopt(loaded)

    def _adopt(self, loaded: Loaded) -> str:
        new = loaded.settings
        before = self.settings.log
        try:
            difference = self._takeover.adopt(new)
        except (OSError, ValueError) as error:
            raise _refused([str(error)]) from None
        if new.log != before:
            configure(new.log.level, new.log.format)
        for place, sentence in loaded.warnings():
            _log.warning("configuration_warned", place=place, sentence=sentence)
        _log.info("configuration_reloaded", changes=list(difference.live))
        said = ["the configuration was reloaded", *difference.live]
        if difference.restart:
            detail = "these are as they were, and change when Penstock is restarted"
            _log.warning("restart_needed", settings=list(difference.restart), detail=detail)
            said += ["these need a restart:", *difference.restart]
        elif not difference.live:
            said[0] += "; nothing has changed"
        return "\n".join(said)

    def set(self, pool: str, values: Mapping[str, str]) -> Answer:
        """Change settings of one pool, all or none."""
        self._find(pool)
        current = self.settings.pools.get(pool)
        if current is None:
            raise CommandRefused(f'pool "{pool}" is not in the configuration any more')
        if not values:
            raise CommandRefused("nothing to set; expected for example max=20 getmode=nowait")
        for name in values:
            _check_knob(name)
        try:
            new = changed_pool(self.settings, pool, values)
            difference = compare_pool(pool, current, new)
            if difference.restart:
                raise ValueError("\n".join(["these can only change by a restart:", *difference.restart]))
            self._takeover.adopt_pool(pool, new)
        except ConfigError as error:
            raise CommandRefused("\n".join(f"{at}: {what}" for at, what in error.mistakes)) from None
        except ValueError as error:
            raise CommandRefused(str(error)) from None
        if not difference.live:
            return "nothing has changed"
        _log.info("pool_reconfigured", pool=pool, changes=list(difference.live))
        return "\n".join([*difference.live, _PASSING])

    def show(self, pool: str) -> Answer:
        """The settings of one pool that ``set`` takes, written as in the configuration."""
        self._find(pool)
        current = self.settings.pools.get(pool)
        if current is None:
            raise CommandRefused(f'pool "{pool}" is not in the configuration any more')
        values = current.model_dump(by_alias=True)
        values["max_forced"] = current.limits.max_forced
        return {name: value for name, value in values.items() if name in LIVE_POOL and value is not None}

    # -- looking --------------------------------------------------------------------------------

    def pools(self) -> Answer:
        """Every pool at this moment, in short."""
        return [
            {"pool": pool.name, "state": self._state(pool.name)}
            | {name: getattr(pool, name) for name in _SHOWN}
            for pool in self._snapshot().pools
        ]

    def _state(self, pool: str) -> str:
        ledger = self._parts.pools[pool].ledger
        return "closed" if ledger.closed else "paused" if ledger.paused else "open"

    def holders(self, pool: str) -> Answer:
        """Who holds the sessions of a pool."""
        self._find(pool)
        found = holders(self._parts, pool)
        return [asdict(holder) for holder in found.holders] if found is not None else []

    # -- pools ----------------------------------------------------------------------------------

    def pause(self, pool: str | None) -> Answer:
        """Grant nothing more, in one pool or in all."""
        found = self._some(pool)
        for name in found:
            self._parts.pools[name].pause()
            _log.info("pool_paused", pool=name)
        return f"paused: {', '.join(found)}. What runs may finish; who asks waits for its wait_timeout."

    def resume(self, pool: str | None) -> Answer:
        """Undo a pause."""
        found = self._some(pool)
        for name in found:
            self._parts.pools[name].resume()
            _log.info("pool_resumed", pool=name)
        return f"resumed: {', '.join(found)}."

    def drop(self, pool: str, session: int) -> Answer:
        """Close one session; a client that holds it is told."""
        found = self._find(pool).session(session)
        if found is None:
            raise CommandRefused(f'pool "{pool}" has no session {session}')
        if found.state not in (IDLE, BUSY):
            raise CommandRefused(
                f"session {session} is {_AT_WORK[found.state]}: only an idle or a busy one can be dropped"
            )
        was = STATES[found.state]
        self._find(pool).expel(found, DropReason.CLOSED, "the session was closed by the operator of Penstock")
        return f"session {session} was {was}, and is closed"

    def renew(self, pool: str) -> Answer:
        """Replace every session."""
        self._find(pool).renew()
        _log.info("pool_renewed", pool=pool)
        return f'every session of pool "{pool}" is replaced: idle ones now, busy ones as they come home'

    def clear(self, pool: str) -> Answer:
        """Close the idle sessions."""
        count = self._find(pool).clear()
        _log.info("pool_cleared", pool=pool, sessions=count)
        return f"closed {count} idle session{'' if count == 1 else 's'}"

    def close(self, pool: str, force: bool, drain: bool) -> Answer:
        """Close a pool until the restart."""
        found = self._find(pool)
        patience = found.limits.drain_timeout
        try:
            if drain and not force:
                found.shut()
                spawn(self._cut_later(found, patience), f"draining of pool {pool}")
            else:
                found.close(force)
        except PoolError as error:
            raise CommandRefused(f"{error.message}: {error.picture}") from None
        _log.warning("pool_closed", pool=pool, force=force, drain=drain)
        said = f'pool "{pool}" is closed, and stays so until Penstock is restarted'
        return f"{said}; who holds a session has {format_duration(patience)} to finish" if drain else said

    async def _cut_later(self, pool: Pool, patience: float) -> None:
        ended = spawn(pool.drain(), f"end of pool {pool.name}")
        await asyncio.wait((ended,), timeout=None if patience == OFF else patience)
        if pool.ledger.busy:
            pool.close(force=True)

    def reset_stats(self, pool: str) -> Answer:
        """Begin the statistics since the last reset anew."""
        self._find(pool).reset_stats()
        _log.info("statistics_reset", pool=pool)
        return f'the figures of pool "{pool}" since the last reset begin now; metrics go on'

    def _find(self, name: str) -> Pool:
        pool = self._parts.pools.get(name)
        if pool is None:
            close = nearest(name, self._parts.pools)
            known = ", ".join(self._parts.pools)
            hint = f'did you mean "{close}"?' if close else f"the pools are: {known}"
            raise CommandRefused(f'there is no pool "{name}"; {hint}')
        return pool

    def _some(self, name: str | None) -> list[str]:
        if name is None:
            return list(self._parts.pools)
        self._find(name)
        return [name]


def _refused(mistakes: list[str]) -> CommandRefused:
    _log.error("configuration_refused", mistakes=mistakes, detail="the old configuration stays in effect")
    return CommandRefused("\n".join([*mistakes, "nothing was changed: the old configuration stays"]))


def _check_knob(name: str) -> None:
    steps = name.split(".")
    if name in LIVE_POOL or (len(steps) == 3 and steps[0] == "priority" and steps[2] == "weight"):
        return
    close = nearest(name, LIVE_POOL)
    hint = f"did you mean {close}?" if close else f"these can: {', '.join(sorted(LIVE_POOL))}"
    raise CommandRefused(f"{name} cannot be set while Penstock runs; {hint}")
