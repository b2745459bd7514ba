"""What the pool does to a session behind its holder's back: a look, a transaction ahead, taking it away."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from proxy.errors import BackendError
from proxy.pool.endpoints import Endpoint as Place
from proxy.pool.limits import Limits
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, CLOSING, Key, Session
from proxy.reasons import CloseReason, DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.endpoint import Endpoint
from proxy.relay.opener import SocketOpener
from proxy.relay.sockets import KeepAlive
from proxy.relay.tls import ServerFiles
from proxy.relay.tls_transport import TlsTransport
from proxy.steps import Conversation
from relay.stage import LineSession, NoEndpoint, Scene, Transport, turns
from servers import Certificates

Make = Callable[..., Scene]

# -- peek -----------------------------------------------------------------------------------------


async def test_a_peek_sees_what_nobody_has_read_and_leaves_it_there(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    assert not scene.backend.peek()
    server.theirs.send(b"news")
    assert scene.backend.peek()
    assert scene.backend.peek()
    assert server.ours.recv(10) == b"news"
    assert not scene.backend.peek()


async def test_a_peek_sees_the_end(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    server.hang_up()
    assert scene.backend.peek()
    assert scene.backend.peek()


async def test_a_peek_at_a_closed_connection_touches_no_descriptor(make_scene: Make) -> None:
    """The number may be somebody else's by now."""
    scene = make_scene()
    server = await scene.warm()
    backend = scene.backend
    number = server.ours.fileno()
    server.lose()
    with socket.socket() as other:
        assert other.fileno() == number or other.fileno() >= 0
        assert backend.peek()
    scene.transports.clear()


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A loop of either kind: the daemon runs on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as made:
        yield made


class Teller:
    """A server's side that does as it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.arrived = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.arrived.set()

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


def _backend(endpoint: Endpoint) -> tuple[Pool, SocketBackend]:
    opener = SocketOpener([endpoint], lambda session: LineSession())
    pool = Pool("app", Limits(), opener, ("app", "app"))
    session = Session(1, Key("app", "app"), Place(0, "here"), 0.0)
    return pool, SocketBackend(pool, session, LineSession(), endpoint)


def _let_it_come(backend: SocketBackend) -> bool:
    # Without a turn of the loop, which would read it. The other side is in this process: it is there at
    # once, or never.
    return backend.peek()


@pytest.mark.parametrize("tls", [False, True])
def test_a_peek_at_a_real_connection(runner: asyncio.Runner, tls: bool, certificates: Certificates) -> None:
    async def look() -> None:
        loop = asyncio.get_running_loop()
        theirs, ours = None, None
        if tls:
            theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            theirs.load_cert_chain(*certificates.server)
            ours = ServerFiles("require", None, None, None).load()
        teller = Teller()
        server = await loop.create_server(lambda: teller, "127.0.0.1", 0, ssl=theirs)
        endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], "", ours, KeepAlive())
        _, backend = _backend(endpoint)
        if tls:
            # A plain connection that becomes TLS, as PostgreSQL's do, is made in one go here.
            assert ours is not None
            secured = TlsTransport(ours, backend, 10.0, server_side=False, announce=True)
            await loop.create_connection(lambda: secured, "127.0.0.1", endpoint.port)
            await secured.secured()
        else:
            await endpoint.connect(backend)
        await teller.arrived.wait()
        await asyncio.sleep(0.05)  # tickets of TLS are read
        assert not backend.peek()
        teller.transport.write(b"news")
        assert _let_it_come(backend)
        while backend.peek():
            await asyncio.sleep(0)
        teller.transport.abort()
        while not backend.is_gone():
            await asyncio.sleep(0)
        assert backend.peek()
        server.close()
        await server.wait_closed()

    runner.run(asyncio.wait_for(look(), 20))


# -- begin ----------------------------------------------------------------------------------------


async def test_a_transaction_is_begun_by_a_conversation(make_scene: Make) -> None:
    scene = make_scene()
    server = await scene.warm()
    task = asyncio.ensure_future(scene.backend.begin())
    await turns()
    assert server.take() == b"begin\n"
    server.say(b"ok\n")
    await task
    task = asyncio.ensure_future(scene.backend.begin())
    await turns()
    server.say(b"no\n")
    with pytest.raises(BackendError):
        await task


# -- taking it away -------------------------------------------------------------------------------


async def _expelled(scene: Scene) -> Session:
    [session] = scene.pool.ledger.busy
    scene.pool.expel(session, DropReason.CLOSED, "dropped by an operator")
    return session


async def test_a_client_whose_session_is_taken_away_outside_a_transaction_goes_on(make_scene: Make) -> None:
    scene = make_scene(max=2)
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"q1\n")
    session = await _expelled(scene)
    assert session.state == CLOSING
    assert wire.take() == b"lost\n"
    wire.say(b"q2\n")
    await turns()
    assert scene.server is not server
    scene.server.say(b"row\nZ\n")
    assert wire.take() == b"row\nZ\n"
    server.lose()
    await turns()
    assert scene.shows(idle=1)


async def test_a_client_inside_a_transaction_is_told_and_ended(make_scene: Make) -> None:
    scene = make_scene(max=2)
    server = await scene.warm()
    client, wire = scene.client()
    wire.say(b"b\n")
    server.say(b"Z\n")
    wire.take()
    await _expelled(scene)
    assert wire.take() == f"fatal {CloseReason.SESSION_LOST}\n".encode()
    assert scene.ended == [(client.number, CloseReason.SESSION_LOST)]
    await turns()
    assert server.written.endswith(b"farewell\n")
    assert len(scene.endpoint.made) == 1  # nothing ran that would have to be cancelled


async def test_what_runs_on_it_is_cancelled_so_that_the_server_ends_it_soon(make_scene: Make) -> None:
    scene = make_scene(max=2)
    server = await scene.warm()
    _, wire = scene.client()
    wire.say(b"q1\n")
    await _expelled(scene)
    await turns()
    errand = scene.endpoint.made[-1]
    assert errand is not server
    assert errand.take() == b"cancel\n"
    errand.lose()
    server.say(b"row\nZ\n")  # what comes now is for nobody
    assert wire.take() == b"lost\n"


async def test_a_session_that_was_slow_is_read_to_its_end(make_scene: Make) -> None:
    """A transport that stays paused would never show the server's goodbye."""
    scene = make_scene(max=2)
    server = await scene.warm()
    client, wire = scene.client()
    wire.say(b"q1\n")
    client.pause_writing()
    assert server.paused
    await _expelled(scene)
    assert not server.paused
    client.resume_writing()


@pytest.mark.parametrize("step", range(3))
async def test_a_session_may_be_taken_away_while_it_is_given_its_settings(
    make_scene: Make, step: int
) -> None:
    scene = make_scene(max=2)
    server = await scene.warm()
    client, wire = scene.client("ann")
    wire.say(b"q1\n")
    if step:
        await turns()
    if step == 2:
        server.say(b"ok\n")  # it has them, and nobody knows yet
    session = await _expelled(scene)
    await turns()
    assert session.state == CLOSING
    assert wire.take() == b"no session\n"
    assert (client.session, client.backend) == (None, None)
    assert b"q1" not in server.written
    assert scene.pool.counters.drops[DropReason.CLOSED] == 1


async def test_a_session_that_nobody_holds_is_just_taken(make_scene: Make) -> None:
    scene = make_scene()
    await scene.warm()
    scene.backend.take_away("dropped")
    session = scene.backend.session
    assert session.state != BUSY
    with pytest.raises(BackendError, match="dropped"):
        await scene.backend.ping()


# -- several servers ------------------------------------------------------------------------------


class Deaf(Endpoint):
    """Takes every connection and notes it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1, "", None, KeepAlive())
        self.made: list[Transport] = []

    connect = NoEndpoint.connect


async def test_a_session_and_its_cancel_requests_go_to_its_own_server() -> None:
    endpoints = [Deaf("a"), Deaf("b")]
    begun: list[int] = []

    def begin(session: Session) -> LineSession:
        begun.append(session.endpoint.number)
        return LineSession()

    opener = SocketOpener(endpoints, begin)
    pool = opener.pool = Pool("app", Limits(max=2), opener, ("app", "app"), endpoints=("a", "b"))
    sessions = [await pool.acquire(pool.key("app", "app")) for _ in range(2)]
    assert begun == [0, 1]
    assert [len(endpoint.made) for endpoint in endpoints] == [1, 1]
    second = sessions[1].backend
    assert isinstance(second, SocketBackend)
    task = second.cancel()
    await turns()
    assert [len(endpoint.made) for endpoint in endpoints] == [1, 2]
    assert endpoints[1].made[1].take() == b"cancel\n"
    endpoints[1].made[1].lose()
    await task
    for session in sessions:
        pool.release(session)
    draining = asyncio.ensure_future(pool.drain())
    await turns()
    for endpoint in endpoints:
        endpoint.made[0].lose()
    await draining


async def test_a_login_that_fails_on_one_server_leaves_no_socket() -> None:
    class Broken(LineSession):
        def log_in(self) -> Conversation[None]:
            yield from ()
            raise BackendError("no")

    endpoint = Deaf("a")
    opener = SocketOpener([endpoint], lambda session: Broken())
    opener.pool = Pool("app", Limits(), opener, ("app", "app"))
    with pytest.raises(BackendError):
        await opener.open(Session(1, Key("app", "app"), Place(0, "a"), 0.0))
    assert endpoint.made[0].closed
