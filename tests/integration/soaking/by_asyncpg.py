"""What acts ask for, done by asyncpg with its statement cache."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from integration.soaking.asked import (
    Anew,
    Ask,
    Batch,
    Cancel,
    CopyIn,
    CopyOut,
    Cut,
    Do,
    Forget,
    Gone,
    Hear,
    Pause,
    Recover,
    Refused,
    Request,
    Slowly,
    Wrong,
)
from integration.soaking.client import Client

PATIENCE = 60.0
LOSSES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class ByAsyncpg:
    """One client's connection. asyncpg has no pipeline, but sends what COPY needs in one."""

    def __init__(self, me: Client) -> None:
        self._me = me
        self._client: Any = None

    async def serve(self, request: Request) -> Any:
        """The answer to a request; raises Refused or Gone."""
        try:
            return await getattr(self, f"_{type(request).__name__.lower()}")(request)
        except LOSSES as cause:
            await asyncio.sleep(0)
            is_lost = self._client is None or self._client.is_closed()
            if is_lost:
                raise Gone(repr(cause)) from cause
            if not isinstance(cause, asyncpg.PostgresError):
                raise Wrong(repr(cause)) from cause
            raise Refused(cause.sqlstate or "", str(cause)) from cause

    def leave(self) -> None:
        """For good."""
        if self._client is not None:
            self._client.terminate()

    async def _anew(self, request: Anew) -> None:
        if self._client is not None:
            if request.is_polite:
                await self._client.close(timeout=PATIENCE)
            else:
                self._client.terminate()
        self._client = None
        self._client = await asyncpg.connect(
            self._me.plan.dsn, timeout=PATIENCE, server_settings={"application_name": self._me.name}
        )

    async def _recover(self, request: Recover) -> None:
        # asyncpg knows whether there is a transaction, but not of one that it has not begun itself.
        await self._client.execute("ROLLBACK")

    async def _forget(self, request: Forget) -> None:
        await self._client.reload_schema_state()

    async def _pause(self, request: Pause) -> None:
        await asyncio.sleep(request.seconds)

    async def _do(self, request: Do) -> None:
        await self._client.execute(request.text)

    async def _ask(self, request: Ask) -> Any:
        rows = await self._client.fetch(request.text, *request.values)
        return [dict(row) if request.named else tuple(row) for row in rows]

    async def _batch(self, request: Batch) -> Any:
        return [await self._ask(ask) for ask in request.asks]

    async def _slowly(self, request: Slowly) -> Any:
        found = []
        try:
            async with self._client.transaction():
                async for row in self._client.cursor(request.text, prefetch=500):
                    found.append(tuple(row))
                    if len(found) % 500 == 1:
                        await asyncio.sleep(0.01)
        finally:
            # Where BEGIN itself has failed asyncpg goes on to believe in it (docs/clients.md). Its reset()
            # would do this, and take the client's settings, too.
            self._client._top_xact = None
        return found

    async def _copyin(self, request: CopyIn) -> None:
        schema, _, table = request.target.partition(".")
        try:
            await self._client.copy_to_table(table, schema_name=schema, source=_lines(request))
        except Cut:
            return

    async def _copyout(self, request: CopyOut) -> str:
        pieces: list[bytes] = []

        async def take(piece: bytes) -> None:
            pieces.append(bytes(piece))

        # Never cut: asyncpg hangs behind that, on a connection of its own, too.
        await self._client.copy_from_query(request.text, output=take)
        return b"".join(pieces).decode()

    async def _cancel(self, request: Cancel) -> bool:
        try:
            await self._client.fetch(request.text, timeout=request.after + 0.001)
        except TimeoutError:
            return True
        except asyncpg.QueryCanceledError:
            return True
        return False

    async def _hear(self, request: Hear) -> list[str]:
        heard: asyncio.Queue[str] = asyncio.Queue()

        def note(_client: Any, _pid: int, _channel: str, payload: str) -> None:
            heard.put_nowait(payload)

        def end(_client: Any) -> None:
            heard.put_nowait("")

        self._client.add_termination_listener(end)
        try:
            await self._client.add_listener(request.channel, note)
            for payload in request.payloads:
                await self._client.execute("SELECT pg_notify($1, $2)", request.channel, payload)
            found: list[str] = []
            async with asyncio.timeout(PATIENCE):
                while len(found) < len(request.payloads):
                    found.append(await heard.get())
                    if not found[-1]:
                        raise Gone("while it listened")
            await self._client.remove_listener(request.channel, note)
        except TimeoutError:
            return found
        finally:
            self._client.remove_termination_listener(end)
        return found


async def _lines(request: CopyIn) -> AsyncIterator[bytes]:
    for number, row in enumerate(request.rows):
        if request.is_cut and number == len(request.rows) // 2:
            raise Cut
        yield ("\t".join(map(str, row)) + "\n").encode()
        if number % 100 == 0:
            await asyncio.sleep(0)
