"""What acts ask for, done by psycopg 3: with tasks and with threads, prepared from the second time on."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row

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
OPTIONS: dict[str, Any] = {"autocommit": True, "prepare_threshold": 1, "connect_timeout": int(PATIENCE)}


def _words(ask: Ask) -> tuple[str, tuple[Any, ...]]:
    """psycopg's way to write it: the values in the order in which they are named."""
    order = [int(number) - 1 for number in re.findall(r"\$(\d)", ask.text)]
    return re.sub(r"\$\d", "%s", ask.text), tuple(ask.values[number] for number in order)


def _rows(ask: Ask) -> Any:
    return dict_row if ask.named else tuple_row


@contextmanager
def _translated(client: Any) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as cause:
        # A pipeline that has lost its session may not be left while more answers are on their way.
        is_behind = not cause.sqlstate and isinstance(cause.__context__, psycopg.OperationalError)
        if client is None or client.closed or client.broken or is_behind:
            raise Gone(repr(cause)) from cause
        if not cause.sqlstate:
            raise Wrong(repr(cause)) from cause
        raise Refused(cause.sqlstate, str(cause)) from cause


def _cut(request: CopyIn, number: int) -> bool:
    return request.is_cut and number == len(request.rows) // 2


class ByPsycopgTasks:
    """One client's connection, in a task."""

    def __init__(self, me: Client) -> None:
        self._me = me
        self._client: Any = None

    async def serve(self, request: Request) -> Any:
        """The answer to a request; raises Refused or Gone."""
        with _translated(self._client):
            return await getattr(self, f"_{type(request).__name__.lower()}")(request)

    def leave(self) -> None:
        """For good."""
        if self._client is not None:
            self._client.pgconn.finish()

    async def _anew(self, request: Anew) -> None:
        self.leave()
        self._client = None
        self._client = await psycopg.AsyncConnection.connect(
            self._me.plan.dsn, application_name=self._me.name, **OPTIONS
        )

    async def _recover(self, request: Recover) -> None:
        if self._client.info.transaction_status != TransactionStatus.IDLE:
            await self._client.execute("ROLLBACK")

    async def _forget(self, request: Forget) -> None:
        await self._client.execute("DEALLOCATE ALL" + " " * self._me.next_turn())

    async def _pause(self, request: Pause) -> None:
        await asyncio.sleep(request.seconds)

    async def _do(self, request: Do) -> None:
        await self._client.execute(request.text, prepare=False)

    async def _ask(self, request: Ask) -> Any:
        async with self._client.cursor(row_factory=_rows(request)) as cursor:
            await cursor.execute(*_words(request))
            return await cursor.fetchall() if cursor.description else []

    async def _batch(self, request: Batch) -> Any:
        async with self._client.pipeline():
            cursors = [await self._client.execute(*_words(ask)) for ask in request.asks]
            return [await cursor.fetchall() for cursor in cursors]

    async def _slowly(self, request: Slowly) -> Any:
        found = []
        async with self._client.cursor() as cursor:
            async for row in cursor.stream(request.text):
                found.append(row)
                if len(found) % 500 == 1:
                    await asyncio.sleep(0.01)
        # libpq would have the first query of a pipeline come row by row, too.
        await self._client.execute("SELECT")
        return found

    async def _copyin(self, request: CopyIn) -> None:
        try:
            async with (
                self._client.cursor() as cursor,
                cursor.copy(f"COPY {request.target} FROM STDIN") as copy,
            ):
                for number, row in enumerate(request.rows):
                    if _cut(request, number):
                        raise Cut
                    await copy.write_row(row)
        except Cut:
            return

    async def _copyout(self, request: CopyOut) -> str:
        pieces: list[bytes] = []
        try:
            async with (
                self._client.cursor() as cursor,
                cursor.copy(f"COPY ({request.text}) TO STDOUT") as copy,
            ):
                async for piece in copy:
                    pieces.append(bytes(piece))
                    if request.is_cut and len(pieces) == 3:
                        raise Cut
        except Cut:
            pass
        return b"".join(pieces).decode()

    async def _cancel(self, request: Cancel) -> bool:
        async def cancel() -> None:
            await asyncio.sleep(request.after)
            await self._client.cancel_safe(timeout=PATIENCE)

        cancelling = asyncio.create_task(cancel())
        try:
            await self._client.execute(request.text, prepare=False)
        except psycopg.errors.QueryCanceled:
            return True
        finally:
            try:
                await cancelling
            except psycopg.Error:
                pass  # the connection that was to be cancelled is gone
        return False

    async def _hear(self, request: Hear) -> list[str]:
        await self._client.execute(f"LISTEN {request.channel}")
        for payload in request.payloads:
            await self._client.execute("SELECT pg_notify(%s, %s)", (request.channel, payload))
        notes = self._client.notifies(timeout=PATIENCE, stop_after=len(request.payloads))
        found = [note.payload async for note in notes]
        await self._client.execute(f"UNLISTEN {request.channel}")
        return found


class ByPsycopgThreads:
    """One client's connection, in a thread."""

    def __init__(self, me: Client) -> None:
        self._me = me
        self._client: Any = None

    def serve(self, request: Request) -> Any:
        """The answer to a request; raises Refused or Gone."""
        with _translated(self._client):
            return getattr(self, f"_{type(request).__name__.lower()}")(request)

    def leave(self) -> None:
        """For good."""
        if self._client is not None:
            self._client.close()

    def _anew(self, request: Anew) -> None:
        self.leave()
        self._client = None
        self._client = psycopg.connect(self._me.plan.dsn, application_name=self._me.name, **OPTIONS)

    def _recover(self, request: Recover) -> None:
        if self._client.info.transaction_status != TransactionStatus.IDLE:
            self._client.execute("ROLLBACK")

    def _forget(self, request: Forget) -> None:
        self._client.execute("DEALLOCATE ALL" + " " * self._me.next_turn())

    def _pause(self, request: Pause) -> None:
        time.sleep(request.seconds)

    def _do(self, request: Do) -> None:
        self._client.execute(request.text, prepare=False)

    def _ask(self, request: Ask) -> Any:
        with self._client.cursor(row_factory=_rows(request)) as cursor:
            cursor.execute(*_words(request))
            return cursor.fetchall() if cursor.description else []

    def _batch(self, request: Batch) -> Any:
        with self._client.pipeline():
            cursors = [self._client.execute(*_words(ask)) for ask in request.asks]
            return [cursor.fetchall() for cursor in cursors]

    def _slowly(self, request: Slowly) -> Any:
        with self._client.transaction(), self._client.cursor("slow") as cursor:
            cursor.itersize = 300
            cursor.execute(request.text)
            return list(cursor)

    def _copyin(self, request: CopyIn) -> None:
        try:
            with self._client.cursor() as cursor, cursor.copy(f"COPY {request.target} FROM STDIN") as copy:
                for number, row in enumerate(request.rows):
                    if _cut(request, number):
                        raise Cut
                    copy.write_row(row)
        except Cut:
            return

    def _copyout(self, request: CopyOut) -> str:
        pieces: list[bytes] = []
        try:
            with self._client.cursor() as cursor, cursor.copy(f"COPY ({request.text}) TO STDOUT") as copy:
                for piece in copy:
                    pieces.append(bytes(piece))
                    if request.is_cut and len(pieces) == 3:
                        raise Cut
        except Cut:
            pass
        return b"".join(pieces).decode()

    def _cancel(self, request: Cancel) -> bool:
        def cancel() -> None:
            try:
                self._client.cancel_safe(timeout=PATIENCE)
            except psycopg.Error:
                pass  # the connection that was to be cancelled is gone

        cancelling = threading.Timer(request.after, cancel)
        cancelling.start()
        try:
            self._client.execute(request.text, prepare=False)
        except psycopg.errors.QueryCanceled:
            return True
        finally:
            cancelling.join()
        return False

    def _hear(self, request: Hear) -> list[str]:
        self._client.execute(f"LISTEN {request.channel}")
        for payload in request.payloads:
            self._client.execute("SELECT pg_notify(%s, %s)", (request.channel, payload))
        notes = self._client.notifies(timeout=PATIENCE, stop_after=len(request.payloads))
        found = [note.payload for note in notes]
        self._client.execute(f"UNLISTEN {request.channel}")
        return found
