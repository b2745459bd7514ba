"""The only place that makes tasks: each is kept alive by a reference, and its crash is logged.

What is done without a task, in the step in which something comes, logs its crash in the same words.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger("penstock")
_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run ``work`` in the background; an exception that leaves it is logged as ``task_crashed``."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    crash = task.exception()
    if crash is not None:
        crashed(task.get_name(), crash)


def crashed(name: str, crash: BaseException) -> None:
    """Log what nobody was there to catch."""
    _log.error("task_crashed", task=name, exc_info=crash)
