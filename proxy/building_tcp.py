"""Turns the settings of raw TCP into what runs: its pools, and what its listeners need. Starts nothing."""

from collections.abc import Sequence

from proxy.codec import SessionCodec
from proxy.pool.pool import Pool
from proxy.pool.session import Session
from proxy.reception import Reception
from proxy.relay.endpoint import Endpoint
from proxy.relay.opener import SocketOpener
from proxy.relay.proxy_header import SEND_PROXY
from proxy.settings.listeners import ListenerSettings
from proxy.settings.pool_tcp import ScriptSettings
from proxy.settings.pools import PoolSettings
from proxy.tcp.front import DATABASE, USER, TcpFront
from proxy.tcp.script import Script
from proxy.tcp.session import TcpSession


def tcp_pool(name: str, settings: PoolSettings, endpoints: Sequence[Endpoint]) -> Pool:
    """One pool; ``endpoints`` are its servers."""
    ping, reset = _script(settings.ping_script), _script(settings.reset_script)
    for endpoint in endpoints:
        endpoint.send_proxy = SEND_PROXY.index(settings.send_proxy)

    def begin(session: Session) -> SessionCodec:
        return TcpSession(endpoints[session.endpoint.number].tls is not None, ping, reset)

    opener = SocketOpener(endpoints, begin)
    made = Pool(
        name,
        settings.limits,
        opener,
        (DATABASE, USER),
        settings.pool_mode,
        endpoints=tuple(settings.endpoints),
    )
    opener.pool = made
    return made


def tcp_front(settings: ListenerSettings, pools: dict[str, Pool]) -> Reception:
    """What one listener needs of the protocol."""
    assert settings.pool is not None
    has_tls = settings.tls_mode != "disable" and settings.address.path is None
    return TcpFront(pools[settings.pool], has_tls)


def _script(settings: ScriptSettings | None) -> Script | None:
    return Script(settings.send, settings.expect) if settings is not None else None
