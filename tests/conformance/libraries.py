"""The libraries themselves, with nothing behind them: connections that are only remembered."""

import contextlib
import datetime
import queue
from types import SimpleNamespace
from typing import Any
from unittest import mock

import generic_connection_pool.common
import generic_connection_pool.threading.pool
import psycopg2
import psycopg2.extensions
import psycopg2.pool
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool
from google.cloud.exceptions import NotFound
from google.cloud.spanner_v1 import pool as spanner

from conformance.compare import FAILED, FULL, TIMEOUT, Ancestor
from fakes import FakeClock

# -- psycopg2 -----------------------------------------------------------------------------------


class StubConnection:
    """What psycopg2's pools look at in a connection."""

    def __init__(self) -> None:
        self.closed = 0
        self.rollbacks = 0
        self.rollback_error: Exception | None = None
        self.info = SimpleNamespace(transaction_status=psycopg2.extensions.TRANSACTION_STATUS_IDLE)

    def close(self) -> None:
        self.closed = 1

    def rollback(self) -> None:
        self.rollbacks += 1
        if self.rollback_error is not None:
            raise self.rollback_error
        self.info.transaction_status = psycopg2.extensions.TRANSACTION_STATUS_IDLE


class Psycopg2(Ancestor):
    """SimpleConnectionPool; ``keys`` are used in turn, none means no key."""

    def __init__(self, clock: FakeClock, minconn: int, maxconn: int, keys: tuple[str, ...] = ()) -> None:
        super().__init__(clock)
        self.keys = keys
        with mock.patch.object(psycopg2, "connect", self._connect):
            self.pool = psycopg2.pool.SimpleConnectionPool(minconn, maxconn)

    def _connect(self) -> StubConnection:
        if self.fail_next:
            self.fail_next = False
            raise psycopg2.OperationalError("the server is down")
        return StubConnection()

    def acquire(self, which: int) -> Any:
        key = self.keys[which % len(self.keys)] if self.keys else None
        try:
            with mock.patch.object(psycopg2, "connect", self._connect):
                return self.pool.getconn(key)
        except psycopg2.pool.PoolError:
            return FULL
        except psycopg2.OperationalError:
            return FAILED

    def release(self, connection: StubConnection) -> None:
        self.pool.putconn(connection)

    def release_dirty(self, connection: StubConnection) -> None:
        connection.info.transaction_status = psycopg2.extensions.TRANSACTION_STATUS_INTRANS
        self.pool.putconn(connection)

    def drop(self, connection: StubConnection) -> None:
        self.pool.putconn(connection, close=True)

    def lose(self, connection: StubConnection) -> None:
        connection.closed = 2
        self.pool.putconn(connection)

    def kill(self, connection: StubConnection) -> None:
        connection.closed = 2

    def idle(self) -> list[Any]:
        return list(self.pool._pool)


# -- generic_connection_pool --------------------------------------------------------------------


class StubManager(BaseConnectionManager[str, Any]):
    """Makes connections that are objects, alive until they are said to be dead."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.disposed: list[Any] = []
        self.checks = 0
        self.fail_next = False

    def create(self, endpoint: str, timeout: float | None = None) -> Any:
        if self.fail_next:
            self.fail_next = False
            raise OSError("the server is down")
        return _Connection(endpoint)

    def dispose(self, endpoint: str, conn: Any, timeout: float | None = None) -> None:
        self.disposed.append(conn)

    def check_aliveness(self, endpoint: str, conn: Any, timeout: float | None = None) -> bool:
        if id(conn) in self.dead:
            return False
        self.checks += 1
        return True


class _Connection:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint


class Generic(Ancestor):
    """generic_connection_pool's synchronous pool, with nobody who waits."""

    def __init__(self, clock: FakeClock, endpoints: tuple[str, ...], **settings: Any) -> None:
        super().__init__(clock)
        self.endpoints = endpoints
        self.manager = StubManager()
        self._patches = [
            mock.patch.object(generic_connection_pool.common, "time", SimpleNamespace(monotonic=self._tick)),
            # Its dataclass has taken hold of the real clock.
            mock.patch.object(generic_connection_pool.threading.pool, "ConnectionInfo", self._info),
        ]
        for patch in self._patches:
            patch.start()
        self.pool: ConnectionPool[str, Any] = ConnectionPool(self.manager, acquire_timeout=0.0, **settings)

    def _info(self, endpoint: str, conn: Any) -> Any:
        now = self._tick()
        return generic_connection_pool.common.ConnectionInfo(endpoint, conn, now, now)

    def _tick(self) -> float:
        # It waits in a loop until time has passed: with a clock that stands still, for ever.
        self.clock.advance(1e-6)
        return self.clock()

    def acquire(self, which: int) -> Any:
        self.manager.fail_next = self.fail_next
        try:
            return self.pool.acquire(self.endpoints[which % len(self.endpoints)])
        except TimeoutError:
            return TIMEOUT
        except OSError:
            return FAILED
        finally:
            self.fail_next = self.manager.fail_next
            self.pings = self.manager.checks

    def release(self, connection: Any) -> None:
        self.pool.release(connection, connection.endpoint)

    def kill(self, connection: Any) -> None:
        self.manager.dead.add(id(connection))

    def idle(self) -> list[Any]:
        found: list[Any] = []
        for _, pool in self.pool._pools._pools.values():
            found += [*pool._pool, *pool._extra]
        return found

    def close(self) -> None:
        for patch in self._patches:
            patch.stop()


# -- Spanner ------------------------------------------------------------------------------------


class StubSession:
    """What Spanner's pools ask of a session."""

    def __init__(self, owner: "Spanner") -> None:
        self.owner = owner
        self.gone = False
        self.deleted = False
        self.error: Exception | None = None
        self.last_use_time = owner.now()
        self._session_id = f"{id(self):x}"
        self.begun: object | None = object()

    session_id = property(lambda self: self._session_id)

    def __lt__(self, other: "StubSession") -> bool:
        return id(self) < id(other)

    def create(self) -> None:
        if self.owner.fail_next:
            self.owner.fail_next = False
            raise OSError("the server is down")
        self.last_use_time = self.owner.now()

    def exists(self) -> bool:
        if self.error is not None:
            raise self.error
        if self.gone:
            return False
        self.owner.pings += 1
        self.last_use_time = self.owner.now()
        return True

    def ping(self) -> None:
        if not self.exists():
            raise NotFound("no such session")

    def delete(self) -> None:
        if self.gone:
            raise NotFound("no such session")
        self.deleted = True

    def transaction(self) -> object | None:
        return self.begun


class StubDatabase:
    """What Spanner's pools ask of a database while they are filled."""

    name = "projects/p/instances/i/databases/d"
    database_id = "d"
    database_role = None
    observability_options = None
    _route_to_leader_enabled = False
    _next_nth_request = 1

    def __init__(self) -> None:
        self.spanner_api = self
        self._instance = SimpleNamespace(
            instance_id="i", _client=SimpleNamespace(project="p", _query_options=None)
        )

    def with_error_augmentation(self, *_: Any) -> Any:
        return [], contextlib.nullcontext()

    def metadata_with_request_id(self, *_: Any) -> Any:
        return []

    def batch_create_sessions(self, request: Any, metadata: Any = None) -> Any:
        # Fewer than were asked for, as the server may.
        count = max(1, request.session_count // 2)
        return SimpleNamespace(session=[SimpleNamespace(name=f"sessions/{n}") for n in range(count)])


class Spanner(Ancestor):
    """One of Spanner's pools, bound. The application pings every second, as it is told to."""

    def __init__(self, clock: FakeClock, kind: type[Any], **settings: Any) -> None:
        super().__init__(clock)
        self._patch = mock.patch.object(spanner, "_NOW", self.now)
        self._patch.start()
        self.pool = kind(**settings)
        self.pool._new_session = lambda: StubSession(self)
        self.pool.bind(StubDatabase())

    def now(self) -> datetime.datetime:
        # No two sessions are due at the same time: its queue would order them by chance.
        self.clock.advance(1e-6)
        return datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=self.clock())

    def acquire(self, which: int) -> Any:
        more = {} if isinstance(self.pool, spanner.BurstyPool) else {"timeout": 0}
        try:
            return self.pool.get(**more)
        except queue.Empty:
            return TIMEOUT
        except OSError:
            return FAILED

    def release(self, connection: StubSession) -> None:
        connection.last_use_time = self.now()
        self.pool.put(connection)

    def kill(self, connection: StubSession) -> None:
        connection.gone = True

    def idle(self) -> list[Any]:
        return [entry[1] if isinstance(entry, tuple) else entry for entry in list(self.pool._sessions.queue)]

    def advance(self, seconds: float) -> None:
        if not isinstance(self.pool, spanner.PingingPool):
            super().advance(seconds)
            return
        for _ in range(int(seconds)):
            super().advance(1.0)
            self.pool.ping()

    def close(self) -> None:
        self._patch.stop()
