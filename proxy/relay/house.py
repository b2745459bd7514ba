"""Who is in: the connections and clients of one listener, and what all listeners share.

A registry. It counts, finds a client by its cancel key, and says why nobody may come in now; it moves
no bytes.
"""

import secrets
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import structlog
from mypy_extensions import mypyc_attr

from proxy.pool.alarm import Alarm
from proxy.pool.limits import OFF
from proxy.reasons import CloseReason, RefusalReason, TlsFailure
from proxy.relay.client import Client
from proxy.relay.link import READY, WAITING
from proxy.relay.outbox import Outbox
from proxy.relay.sockets import KeepAlive
from proxy.relay.stopwatch import Timeouts

_log = structlog.get_logger("penstock")
# Seconds between two looks at those who log in, at least: who lets a thousand connections hang shall not
# have us look through all of them for each.
_BETWEEN: Final = 0.05


class Commons:
    """What all listeners of the daemon share.

    ``descriptor_limit`` is how many files the process may have open; of them ``reserve`` are kept, so that
    probes and metrics still answer when clients have taken the rest.
    """

    def __init__(self, descriptor_limit: int, reserve: int) -> None:
        self.descriptor_limit = descriptor_limit
        self.reserve = reserve
        self.draining = False
        self.by_cancel_key: dict[bytes, Client] = {}
        self.numbers = 0
        self.outbox = Outbox()
        self.timeouts: dict[str, Timeouts] = {}  # of users for whom their pool's do not hold


@mypyc_attr(allow_interpreted_subclasses=True)
class Leaver(ABC):
    """A connection that has not logged in yet, as far as the house knows it."""

    @abstractmethod
    def end(self) -> None:
        """The daemon stops."""

    def too_late(self) -> None:
        """The deadline is over with which it entered."""
        return


class House:
    """One listener's connections."""

    def __init__(
        self,
        name: str,
        commons: Commons,
        max_clients: int,
        is_local: bool,
        keepalive: KeepAlive,
        tls: ssl.SSLContext | None,
        announced: bool = False,
    ) -> None:
        self.name = name
        self.commons = commons
        self.max_clients = max_clients
        self.is_local = is_local
        self.keepalive = keepalive
        self.tls = tls
        self.announced = announced  # connections begin with a header that says whose they are
        self.entering: dict[Leaver, float] = {}  # with their deadlines
        self.clients: dict[Client, bytes] = {}  # with their cancel keys
        self.refusals: dict[str, int] = {str(reason): 0 for reason in RefusalReason}
        self.tls_failures: dict[str, int] = {str(kind): 0 for kind in TlsFailure}
        # One of each for all connections.
        self.ended: Callable[[Client, CloseReason], None] = self.client_ended
        self._alarm = Alarm(time.monotonic, self._look_for_late)

    def next_number(self) -> int:
        """The id of a new connection, never 0."""
        self.commons.numbers += 1
        return self.commons.numbers

    def is_out_of_descriptors(self, descriptor: int) -> bool:
        """Only the reserve is left: the lowest free descriptor was this one."""
        return descriptor >= self.commons.descriptor_limit - self.commons.reserve

    def refusal(self) -> tuple[str, str, str, RefusalReason] | None:
        """Why nobody may come in now: SQLSTATE, text, hint and reason."""
        if self.commons.draining:
            return "57P01", "Penstock is shutting down", "", RefusalReason.DRAIN
        if len(self.clients) >= self.max_clients:
            text = f"sorry, too many clients already: {len(self.clients)} of {self.max_clients}"
            return "53300", text, f"Raise listeners.{self.name}.max_clients.", RefusalReason.MAX_CLIENTS
        return None

    def refused(self, reason: RefusalReason) -> None:
        """Count a refusal."""
        self.refusals[reason] += 1

    def tls_failed(self, kind: TlsFailure) -> None:
        """Count a TLS handshake that came to nothing."""
        self.tls_failures[kind] += 1

    def enter(self, entrance: Leaver, deadline: float = OFF) -> None:
        """A connection begins its login; ``deadline`` (monotonic seconds) OFF: it sees to that itself."""
        self.entering[entrance] = deadline
        if deadline < self._alarm.at:
            self._alarm.set(deadline, time.monotonic())

    def take_deadline(self, entrance: Leaver) -> float:
        """Whoever asks sees to the deadline of this login from now on."""
        deadline = self.entering.get(entrance, OFF)
        self.entering[entrance] = OFF
        return deadline

    def leave(self, entrance: Leaver) -> None:
        """Its login has ended, either way."""
        self.entering.pop(entrance, None)

    def _look_for_late(self, now: float) -> float:
        """Tell those whose time is over; returns when to look again."""
        nearest = OFF
        for entrance, deadline in list(self.entering.items()):
            if deadline <= now:
                entrance.too_late()
            else:
                nearest = min(nearest, deadline)
        return max(nearest, now + _BETWEEN)

    def new_cancel_key(self, length: int = 8) -> bytes:
        """So many random bytes that no client has; the first bit is 0, for there are drivers that mind.

        A key is one opaque string to everybody but whoever made it, and is looked up as a whole, so that no
        part of it can be guessed by itself. The first four bytes are what clients take for a process id.
        Where several daemons are to share an address one day, 15 of their bits can say whose client a key
        belongs to: 48 random ones are left in the shortest key then, 272 in the long ones.
        """
        while True:
            key = secrets.token_bytes(length)
            key = bytes((key[0] & 0x7F,)) + key[1:]
            if key not in self.commons.by_cancel_key:
                return key

    def admit(self, client: Client, cancel_key: bytes, peer: str, user: str, secured: bool) -> None:
        """A connection has become a client."""
        client.peer, client.user = peer, user
        client.outbox = self.commons.outbox
        self.clients[client] = cancel_key
        self.commons.by_cancel_key[cancel_key] = client
        _log.info(
            "client_connected",
            client=client.number,
            listener=self.name,
            pool=client.pool.name,
            user=user,
            database=client.key.database,
            peer=peer,
            tls=secured,
        )
        if self.commons.draining:
            client.drain()

    def client_ended(self, client: Client, reason: CloseReason) -> None:
        """A client is over."""
        key = self.clients.pop(client, b"")
        self.commons.by_cancel_key.pop(key, None)
        if reason is CloseReason.REFUSED:
            self.refused(RefusalReason.POOL)
        _log.info("client_closed", client=client.number, listener=self.name, reason=str(reason))

    async def cancel(self, key: bytes) -> None:
        """Cancel what the client with this key runs; returns when its server knows."""
        client = self.commons.by_cancel_key.get(key)
        if client is None:
            _log.warning("cancel_refused", listener=self.name, detail="no client has this cancel key")
        else:
            await client.cancel()

    def warn_of_long_holds(self, now: float) -> None:
        """Tell the log, once for each hold, who holds a session for longer than ``hold_warning``."""
        for client in self.clients:
            session = client.session
            if (
                session is None
                or session.key.private is not None
                or now - session.busy_since < client.pool.limits.hold_warning
            ):
                continue
            if client.hold_warned != session.busy_since:
                client.hold_warned = session.busy_since
                _log.warning(
                    "session_held_long",
                    listener=self.name,
                    pool=client.pool.name,
                    session=session.number,
                    client=client.number,
                    user=client.user,
                    application_name=client.codec.label(),
                    held=round(now - session.busy_since, 3),
                )

    def states(self) -> dict[str, int]:
        """The clients by what they do."""
        counts = {"login": len(self.entering), "idle": 0, "waiting": 0, "active": 0}
        for client in self.clients:
            if client.phase == WAITING:
                counts["waiting"] += 1
            elif client.phase == READY and client.backend is None:
                counts["idle"] += 1
            else:
                counts["active"] += 1
        return counts
