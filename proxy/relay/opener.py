"""How a pool gets a session: a connection to the endpoint that was chosen, and the login there."""

from collections.abc import Callable, Sequence

from proxy.codec import SessionCodec
from proxy.errors import BackendError
from proxy.pool.pool import Pool
from proxy.pool.session import Backend, Opener, Session
from proxy.relay.backend import SocketBackend
from proxy.relay.endpoint import Endpoint
from proxy.relay.names import Follower


class SocketOpener(Opener):
    """Opens the sessions of one pool. ``begin`` makes the codec of a session.

    ``endpoints`` are where the pool's endpoints of the same numbers are.
    """

    def __init__(self, endpoints: Sequence[Endpoint], begin: Callable[[Session], SessionCodec]) -> None:
        self.endpoints = tuple(endpoints)
        self.begin = begin
        self.pool: Pool | None = None  # set once, by whoever makes the pool with this opener
        self.follows = False  # the names of the servers are followed already

    async def open(self, session: Session) -> Backend:
        """Connect and log in; once more where the server may have minded what was asked of it.

        Raises OpenFailed, OSError.
        """
        codec = self.begin(session)
        try:
            return await self._open(session, codec)
        except BackendError:
            if not codec.asks_less():
                raise
        return await self._open(session, codec)

    async def _open(self, session: Session, codec: SessionCodec) -> Backend:
        assert self.pool is not None
        endpoint = self.endpoints[session.endpoint.number]
        if not self.follows:
            self.follows = True
            Follower(self.pool, [each.names for each in self.endpoints]).start()
        backend = SocketBackend(self.pool, session, codec, endpoint)
        try:
            await endpoint.connect(backend)
            await backend.log_in()
        except BaseException:
            backend.abandon()
            raise
        return backend
