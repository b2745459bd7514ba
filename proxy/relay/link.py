"""One client and the session that it holds, for one unit of work: the only room that touches both.

Warm: what the session says goes to the client in the same turn of the loop, and at the end of the unit the
session goes home in the same step. A full buffer on one side pauses the reading of the other. Whatever
state a session is in when its client lets go of it, it is released, recovered or dropped here, and never
lost.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

from proxy.codec import FORWARD, PREPARE, RECOVER, RELEASE, RESUME, ClientCodec
from proxy.errors import RemoteProtocolError
from proxy.pool.limits import GETMODES, TAGS_OFF
from proxy.pool.pool import Pool
from proxy.pool.session import Key, Session, Waiter
from proxy.reasons import CloseReason, DropReason
from proxy.relay.backend import SocketBackend
from proxy.relay.holder import Holder
from proxy.relay.outbox import LONGEST, Outbox, Teller
from proxy.relay.stopwatch import Stopwatch
from proxy.relay.watching import Watch

READY: Final = 1
WAITING: Final = 2  # in the pool's queue
PREPARING: Final = 3  # a session is held and is being given the client's settings
CLOSED: Final = 4
_PATIENCE: Final = 5.0  # seconds that a client has for its last words which does not read


class Link(Waiter, Holder, Teller):
    """The half of a client that holds a session. Abstract: ``client.Client`` is what is made."""

    def __init__(
        self,
        number: int,
        transport: Any,
        pool: Pool,
        key: Key,
        codec: ClientCodec,
        ended: Callable[[Any, CloseReason], None],
    ) -> None:
        super().__init__(key)
        self.number = number
        self.peer = ""  # where it connected from
        self.user = ""  # whom it said to be
        self.hold_warned = -1.0  # since when it held the session that the log warned of
        self.ended = ended  # told once, when the client is over
        self.transport = transport
        self._send: Any = transport.write  # bound once, as is the next
        self._is_closing: Any = transport.is_closing
        self.pool = pool
        self.codec = codec
        self.phase: int = READY
        self.backend: SocketBackend | None = None  # the held session's, while linked
        self.session: Session | None = None
        self.outbox: Outbox | None = None  # None: everything is written at once
        self.unsaid = b""  # what is written at the end of this turn
        self.late = b""  # received while waiting, not looked at yet
        self.is_full = False  # our write buffer: the held session is not read meanwhile
        self.holds_reading = 0  # reasons why we do not read, as bits
        self.cancel_wanted = False
        self.pinned = ""  # why it keeps its session, as the log was told
        self.leaving = False  # it said goodbye
        self.draining = False
        self.activity = 0  # reads in either direction: what the sweep for idle clients looks at
        self.activity_seen = -1
        self.idle_since = 0.0
        self.clock = Stopwatch()
        self.watch: Watch | None = None  # there where the pool wants to know how long queries take
        self.terms_changed = False  # the pool's, while this client was in the queue: adopt them next time
        self.adopt_terms()

    def adopt_terms(self) -> None:
        """Take over what the client wants of its pool; where it has chosen nothing, what the pool has."""
        limits, codec = self.pool.limits, self.codec
        self.wants_new, self.tag, self.affinity = codec.wants_new, codec.tag, codec.affinity
        # Where states are not kept apart, every client's settings make it no harder to please.
        tagged = codec.tag is not None and limits.tags != TAGS_OFF
        self.picky = codec.wants_new or tagged or codec.affinity != ""
        self.priority = codec.priority
        key = self.key
        self.key = self.pool.key(key.database, key.user, codec.cclass, codec.shard_key or None, codec.target)
        self.getmode = GETMODES.index(codec.getmode) if codec.getmode else limits.getmode
        self.wait_timeout = codec.wait_timeout if codec.wait_timeout >= 0 else limits.wait_timeout
        if limits.watches and self.watch is None:
            self.watch = Watch(self.number, self.pool, codec, time.monotonic)
        elif not limits.watches and self.watch is not None:
            self.watch.stop()
            self.watch = None

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """The client sent something; b"": look again at what it sent."""

    @abstractmethod
    def begin_to_prepare(self, waiting: bytes, asked: bool) -> None:
        """Give the held session the client's settings, then send it what waits."""

    @abstractmethod
    def drain(self) -> None:
        """End the client now if it has nothing under way, otherwise when it has."""

    @abstractmethod
    def close(self, reason: CloseReason) -> None:
        """Close the connection; everything has been said."""

    # -- from the session ---------------------------------------------------------------------------

    def from_backend(self, data: bytes) -> None:
        """The held session said something."""
        codec = self.codec
        self.activity += 1
        self.pool.counters.bytes_server += len(data)
        try:
            flags = codec.server(data)
        except RemoteProtocolError as error:
            self._broken_by_server(str(error))
            return
        if self.watch is not None and self.session is not None:
            self.watch.answered(self.session, self.user)
        if flags & FORWARD:
            # It may be long, and the client idle for long: the codec does not keep it.
            out, codec.out = codec.out, b""
            if self.outbox is None or len(self.pool.ledger.busy) < 2 or len(out) > LONGEST:
                self.write(out)
            elif self.unsaid:
                self.unsaid += out
            else:
                self.unsaid = out
                self.outbox.add(self)
        if flags & RELEASE:
            self.release()
        if flags & ~(FORWARD | RELEASE):
            self._after(flags)
        if self.draining:
            self.drain()
        if codec.news:
            self.tell()

    def listen_to(self, backend: SocketBackend) -> None:
        """Join a session for good: what the server said before anybody held it, in ``reply``, comes first."""
        codec = self.codec
        codec.join(backend.codec)
        self.pool.counters.bytes_server += len(codec.reply)
        self.write(codec.reply)
        backend.attach(self)
        if self.is_full:
            backend.pause_reading()
        else:
            backend.resume_reading()

    def release(self) -> None:
        """The unit of work is over: the session goes home as it is."""
        backend = self.backend
        assert backend is not None
        self.part(backend)
        backend.go_home()

    def _after(self, flags: int) -> None:
        """The rarer things that follow from what a session said."""
        if flags & RECOVER:
            self.give_back()
        elif flags & PREPARE and self.backend is not None:
            self.begin_to_prepare(b"", False)
        if flags & RESUME and self.phase == READY:
            if self.holds_reading & 4:
                self.hold_reading(4, False)
            self.data_received(b"")

    def part(self, backend: SocketBackend) -> None:
        """Undo the link; whoever calls gives the session to the pool."""
        if self.watch is not None and self.session is not None:
            self.watch.lost(self.session, self.user)
        self.codec.part()
        backend.holder = None
        self.backend = None
        self.session = None
        if self.is_full:
            backend.resume_reading()
        if self.holds_reading & 6:
            self.hold_reading(6, False)
        if self.codec.news:
            self.tell()
        counters, codec = self.pool.counters, self.codec
        counters.queries += codec.queries
        counters.transactions += codec.transactions
        codec.queries = codec.transactions = 0

    def give_back(self) -> None:
        """Let go of a session in whatever state it is."""
        backend, session, codec = self.backend, self.session, self.codec
        assert backend is not None
        assert session is not None
        if codec.is_clean() or backend.codec.last_words():
            self.release()
            return
        recovery = codec.recovery()
        backend.recovery, backend.recovery_cancels = recovery, codec.must_cancel
        self.part(backend)
        if recovery is None:
            self.pool.drop(session, DropReason.UNCERTAIN)
        else:
            self.pool.recover(session)

    def backend_lost(self, detail: str) -> None:
        """The held session died; the pool knows."""
        backend = self.backend
        assert backend is not None
        self.codec.lost_why = detail
        answer = self.codec.session_lost()
        # Of an answer that is cut off the codec knows only now.
        last = self.codec.fatal(CloseReason.SESSION_LOST, detail) if answer is None else b""
        self.part(backend)
        if answer is None:
            if self.phase != CLOSED:
                self.write(last)
                self.close(CloseReason.SESSION_LOST)
        else:
            self.write(answer)
            if self.phase == READY:
                self.data_received(b"")
            if self.draining:
                self.drain()

    def backend_ended(self) -> bool:
        """The server has said all it will say, so the session is over."""
        return False

    def is_running(self) -> bool:
        """The held session runs something that could be cancelled."""
        return self.codec.is_running()

    def _broken_by_server(self, detail: str) -> None:
        backend, session = self.backend, self.session
        assert backend is not None
        assert session is not None
        last = self.codec.fatal(CloseReason.SESSION_LOST, detail)
        self.part(backend)
        self.pool.drop(session, DropReason.PROTOCOL_ERROR, detail)
        self.write(last)
        self.close(CloseReason.SESSION_LOST)

    # -- flow -----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client is slow to take what its session says: stop reading that."""
        self.is_full = True
        if self.backend is not None and self.phase != PREPARING:
            self.backend.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_full = False
        if self.backend is not None:
            self.backend.resume_reading()
        if self.codec.news:
            self.tell()

    def pause_reading(self) -> None:
        """The held session is slow to take what we send."""
        self.hold_reading(2, True)

    def resume_reading(self) -> None:
        """It has caught up."""
        self.hold_reading(2, False)

    def hold_reading(self, reason: int, hold: bool) -> None:
        """Stop reading the client for a reason (a bit), or no longer for that one."""
        before = self.holds_reading
        self.holds_reading = before | reason if hold else before & ~reason
        if self.phase == CLOSED or self.transport.is_closing():
            return
        if before == 0 and self.holds_reading:
            self.transport.pause_reading()
        elif before and not self.holds_reading:
            self.transport.resume_reading()

    def tell(self) -> None:
        """Tell the client what it has not asked for, when that may be: there is news.

        A client that is slow to read is told when it has caught up. What piles up meanwhile is the codec's
        to bound.
        """
        codec = self.codec
        if self.phase != READY and self.phase != WAITING:
            return
        if not self.is_full:
            self.write(codec.take_news())
        if codec.doom is not None and (self.backend is None or codec.is_clean()):
            slow = self.is_full
            self.end(codec.doom, codec.doom_detail)
            if slow:
                # It does not read its last words either.
                asyncio.get_running_loop().call_later(_PATIENCE, self.transport.abort)

    @abstractmethod
    def end(self, reason: CloseReason, detail: str = "") -> None:
        """Say why, and close the connection."""

    def tell_now(self) -> None:
        """Write what the session has said in this turn."""
        self.write(b"")

    def write(self, data: bytes) -> None:
        """Write to the client, if it is still there."""
        if self.unsaid:
            data, self.unsaid = self.unsaid + data, b""
        if data and not self._is_closing():
            self._send(data)
