"""How a pool gets a session: a connection to the endpoint that was chosen, and the login there."""

from collections.abc import Callable, Sequence

from proxy.codec import SessionCodec
from proxy.pool.pool import Pool
from proxy.pool.session import Backend, Opener, Session
from proxy.relay.backend import SocketBackend
from proxy.relay.endpoint import Endpoint


class SocketOpener(Opener):
    """Opens the sessions of one pool. ``begin`` makes the codec of a session.

    ``endpoints`` are where the pool's endpoints of the same numbers are.
    """

    def __init__(self, endpoints: Sequence[Endpoint], begin: Callable[[Session], SessionCodec]) -> None:
        self.endpoints = tuple(endpoints)
        self.begin = begin
        self.pool: Pool | None = None  # set once, by whoever makes the pool with this opener

    async def open(self, session: Session) -> Backend:
        """Connect and log in. Raises OpenFailed, OSError."""
        assert self.pool is not None
        endpoint = self.endpoints[session.endpoint.number]
        backend = SocketBackend(self.pool, session, self.begin(session), endpoint)
        try:
            await endpoint.connect(backend)
            await backend.log_in()
        except BaseException:
            backend.abandon()
            raise
        return backend
