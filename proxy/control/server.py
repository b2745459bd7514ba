"""The control socket: HTTP over a Unix socket, POST /v1/<command> with a JSON object, JSON back.

Its file permissions (0600) are all that says who may command, so nothing here may ever listen on TCP.
A visitor has a minute and 64 KiB; what it says wrongly is answered and changes nothing.
"""

import json
import os
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy.control.commands import CommandRefused, Commands, obey
from proxy.observe.door import Door
from proxy.unix_sockets import listen, remove_own

PERMISSIONS: Final = 0o600
STAY: Final = 60.0  # seconds: closing a pool may wait for its server
_LONGEST: Final = 64 * 1024  # bytes of one command
_BACKLOG: Final = 16
_ONE_COMMAND: Final = {"connection": "close"}


class ControlServer:
    """Obeys ``commands`` that come over the Unix socket at ``path``."""

    def __init__(self, path: str, commands: Commands) -> None:
        self._path = path
        self._commands = commands
        self._door: Door | None = None
        self._inode = 0

    async def start(self) -> None:
        """Bind and begin to listen. Raises OSError with a sentence when the path cannot be had."""
        try:
            listening = listen(self._path, PERMISSIONS, _BACKLOG)
        except OSError as error:
            raise OSError(f"control.address: cannot listen on unix:{self._path}: {error}") from error
        self._inode = os.stat(self._path).st_ino
        app = Starlette(
            routes=[Route("/v1/{command}", self._obey, methods=["POST"])],
            exception_handlers={HTTPException: _refused},
        )
        app.router.redirect_slashes = False
        self._door = Door(listening, app, STAY)
        self._door.open()

    async def stop(self) -> None:
        """Stop listening and remove the socket; takes about a second at most. Harmless when not started."""
        door, self._door = self._door, None
        if door is not None:
            remove_own(self._path, self._inode)
            await door.close()

    async def _obey(self, request: Request) -> Response:
        try:
            said = await _read(request)
            # A visitor who leaves stops no command halfway: nothing cancels this.
            answer = await obey(self._commands, request.path_params["command"], said)
        except CommandRefused as refusal:
            return JSONResponse({"error": str(refusal)}, 409, _ONE_COMMAND)
        return JSONResponse({"answer": answer}, headers=_ONE_COMMAND)


async def _read(request: Request) -> Any:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST:
            raise CommandRefused(f"a command has at most {_LONGEST} bytes")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise CommandRefused("a command is a JSON object") from None


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, HTTPException)
    return JSONResponse({"error": "only POST /v1/<command> is answered here"}, refusal.status_code)
