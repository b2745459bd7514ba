"""A client that is welcomed with a session of its own, and keeps it to its end.

The session was opened for this client alone: no other one may have had it, and no other one gets it. What the
client says before is kept by the entrance, and what the server says before by the session's codec.
"""

from proxy.errors import LocalProtocolError
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, Key, Session
from proxy.reasons import DropReason
from proxy.reception import Guest
from proxy.relay.backend import SocketBackend
from proxy.relay.client import Client


class Tied(Client):
    """A client and the session that is only its own."""

    def adopt_terms(self) -> None:
        """It never asks for another session."""

    def tie(self, session: Session) -> None:
        """Hold this session, which is held for it already."""
        backend = _backend_of(session)
        self.session = session
        self.backend = backend
        self.listen_to(backend)

    def give_back(self) -> None:
        """The session ends with its client; what it still runs is cancelled."""
        backend, session = self.backend, self.session
        assert backend is not None
        assert session is not None
        if self.codec.is_running():
            backend.cancel()
        self.part(backend)
        end_own(self.pool, session)

    def drain(self) -> None:
        """A stream does not end by itself: it is ended when no other client is left."""
        self.draining = True


async def own_session(
    guest: Guest, pool: Pool, key: Key, getmode: int | None, wait_timeout: float | None
) -> Session:
    """Have a session opened for this guest alone, and the guest note what it reports.

    Otherwise as ``Pool.acquire``. Whoever gets it ties it to a client, or ends it.
    """
    session = await pool.acquire(key.alone(guest.private), getmode, wait_timeout)
    try:
        guest.learn(_backend_of(session).codec)
    except BaseException:
        end_own(pool, session)
        raise
    return session


def end_own(pool: Pool, session: Session) -> None:
    """End a session that was somebody's own, unless it has ended."""
    if session.state == BUSY:
        pool.drop(session, DropReason.REPLICATION)
        pool.keeper.refill()


def _backend_of(session: Session) -> SocketBackend:
    backend = session.backend
    if not isinstance(backend, SocketBackend):
        raise LocalProtocolError(f"{session!r} has no socket")
    return backend
