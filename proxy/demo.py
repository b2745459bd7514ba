"""``penstock demo``: an embedded PostgreSQL behind the proxy, with the DSN to paste.

Everything it makes lies in one temporary folder and ends with it: Ctrl-C or TERM leaves no process
and no file behind. It listens on loopback only and reads no configuration but its own arguments.
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from proxy.embedded import EmbeddedPostgres, EmbeddedUnavailable

_HOST = "127.0.0.1"
_ASKED_AT_MOST = 600


def run_demo(port: int = 6432, http_port: int = 9127, pool_max: int = 8) -> int:
    """Run the demo until it is told to stop, and return the exit code; port 0 means any that is free."""
    port, http_port = port or _any_port(), http_port or _any_port()
    for option, number in (("--port", port), ("--http-port", http_port)):
        if not _is_free(number):
            print(
                f"penstock demo: port {number} of {_HOST} is taken; choose another by {option}",
                file=sys.stderr,
            )
            return 1
    # Until the event loop listens for TERM itself, it means the same as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print("Starting an embedded PostgreSQL ...", flush=True)
        with EmbeddedPostgres() as server:
            return _serve(server, port, http_port, pool_max)
    except EmbeddedUnavailable as reason:
        print(f"penstock demo: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        number: int = probe.getsockname()[1]
        return number


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _serve(server: EmbeddedPostgres, port: int, http_port: int, pool_max: int) -> int:
    # Imported here: whoever only asks for --help needs none of it.
    import uvloop

    from proxy.daemon import Daemon
    from proxy.log import configure
    from proxy.settings import load
    from proxy.tasks import spawn

    # The empty file stands for "no file": a configuration in /etc is not about the demo.
    settings = load(Path(os.devnull), overrides=_overrides(server, port, http_port, pool_max), environ={})

    configure(settings.log.level, settings.log.format)

    async def serve() -> int:
        spawn(_announce(server, port, http_port, pool_max), "demo")
        return await Daemon(settings).run()

    return uvloop.run(serve())


def _overrides(server: EmbeddedPostgres, port: int, http_port: int, pool_max: int) -> dict[str, Any]:
    path = server.directory / f".s.PGSQL.{port}"
    return {
        "listeners": {
            "main": {"protocol": "postgres", "address": f"{_HOST}:{port}"},
            "socket": {"protocol": "postgres", "address": f"unix:{path}"},
        },
        "pools": {server.database: {"backend": server.dsn(), "max": pool_max}},
        "http": {"address": f"{_HOST}:{http_port}"},
        "control": {"address": f"unix:{_control(server)}"},
        "log": {"level": "warning"},
    }


def _control(server: EmbeddedPostgres) -> Path:
    return Path(server.directory) / "control.sock"


async def _announce(server: EmbeddedPostgres, port: int, http_port: int, pool_max: int) -> None:
    # What is printed must work at once, so the daemon is asked first.
    for _ in range(_ASKED_AT_MOST):
        if await _has_started(http_port):
            break
        await asyncio.sleep(0.05)
    else:
        return  # why not is in the log
    login = f"{server.user}:{quote(server.password)}"
    where = urlencode({"host": str(server.directory), "port": str(port)})
    dsn = f"postgresql://{login}@{_HOST}:{port}/{server.database}"
    lines = (
        "",
        f"Penstock lets any number of clients through to at most {pool_max} sessions of PostgreSQL.",
        "",
        f"  DSN          {dsn}",
        f"  psql         psql '{dsn}'",
        f"  unix socket  postgresql://{login}@/{server.database}?{where}",
        f"  status page  http://{_HOST}:{http_port}/",
        f"  metrics      http://{_HOST}:{http_port}/metrics",
        f"  control      penstock ctl --socket {_control(server)} pools",
        f"  unpooled     {server.dsn()}",
        "",
        "Ctrl-C stops everything and removes it.",
    )
    print("\n".join(lines), flush=True)


async def _has_started(http_port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(_HOST, http_port)
        writer.write(b"GET /startupz HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
        answer = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in answer
