"""The moment at which a plain connection becomes a TLS connection, on either side.

From that moment on the plain one is only in the hands of TLS. What this room adds is what the login wants to
know of the handshake, and words for what went wrong.
"""

import ssl
from typing import Any, Final

from proxy.errors import OpenFailed
from proxy.reasons import TlsFailure
from proxy.relay.tls_failures import explain
from proxy.relay.tls_transport import TlsTransport
from proxy.steps import StartTls

_PATIENCE: Final = 60.0  # seconds that a server has for the handshake, where nothing else bounds it


async def begin_towards_server(
    transport: Any, protocol: Any, context: ssl.SSLContext, host: str, hint: str
) -> TlsTransport:
    """Begin TLS on a connected transport that is not being read; returns the new one.

    ``host`` is the name that the server is told (SNI), and that verify-full compares; "": none. ``hint`` is
    added where the server only ends the connection. Raises OpenFailed.
    """
    name = host.rstrip(".") or None  # RFC 6066: without the dot that ends a name
    tls = TlsTransport(context, protocol, _PATIENCE, False, name)
    try:
        _put(tls, transport)
        await tls.secured()
    except OSError as error:
        kind, text = explain(error, "server")
        more = f" ({hint})" if hint and kind is TlsFailure.GONE else ""
        raise OpenFailed(f"TLS failed: {text}{more}") from None
    return tls


def begin_with_client(
    transport: Any, protocol: Any, context: ssl.SSLContext | None, ahead: bytes, patience: float
) -> TlsTransport:
    """Begin TLS with a client on a transport that is not being read; returns the new one, to be awaited.

    ``ahead`` is what the client sent of its TLS before it was known to be TLS. ``patience``, in seconds,
    bounds the handshake. Raises OSError.
    """
    assert context is not None
    tls = TlsTransport(context, protocol, patience, ahead=ahead)
    _put(tls, transport)
    return tls


def _put(tls: TlsTransport, transport: Any) -> None:
    if transport.is_closing():
        # Nobody would tell that it is lost.
        raise ConnectionResetError("the connection was lost while TLS began")
    transport.set_protocol(tls)
    tls.connection_made(transport)
    transport.resume_reading()


def told(step: StartTls, transport: Any) -> bytes | None:
    """Fill in what the login wants to know of the handshake; returns the peer's certificate in DER."""
    tls = transport.get_extra_info("ssl_object")
    step.protocol = tls.selected_alpn_protocol() or ""
    # The context in the end: which name was asked for may have led to another one than it began with.
    step.served = getattr(tls.context, "served", b"")
    certificate: bytes | None = tls.getpeercert(True)
    return certificate
