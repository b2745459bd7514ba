"""The socket behind one session: what it says goes to the client that holds the session.

Warm: ``data_received`` looks at nothing itself, asks the holder's codec, and writes. Cold: logins, pings,
resets and recoveries are conversations, driven by a talk. uvloop calls the methods of the protocol by
their names; the class derives from nothing of asyncio, so that mypyc can make it native.
"""

import asyncio
import select
from typing import Any

from proxy.codec import SessionCodec
from proxy.errors import BackendError, PingFailed, ProxyError
from proxy.pool.pool import Pool
from proxy.pool.session import BUSY, CARE, IDLE, OPENING, Backend, Session
from proxy.reasons import DropReason
from proxy.relay.endpoint import Endpoint, Errand
from proxy.relay.holder import Holder
from proxy.relay.sockets import cut, place_of, tune
from proxy.relay.talk import Talk, Talker
from proxy.relay.tls_start import told
from proxy.steps import Conversation, StartTls
from proxy.tasks import spawn

_CANCEL_AGAIN = 1.0  # seconds between two cancel requests for what a vanished client left running


class SocketBackend(Backend, Talker):
    """One connection to the server, before, while and after it is a session."""

    def __init__(self, pool: Pool, session: Session, codec: SessionCodec, endpoint: Endpoint) -> None:
        self.pool = pool
        self.session = session
        self.codec = codec
        self.endpoint = endpoint
        self.holder: Holder | None = None  # who gets what the session says
        self.recovery: Conversation[None] | None = None  # what the last holder left behind, and how to end it
        self.recovery_cancels = False
        self.cancels: set[asyncio.Task[None]] = set()  # cancel requests that may still arrive
        self._transport: Any = None
        self._send: Any = None  # the transport's write, bound once
        self._talk: Talk | None = None
        self._early = b""  # said between two who listen: it belongs to the next of them
        self._poll: Any = None  # tells what the socket has, without reading it
        self._lost = False
        self._lost_why = "the server closed the connection"
        self._heard_end = False  # the server said all, and we may still speak
        self._was_cut = False  # the connection broke: it did not end
        self._place = ""  # the address that it is connected to, unless that is a Unix socket
        self._taken = ""  # why the pool took the session away from whoever held it
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        codec.watch_role(lambda role: pool.failover.told(session, role))

    # -- called by the event loop ---------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The connection stands, or its TLS does."""
        self._transport, self._send = transport, transport.write
        sock = transport.get_extra_info("socket")
        tune(sock, self.endpoint.keepalive)
        self._place = place_of(transport)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def data_received(self, data: bytes) -> None:
        """The server said something."""
        holder = self.holder
        if holder is not None:
            holder.from_backend(data)
        elif self._talk is not None:
            if self._talk.future.done():
                self._early += data
            else:
                self._talk.feed(data)
        elif self.session.state in (IDLE, BUSY):
            why = self.codec.unlinked(data)
            if why:
                self._lost_why = why
                self.pool.lost(self.session, DropReason.SERVER_FATAL, why)
            elif self.codec.is_full():
                self._transport.pause_reading()
        elif self.session.state in (OPENING, CARE):
            self._early += data  # perhaps the rest of an answer: the conversation to come has to know

    def eof_received(self) -> bool:
        """The server ends the connection; ours follows, unless whoever holds the session has more to say."""
        if self.holder is not None and self.holder.backend_ended():
            self._heard_end = True
            return True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._lost = True
        self._was_cut = error is not None
        why = self._lost_why = self._lost_why if error is None else f"{self._lost_why}: {error}"
        if not self._ended.done():
            self._ended.set_result(None)
        if self._talk is not None:
            self._talk.fail(BackendError(why))  # whoever waits for its end finds out
            return
        holder, self.holder = self.holder, None
        try:
            if holder is not None:
                holder.backend_lost(why)
        finally:
            self.pool.lost(self.session, DropReason.SERVER_CLOSED, why)

    def pause_writing(self) -> None:
        """The server is slow to take what its client sends."""
        if self.holder is not None:
            self.holder.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self.holder is not None:
            self.holder.resume_reading()

    # -- for the holder -------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes to the server."""
        self._send(data)

    def pause_reading(self) -> None:
        """The holder takes no more bytes for now."""
        if not self._lost:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """It takes them again."""
        if not self._lost:
            self._transport.resume_reading()

    def can_half_close(self) -> bool:
        """One direction can be ended alone: TLS cannot."""
        return bool(self._transport.can_write_eof())

    def write_eof(self) -> None:
        """The holder has said all it will say."""
        if not self._lost and not self._transport.is_closing():
            self._transport.write_eof()

    def cut(self) -> None:
        """End the connection by RST, as its holder's ended."""
        if not self._lost:
            cut(self._transport)

    def was_cut(self) -> bool:
        """The session did not end: it broke, or was taken away."""
        return self._was_cut or bool(self._taken)

    def go_home(self) -> None:
        """Whoever held the session has let go of it, as it should be: it is the pool's again."""
        pool, session, last_words = self.pool, self.session, self.codec.last_words()
        if pool.limits.tags:
            session.tag = self.codec.tag()
        if last_words:
            pool.drop(session, DropReason.SERVER_FATAL, f"the server said: {last_words}")
        elif pool.resets:
            pool.reset(session)
        elif self.cancels:
            pool.recover(session)  # one that is still on its way must not meet the next client's query
        else:
            pool.release(session)

    def cancel(self) -> "asyncio.Task[None]":
        """Ask the server, over a connection of its own, to cancel what the session runs now."""
        errand = Errand(self.endpoint, self.codec.cancel(), self._place)
        task = spawn(errand.cancel(self.session.number), f"cancel of session {self.session.number}")
        self.cancels.add(task)
        task.add_done_callback(self.cancels.discard)
        return task

    # -- conversations --------------------------------------------------------------------------

    def talk(self, conversation: "Conversation[Any]") -> Talk:
        """Start a conversation, in this step; ``finish`` has its result. Nobody may hold the session."""
        talk = self._talk = Talk(conversation, self)
        if self._lost or self._taken:
            talk.fail(BackendError(self._taken or self._lost_why))
            return talk
        talk.begin()
        if self._early and not talk.future.done():
            early, self._early = self._early, b""
            talk.feed(early)
        return talk

    async def finish(self, talk: Talk) -> Any:
        """Wait for the end of a conversation. Raises BackendError, also when the session was lost with it."""
        try:
            result = await talk.future
        except asyncio.CancelledError:
            talk.fail(BackendError("given up"))
            raise
        finally:
            self._talk = None
            self._early = talk.early + self._early
        if self._lost or self._taken:
            raise BackendError(self._taken or self._lost_why)
        return result

    async def converse(self, conversation: "Conversation[Any]") -> Any:
        """Talk to the server until the conversation ends; returns its result. Nobody may hold the session."""
        return await self.complete(self.talk(conversation))

    async def complete(self, talk: Talk) -> Any:
        """As ``finish``, where nobody holds the session afterwards either."""
        result = await self.finish(talk)
        early, self._early = self._early, b""
        why = self.codec.unlinked(early) if early else ""
        if why:
            raise BackendError(why)
        return result

    def attach(self, holder: Holder) -> None:
        """From now on ``holder`` hears what the session says, and what it said behind the conversation."""
        self.holder = holder
        early, self._early = self._early, b""
        if early:
            holder.from_backend(early)

    async def log_in(self) -> None:
        """Log in. Raises OpenFailed."""
        await self.converse(self.codec.log_in())

    async def ping(self) -> None:
        """Ask for a sign of life. Raises BackendError."""
        if self.codec.pings_by_peek():
            if self.peek():
                raise PingFailed("the server has said something, or has closed the connection")
            return
        await self.converse(self.codec.ping())

    async def reset(self) -> None:
        """Wipe what a client may have left. Raises BackendError."""
        if self.cancels:
            await self._settled()
        await self.converse(self.codec.reset())
        self.session.tag = self.codec.tag()

    async def begin(self) -> None:
        """Begin a transaction for a client that is to come. Raises BackendError."""
        await self.converse(self.codec.begin())

    async def recover(self) -> None:
        """End what the last holder left running, then settle. Raises BackendError."""
        recovery, self.recovery = self.recovery, None
        if recovery is not None:
            work = spawn(self._drained(recovery), f"drain of session {self.session.number}")
            try:
                while not work.done():
                    if self.recovery_cancels:
                        self.cancel()
                    await asyncio.wait((work,), timeout=_CANCEL_AGAIN)
                error = work.result()
            finally:
                work.cancel()
            if error is not None:
                raise error
        await self._settled()
        self.session.tag = self.codec.tag()
        if self.pool.resets:
            await self.reset()

    async def _drained(self, recovery: "Conversation[None]") -> Exception | None:
        try:
            await self.converse(recovery)
        except ProxyError as error:
            return error
        return None

    async def _settled(self) -> None:
        while self.cancels:
            await asyncio.wait(self.cancels)
        await self.converse(self.codec.settle())

    # -- the end --------------------------------------------------------------------------------

    def take_away(self, detail: str) -> None:
        """Tell whoever holds the session that it is gone, and have the server stop what it runs for them.

        The pool has taken it already, and closes it next.
        """
        self._taken = detail
        if self._talk is not None:
            # It is being given its holder's settings; the holder finds out from that.
            self._talk.fail(BackendError(detail))
            return
        holder, self.holder = self.holder, None
        if holder is None:
            return
        if holder.is_running():
            self.cancel()
        holder.backend_lost(detail)

    async def close(self) -> None:
        """Say goodbye, and return when the server has ended the session."""
        if not self._lost and not self._transport.is_closing():
            if self.codec.is_full():
                self._transport.resume_reading()  # or its end would not be seen
            farewell = self.codec.farewell()
            if farewell:
                self._transport.write(farewell)
            elif self._transport.can_write_eof() and not self._heard_end:
                self._transport.write_eof()
            else:
                self._transport.close()
        await asyncio.shield(self._ended)

    def abandon(self) -> None:
        """Cut the connection."""
        if not self._lost and self._transport is not None:
            self._transport.abort()

    def is_gone(self) -> bool:
        """The connection is lost."""
        return self._lost

    def place(self) -> str:
        """The address that it is connected to."""
        return self._place

    def role(self) -> int:
        """What the server is, as far as this session was told."""
        return self.codec.role()

    def peek(self) -> bool:
        """Something has come, or the end, that the loop has not read yet. One system call."""
        # Once a transport is closing its descriptor may be somebody else's by now.
        if self._lost or self._transport.is_closing():
            return True
        return bool(self._poll.poll(0))

    # -- as a talker ----------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Write bytes to the server."""
        if not self._lost:
            self._transport.write(data)

    def hold(self) -> None:
        """Stop reading: what comes next is TLS."""
        self._transport.pause_reading()

    async def start_tls(self, step: StartTls) -> bytes | None:
        """Turn the connection into a TLS connection; the server's certificate. Raises BackendError."""
        self._transport = await self.endpoint.start_tls(self._transport, self)
        self._send = self._transport.write
        return told(step, self._transport)
