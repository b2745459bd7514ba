"""Waiting for a session in code that can await: a future gets it, or the error that says why not.

Whoever is cancelled, at whatever await, leaves the queue or gives back what was granted.
"""

import asyncio
from typing import TYPE_CHECKING

from proxy.errors import BackendError, ProxyError
from proxy.pool.session import BUSY, Key, Session, Waiter
from proxy.reasons import DropReason

if TYPE_CHECKING:
    from proxy.pool.pool import Pool


class Ticket(Waiter):
    """One request. ``session`` is set once it has been granted one."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.future: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self.session: Session | None = None

    def granted(self, session: Session) -> bool:
        """Take the session over, unless whoever waited was cancelled."""
        if self.future.done():
            return False
        self.session = session
        self.future.set_result(session)
        return True

    def refused(self, error: ProxyError) -> None:
        """Raise the error where the future is awaited."""
        if not self.future.done():
            self.future.set_exception(error)


async def acquire(
    pool: "Pool",
    key: Key,
    getmode: int | None,
    wait_timeout: float | None,
    wants_new: bool,
    tag: object | None,
    affinity: str,
    priority: int,
) -> Session:
    """``Pool.acquire``."""
    limits = pool.limits
    ticket = Ticket(key)
    ticket.getmode = limits.getmode if getmode is None else getmode
    ticket.wait_timeout = limits.wait_timeout if wait_timeout is None else wait_timeout
    ticket.wants_new, ticket.tag, ticket.affinity, ticket.priority = wants_new, tag, affinity, priority
    ticket.picky = wants_new or tag is not None or affinity != ""
    session = pool.try_acquire(ticket)
    if session is not None:
        return session
    try:
        pool.enqueue(ticket)
        session = await ticket.future
    except BaseException:
        if ticket.session is None:
            pool.withdraw(ticket)
        elif ticket.session.state == BUSY:
            if key.private is None:
                pool.release(ticket.session)
            else:
                pool.drop(ticket.session, DropReason.REPLICATION)
        raise
    if session.state != BUSY:
        # Lost between the hand-over and this step.
        raise BackendError("the server ended the session before it could be used")
    return session
