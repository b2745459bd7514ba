"""The moment at which a plain connection becomes a TLS connection, on either side.

The loop's own TLS does the work. What this room adds is the beginning of a TLS stream that has been read
already, what the login wants to know of the handshake, and words for what went wrong.
"""

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

from proxy.errors import OpenFailed
from proxy.reasons import TlsFailure
from proxy.relay.tls_failures import explain
from proxy.steps import StartTls
from proxy.tasks import spawn


async def begin_towards_server(
    transport: Any, protocol: Any, context: ssl.SSLContext, host: str, hint: str
) -> Any:
    """Begin TLS on a connected transport that is not being read; returns the new one.

    ``host`` is the name that the server is told (SNI), and that verify-full compares; "": none. ``hint`` is
    added where the server only ends the connection. Raises OpenFailed.
    """
    name = host.rstrip(".") or None  # RFC 6066: without the dot that ends a name
    try:
        upgraded = await asyncio.get_running_loop().start_tls(
            transport, protocol, context, server_hostname=name
        )
        return _finished(upgraded)
    except OSError as error:
        kind, text = explain(error, "server")
        more = f" ({hint})" if hint and kind is TlsFailure.GONE else ""
        raise OpenFailed(f"TLS failed: {text}{more}") from None


async def begin_with_client(
    transport: Any, protocol: Any, context: ssl.SSLContext | None, ahead: bytes, patience: float
) -> Any:
    """Begin TLS with a client on a transport that is not being read; returns the new one. Raises OSError.

    ``ahead`` is what the client sent of its TLS before it was known to be TLS. ``patience``, in seconds,
    bounds the handshake.
    """
    assert context is not None
    loop = asyncio.get_running_loop()
    beginning = loop.start_tls(
        transport, protocol, context, server_side=True, ssl_handshake_timeout=max(0.001, patience)
    )
    if not ahead:
        return _finished(await beginning)
    work = spawn(_outcome(beginning), "TLS that began at once")
    try:
        # The loop calls in the order in which it was asked: first the beginning above takes its one step,
        # which asks for `connection_made` of the TLS protocol and for reading to be resumed; we are next.
        # What we ask for now comes behind these two, and before the loop reads from any socket again.
        await asyncio.sleep(0)
        loop.call_soon(_feed, transport.get_protocol(), ahead)
        upgraded = await work
    except BaseException:
        work.cancel()
        raise
    if isinstance(upgraded, OSError):
        raise upgraded
    return _finished(upgraded)


async def _outcome(beginning: Coroutine[Any, Any, Any]) -> Any:
    """The new transport, or the error: a client whose TLS fails is no crash of ours."""
    try:
        return await beginning
    except OSError as error:
        return error


def _feed(protocol: Any, data: bytes) -> None:
    """Hand bytes to a BufferedProtocol, as its transport would."""
    while data:
        buffer = memoryview(protocol.get_buffer(len(data)))
        piece = data[: len(buffer)]
        if not piece:
            return
        buffer[: len(piece)] = piece
        protocol.buffer_updated(len(piece))
        data = data[len(piece) :]


def _finished(transport: Any) -> Any:
    # A connection that is lost meanwhile by no error of its own ends the handshake without one.
    if transport is None or transport.get_extra_info("ssl_object") is None:
        raise ConnectionResetError("the connection was lost while TLS began")
    return transport


def told(step: StartTls, transport: Any) -> bytes | None:
    """Fill in what the login wants to know of the handshake; returns the peer's certificate in DER."""
    tls = transport.get_extra_info("ssl_object")
    step.protocol = tls.selected_alpn_protocol() or ""
    # The context in the end: which name was asked for may have led to another one than it began with.
    step.served = getattr(tls.context, "served", b"")
    certificate: bytes | None = tls.getpeercert(True)
    return certificate
