"""Has the parts that run follow other settings, while they run.

Whatever may fail is made first; then everything changes in one step of the loop, or nothing has. Clients
that are in stay in, sessions that are open stay open.
"""

from collections.abc import Iterator
from dataclasses import replace

from proxy.building import Parts, listener_of, timeouts_of
from proxy.building_auth import file_changes, own_account, residents_of, terms_of, ways_of
from proxy.freedoms import terms
from proxy.pool.limits import OFF, Limits
from proxy.postgres.state import ClientState
from proxy.relay.client import Client
from proxy.relay.link import WAITING
from proxy.relay.listener import Listener
from proxy.reloading import Difference, compare, effective, same_place, same_server
from proxy.renewing import Renewal
from proxy.servers import logins_of
from proxy.settings import Settings
from proxy.settings.pools import PoolSettings


class Takeover:
    """The parts, and which settings each of them follows."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self.parts = parts
        self.started = settings  # until the restart, for what needs one
        self.latest = settings  # as read last, or set since
        # What could not be taken over follows the settings in which it last could.
        self._listeners = dict(settings.listeners)
        self._servers = dict(settings.pools)

    def adopt(self, new: Settings) -> Difference:
        """Take over what can be. Raises OSError or ValueError, and then nothing has changed."""
        parts = self.parts
        difference = compare(self.started, self.latest, new)
        difference = replace(difference, live=(*difference.live, *file_changes(self.latest, new)))
        listeners = self._listeners | {
            name: new.listeners[name] for name in parts.listeners if same_place(self.started, new, name)
        }
        servers = self._servers | {
            name: new.pools[name] for name in parts.pools if same_server(self.started, new, name)
        }
        applied = new.model_copy(update={"pools": servers, "listeners": listeners})
        residents = residents_of(applied, parts.directory)
        fresh: dict[str, Listener] = {
            name: listener_of(
                name,
                listeners[name],
                parts.commons,
                residents.at(name),
                ways_of(listeners[name], new),
                parts.served,
                parts.pools,
            )
            for name in parts.listeners
        }
        self._reconfigure({name: new.pools[name].limits for name in parts.pools if name in new.pools})
        # From here on nothing fails.
        for name, listener in parts.listeners.items():
            listener.adopt(fresh[name])
        Renewal(parts, lambda: OFF).look()
        for name, served in parts.served.items():
            parts.lookups[name].adopt(terms_of(servers[name]))
            served.adopt(own_account(servers[name]), residents.accounts)
            served.logins = logins_of(servers[name])
        parts.directory = residents
        parts.commons.timeouts = timeouts_of(new)
        self._listeners, self._servers, self.latest = listeners, servers, new
        return difference

    def adopt_pool(self, name: str, new: PoolSettings) -> None:
        """Take over the limits of one pool. Raises ValueError, and then nothing has changed."""
        self._reconfigure({name: new.limits})
        self.latest = self.latest.model_copy(update={"pools": self.latest.pools | {name: new}})

    def _reconfigure(self, wanted: dict[str, Limits]) -> None:
        done: dict[str, Limits] = {}
        for name, limits in wanted.items():
            pool = self.parts.pools[name]
            before, after = pool.limits, effective(pool.limits, limits)
            if before == after:
                continue
            try:
                pool.reconfigure(after)
            except ValueError as error:
                for other, old in done.items():
                    self.parts.pools[other].reconfigure(old)
                raise ValueError(f"pools.{name}: {error}") from None
            done[name] = before
        for name in done:
            self._tell(name)

    # -- the clients ----------------------------------------------------------------------------

    def clients(self, pool: str) -> Iterator[Client]:
        """The clients of a pool."""
        wanted = self.parts.pools[pool]
        for listener in self.parts.listeners.values():
            for client in listener.house.clients:
                if client.pool is wanted:
                    yield client

    def _tell(self, name: str) -> None:
        # The next acquire is by the new terms. Whoever is in the queue came by the old ones, and stays.
        served = self.parts.served.get(name)
        if served is not None:
            served.terms.adopt(terms(name, self.started.pools[name], self.parts.pools[name].limits))
        for client in self.clients(name):
            _review(client)
            if client.phase == WAITING:
                client.terms_changed = True
            else:
                client.adopt_terms()


def _review(client: Client) -> None:
    """Forget what a client has chosen for itself and may choose no longer."""
    codec = client.codec
    if isinstance(codec, ClientState):
        codec.chosen = codec.terms.still(codec.chosen)
        codec.terms.apply(codec.chosen, codec)
