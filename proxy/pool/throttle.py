"""A throttle lets so many through at once; how many may change while they are inside."""

import asyncio
from collections import deque
from collections.abc import Callable


class Throttle:
    """``async with throttle``: waits while ``width()`` tasks are inside."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()  # leaves when woken, or given up

    async def __aenter__(self) -> None:
        while self._inside >= self._width():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                elif not turn.cancelled():
                    self.wake()  # it was our turn, and it is somebody else's now
                raise
        self._inside += 1

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        self.wake()

    def wake(self) -> None:
        """Let those look again who may go in now."""
        room = self._width() - self._inside
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1
