"""The status server: metrics, probes, the API and the status page, answered from the daemon's own loop.

That it answers at all proves that the loop turns. It only reads: GET and HEAD, nothing else. It must
never let a visitor hurt the daemon (see door.py), nor give the page or the API to a web site that
was made to look like ours by a lying name server.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from email.utils import formatdate
from typing import Any, Final

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.observe.collector import Snapshot, bounds, build_registry, choose
from proxy.observe.door import Door, listen
from proxy.observe.page import STYLE_HASH, render_page
from proxy.observe.readiness import one_line, unfilled, unready
from proxy.observe.snapshot import Holders, PoolQueries
from proxy.pool.figures import HistogramStats, PoolStats

_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (
        b"content-security-policy",
        f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"connection", b"close"),  # one request a visit: whoever is slow has one deadline, not many
)
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?")
_FRESH: Final = 0.25

Handler = Callable[[Request], Awaitable[Response]]


def _nobody(_pool: str) -> Holders | None:
    return None


class StatusServer:
    """Serves ``snapshot`` on ``address``; every answer takes a new one.

    ``holders`` says who holds the sessions of the pool with that name, None when there is no such pool;
    ``queries`` what was asked of the pools that count it.
    """

    def __init__(
        self,
        address: tuple[str, int],
        snapshot: Snapshot,
        holders: Callable[[str], Holders | None] = _nobody,
        queries: Callable[[], tuple[PoolQueries, ...]] = tuple,
    ) -> None:
        self._wanted = address
        self._bound: tuple[str, int] | None = None
        self._snapshot = snapshot
        self._holders = holders
        self._queries = queries
        self._registry = build_registry(snapshot)
        self._hosts: frozenset[str] | None = None
        self._door: Door | None = None
        self._latest: dict[str, tuple[float, bytes]] = {}  # by content type: when, what

    @property
    def address(self) -> tuple[str, int]:
        """The (host, port) that is bound; before ``start`` the one that was asked for."""
        return self._bound or self._wanted

    async def start(self) -> None:
        """Bind and begin to answer.

        Raises OSError with a sentence when the address cannot be had.
        """
        listening = await listen(*self._wanted)
        name = listening.getsockname()
        self._bound = (str(name[0]), int(name[1]))
        self._hosts = _own_hosts(self._bound[0])
        self._door = Door(listening, _Headers(self._routes()))
        self._door.open()

    async def stop(self) -> None:
        """Stop answering; takes about a second at most. Harmless when nothing was started."""
        door, self._door = self._door, None
        if door is not None:
            await door.close()

    def _routes(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/livez", self._livez, methods=["GET"]),
                Route("/startupz", self._startupz, methods=["GET"]),
                Route("/readyz", self._readyz, methods=["GET"]),
                Route("/api/v1/pools", self._guarded(self._pools), methods=["GET"]),
                Route("/api/v1/pools/{name:path}/holders", self._guarded(self._held), methods=["GET"]),
                Route("/api/v1/queries", self._guarded(self._asked), methods=["GET"]),
                Route("/", self._guarded(self._page), methods=["GET"]),
            ],
            exception_handlers={HTTPException: _refused},
        )
        app.router.redirect_slashes = False
        return app

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = choose(request.headers.get("accept", ""))
        return Response(self._encoded(encode, content_type), headers={"content-type": content_type})

    def _encoded(self, encode: Callable[[CollectorRegistry], bytes], content_type: str) -> bytes:
        door = self._door
        if door is None:
            return encode(self._registry)
        now = asyncio.get_running_loop().time()
        made, body = self._latest.get(content_type, (-_FRESH, b""))
        if door.hurried and now - made < _FRESH:
            return body  # a flood of scrapes costs a few milliseconds each: it gets the same answer again
        door.lend_spares()  # the process metrics are read from files
        try:
            body = encode(self._registry)
        finally:
            door.keep_spares()
        self._latest[content_type] = (now, body)
        return body

    async def _livez(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _startupz(self, request: Request) -> Response:
        stats = self._snapshot()
        if stats.bound:
            return PlainTextResponse("ok\n")
        reasons = unfilled(stats) or ["not every listener is bound"]
        return PlainTextResponse("".join(f"{reason}\n" for reason in reasons), 503)

    async def _readyz(self, request: Request) -> Response:
        reasons = unready(self._snapshot())
        if not reasons:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("".join(f"{reason}\n" for reason in reasons), 503)

    async def _pools(self, request: Request) -> Response:
        return JSONResponse([pool_json(pool) for pool in self._snapshot().pools])

    async def _held(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = self._holders(name)
        if found is None:
            return PlainTextResponse(f"there is no pool {one_line(name)}\n", 404)
        return JSONResponse(asdict(found))

    async def _asked(self, request: Request) -> Response:
        return JSONResponse([asdict(pool) for pool in self._queries()])

    async def _page(self, request: Request) -> Response:
        stats = self._snapshot()
        found = [self._holders(pool.name) for pool in stats.pools]
        held = [each for each in found if each is not None]
        return HTMLResponse(render_page(stats, held, self._queries()))

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if self._hosts is not None and _host(request) not in self._hosts:
                return PlainTextResponse(
                    "This server listens on the loopback interface and answers to localhost, 127.0.0.1 "
                    "and [::1] only; the Host header named something else.\n",
                    421,
                )
            return await handler(request)

        return guarded


def pool_json(pool: PoolStats) -> dict[str, Any]:
    """Turn a pool's picture into plain JSON values; durations are in seconds."""
    acquires: dict[str, dict[str, int]] = {}
    for (getmode, outcome), count in pool.acquires.items():
        acquires.setdefault(getmode, {})[outcome] = count
    pins: dict[str, dict[str, int]] = {}
    for (reason, outcome), count in pool.pins.items():
        pins.setdefault(reason, {})[outcome] = count
    histograms = ("acquire", "wait", "hold", "open", "ping", "query")
    found = {name: _histogram_json(getattr(pool, name)) for name in histograms}
    return asdict(pool) | found | {"acquires": acquires, "pins": pins}


def _histogram_json(histogram: HistogramStats) -> dict[str, Any]:
    return {
        "buckets": [{"le": bound, "count": count} for bound, count in bounds(histogram)],
        "sum": histogram.total,
        "count": histogram.cumulative[-1],
    }


def _own_hosts(bound: str) -> frozenset[str] | None:
    """Which names a browser may call us by; None when every name is fine."""
    address = ipaddress.ip_address(bound.partition("%")[0])
    if not address.is_loopback:
        return None
    own = f"[{address}]" if address.version == 6 else str(address)
    return frozenset({"localhost", "127.0.0.1", "[::1]", own})


def _host(request: Request) -> str:
    match = _HOST.fullmatch(request.headers.get("host", "").lower())
    return match[1] if match else ""


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, HTTPException)
    headers = {"allow": "GET, HEAD"} if refusal.status_code == 405 else None
    return PlainTextResponse(f"{refusal.detail}\n", refusal.status_code, headers)


class _Headers:
    """Puts the same protecting headers on every answer, on errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(usegmt=True).encode())
                message = {**message, "headers": [*message["headers"], *_HEADERS, date]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
