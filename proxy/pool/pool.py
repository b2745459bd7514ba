"""A pool: sessions to one server, or to several, under one bound, and what may be asked of it.

What moves sessions is in exchange.py, what decides is in the ledger and beside it, and what an operator
does is in operating.py. This room gives them one face.
"""

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from proxy.pool import operating
from proxy.pool.endpoints import Endpoint, Endpoints
from proxy.pool.exchange import Exchange
from proxy.pool.ledger import Ledger
from proxy.pool.limits import Limits
from proxy.pool.routes import Routes
from proxy.pool.session import Key, Opener, Session
from proxy.pool.snapshot import freeze, reset_marks
from proxy.pool.stats import PoolStats
from proxy.pool.ticket import acquire
from proxy.reasons import DropReason
from proxy.roles import ANY, target_for

# Keys are remembered so that two clients who want the same have the same; clients choose some of their parts.
_MOST_KEYS: Final = 4096


class Pool(Exchange):
    """Sessions under one bound.

    ``default_key`` (database, user) is what ``min`` is filled with, and what is tried until a server is back.
    ``endpoints`` are the servers' names; ``routes`` say which of them a shard key leads to; ``cclass`` is
    the class of clients that name none, ``target`` (roles.TARGETS) which servers will do for those who do
    not say.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        opener: Opener,
        default_key: tuple[str, str],
        pool_mode: str = "transaction",
        clock: Callable[[], float] = time.monotonic,
        endpoints: tuple[str, ...] = (),
        routes: Routes | None = None,
        cclass: str = "",
        target: int = ANY,
    ) -> None:
        servers = Endpoints(endpoints or (name,))
        servers.own, servers.targeted = target, target != ANY
        at = None if routes is None or routes.default is None else servers.all[routes.default]
        own = Key(default_key[0], default_key[1], cclass, at, target)
        super().__init__(Ledger(name, limits, servers), opener, own, clock)
        self.pool_mode = pool_mode
        self.resets = pool_mode == "session"  # something is sent to a session each time it is given back
        self.routes = routes
        self.cclass = cclass
        self.class_names: tuple[str, ...] = ()  # of the priority classes by number, for those who look
        if routes is not None:
            shards = tuple(Key(default_key[0], default_key[1], cclass, each) for each in servers.all)
            self.ledger.homes = tuple(own if shard.endpoint is at else shard for shard in shards)
        # One for each that a client has proven it may use.
        self._own = own
        self._keys: dict[tuple[str, str, str, int, int], Key] = {
            _name(key): key for key in (own, *self.ledger.homes)
        }

    @property
    def ready(self) -> bool:
        """The latest open of the default key succeeded."""
        return self.opening.ready

    @property
    def last_error(self) -> str:
        """Why the latest open of the default key failed; empty when it did not."""
        return self.opening.last_error

    def key(
        self, database: str, user: str, cclass: str = "", shard_key: str | None = None, target: str = ""
    ) -> Key:
        """The one key object for a database, a user, a class, a shard key and a target (roles.WORDS).

        Raises ValueError with a sentence when the shard key leads nowhere.
        """
        endpoints = self.ledger.endpoints
        endpoint = _endpoint(endpoints, self.routes, shard_key)
        number = target_for(target, endpoints.own, endpoints.falls_back) if target else endpoints.own
        if number != ANY:
            endpoints.targeted = True
        wanted = Key(database, user, cclass or self.cclass, endpoint, number)
        name = _name(wanted)
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= _MOST_KEYS:
                self._forget_keys()
            key = self._keys[name] = wanted
        return key

    def _forget_keys(self) -> None:
        # Whoever has one of these keeps it; a newcomer gets another, and sessions of its own.
        ledger = self.ledger
        used = {session.key for session in ledger.sessions()} | {waiter.key for waiter in ledger.queue}
        used |= {self._own, *ledger.homes}
        self._keys = {name: key for name, key in self._keys.items() if key in used}

    def acquire(
        self,
        key: Key,
        getmode: int | None = None,
        wait_timeout: float | None = None,
        *,
        wants_new: bool = False,
        tag: object | None = None,
        affinity: str = "",
        priority: int = 0,
    ) -> Coroutine[Any, Any, Session]:
        """Wait for a session as the getmode says. Raises PoolError or BackendError.

        ``wants_new``, ``tag``, ``affinity`` and ``priority`` are as in ``Waiter``.
        """
        return acquire(self, key, getmode, wait_timeout, wants_new, tag, affinity, priority)

    # -- the pool as a whole: see operating.py --------------------------------------------------

    def start(self, delay: float = 0.0) -> None:
        """Open what ``min`` asks for (one session at least) and begin to reap. Needs a running loop.

        Whoever asks for a session within the first ``delay`` seconds gets it at once.
        """
        self.keeper.start(delay)

    def filled(self) -> Coroutine[Any, Any, None]:
        """Return when ``min`` sessions have been open."""
        return self.keeper.filled()

    def pause(self) -> None:
        """Grant nothing from now on; whoever holds a session goes on until it gives it back."""
        operating.pause(self)

    def resume(self) -> None:
        """Grant again, those who wait first."""
        operating.resume(self)

    def reconfigure(self, limits: Limits) -> None:
        """Take over other limits, all at once; sessions above a lower ``max`` end as they come home.

        Raises ValueError, and changes nothing, when they contradict each other.
        """
        operating.reconfigure(self, limits)

    def renew(self) -> None:
        """Begin a new generation: every session of today is replaced as it comes home."""
        operating.renew(self)

    def clear(self) -> int:
        """Close every idle session, as Spanner's ``clear``; returns how many."""
        return operating.clear(self, DropReason.CLOSED)

    def close(self, force: bool = False) -> None:
        """Close for good. Raises PoolBusy, and changes nothing, when somebody holds or waits for a session.

        ``force``: those who wait are refused, those who hold a session are cut.
        """
        operating.close(self, force)

    def drain(self) -> Coroutine[Any, Any, None]:
        """Refuse whoever waits, end every session, and return when the server has ended them all.

        A session that is held ends when it is released; after ``drain_timeout`` it is cut.
        """
        return self.ending.all_gone(
            self.shut, lambda: operating.cut(self, "the pool has waited for drain_timeout")
        )

    def shut(self) -> None:
        """Close to newcomers: refuse whoever waits, and end what is idle."""
        operating.shut(self)

    def session(self, number: int) -> Session | None:
        """The session with this number, while it takes a slot."""
        for session in self.ledger.sessions():
            if session.number == number:
                return session
        return None

    def reset_stats(self) -> None:
        """Begin the figures since the last reset anew; counters go on."""
        reset_marks(self.ledger, self.counters, self._clock())

    def snapshot(self) -> PoolStats:
        """The pool at this moment."""
        now, names = self._clock(), self.class_names
        return freeze(self.ledger, self.counters, self.pool_mode, self.ready, self.last_error, now, names)


def _endpoint(endpoints: Endpoints, routes: Routes | None, shard_key: str | None) -> Endpoint | None:
    number = None if routes is None else routes.endpoint_for(shard_key)
    return None if number is None else endpoints.all[number]


def _name(key: Key) -> tuple[str, str, str, int, int]:
    number = -1 if key.endpoint is None else key.endpoint.number
    return key.database, key.user, key.cclass, number, key.target
