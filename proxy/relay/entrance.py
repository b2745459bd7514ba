"""A connection before it is a client: its login, under one deadline, and its welcome.

When the login is proven the connection is handed to a ``Client``; when it is not, the last words
are sent and the connection is closed. A connection that only brings a cancel request ends here, too.

A login is as hot as a query where clients connect for every transaction: one that waits for nobody but its
client ends in the step in which the last proof came, and makes no task, no future and no timer. Nothing
that was made for the login may outlive it.
"""

import asyncio
import time
from typing import Any

import structlog

from proxy.codec import ClientCodec
from proxy.errors import BackendError, PoolError, ProtocolError, ProxyError
from proxy.pool.pool import Pool
from proxy.pool.session import Key, Session
from proxy.reasons import RefusalReason, TlsFailure
from proxy.reception import CancelTarget, Guest, Reception, Refused
from proxy.relay.client import Client
from proxy.relay.house import House, Leaver
from proxy.relay.learning import key_of, learn, terms_of
from proxy.relay.pipe import Pipe
from proxy.relay.proxy_header import Origin, caller_of, origin_of
from proxy.relay.sockets import peer_uid
from proxy.relay.talk import Driver, Talker
from proxy.relay.tied import Tied, end_own, own_session
from proxy.relay.tls_failures import explain
from proxy.relay.tls_start import begin_with_client, told
from proxy.steps import Conversation, StartTls
from proxy.tasks import crashed, spawn

_log = structlog.get_logger("penstock")


class Entrance(Leaver, Talker):
    """One connection that has not logged in yet."""

    def __init__(
        self, house: House, reception: Reception, login_timeout: float, origin: Origin | None = None
    ) -> None:
        self.house = house
        self.number = house.next_number()
        self.origin = origin  # as it was announced
        self.peer = ""
        self._reception = reception
        self._login_timeout = login_timeout
        self._transport: Any = None
        self._talk: _LoginTalk | None = None
        self._late = b""
        self._holds = False  # it is not read
        self._gone = False
        self._secured = False
        self._securing = False  # TLS has begun, and is not there yet: nothing can be said
        self._ended = False  # it will send no more
        self._begun = False  # the loop knows the connection: what is done with it now has its effect

    # -- called by the event loop ---------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A connection was accepted."""
        self._transport = transport
        info = transport.get_extra_info
        sock = info("socket")  # its options are those of the listening one
        self.origin = self.origin or origin_of(info("peername"), info("sockname"))
        self.peer = str(self.origin)
        self._secured = info("ssl_object") is not None
        if self.house.is_out_of_descriptors(sock.fileno()):
            text = "the daemon has only its reserve of file descriptors left"
            reply = self._reception.turn_away("53300", text, "Raise the limit of open files.")
            self._refuse(reply, text, RefusalReason.DESCRIPTORS)
            return
        self.house.enter(self, time.monotonic() + self._login_timeout)
        # In this step: what it sends may arrive before the next one.
        caller = caller_of(self.origin, -1 if self.house.announced else peer_uid(sock))
        conversation = self._reception.log_in(self.house.is_local, self.house.refusal, caller)
        talk = self._talk = _LoginTalk(conversation, self)
        talk.begin()
        self._begun = True

    def data_received(self, data: bytes) -> None:
        """It sent something."""
        if self._talk is not None:
            self._talk.feed(data)
        elif not self._transport.is_closing():
            # Sent ahead of the welcome: kept for the client to come, and read no further.
            self._late += data
            self._holds = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """It leaves, or only will send no more."""
        self._ended = not self._secured and self._reception.passes_ends()
        return self._ended

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._gone = True
        if self._talk is not None:
            self._talk.fail(_PeerGone("the client has gone"))

    def pause_writing(self) -> None:
        """A login writes little."""

    def resume_writing(self) -> None:
        """A login writes little."""

    # -- the login ------------------------------------------------------------------------------

    def logged_in(self, found: "Guest | CancelTarget | None", error: BaseException | None) -> None:
        """The conversation is over: with a guest, with somebody's key, or with an error."""
        talk, self._talk = self._talk, None
        if talk is not None:
            self._late += talk.early
        try:
            if error is not None:
                self._failed(error)
            elif isinstance(found, Guest) and self._begun and self._welcome_at_once(found):
                pass
            elif found is not None:
                # The rest may wait for others, and is bounded by what is left of the time.
                left = self.house.take_deadline(self) - time.monotonic()
                spawn(self._enter(found, left), f"login of client {self.number}")
                return
        except Exception as failure:  # noqa: BLE001  (nobody above can do anything about it)
            self._failed(failure)
        self.house.leave(self)

    async def _enter(self, found: "Guest | CancelTarget", left: float) -> None:
        try:
            async with asyncio.timeout(left):
                if isinstance(found, CancelTarget):
                    await self.house.cancel(found.key)
                    self._close()
                else:
                    await self._welcome(found)
        except Exception as error:  # noqa: BLE001  (it is told, or logged)
            self._failed(error)
        except BaseException:
            self._close()
            raise
        finally:
            self.house.leave(self)

    def _failed(self, error: BaseException) -> None:
        """Say why there is no login, and close the connection."""
        if isinstance(error, Refused):
            self._refuse(error.reply, str(error), error.reason)
        elif isinstance(error, _PeerGone):
            self._close()
        elif isinstance(error, TimeoutError):
            self._tell_too_late()
        elif isinstance(error, OSError):
            self._tls_failed(error)
        elif isinstance(error, ProtocolError):
            reply = self._reception.turn_away("08P01", str(error), "")
            self._refuse(reply, str(error), RefusalReason.PROTOCOL)
        else:
            self._close()
            crashed(f"login of client {self.number}", error)

    def too_late(self) -> None:
        """The time for the login is over."""
        if self._talk is not None:
            self._talk.fail(TimeoutError())

    def _tell_too_late(self) -> None:
        text = f"the login did not end within login_timeout ({self._login_timeout:g}s)"
        if self._securing:
            self.house.tls_failed(TlsFailure.TIMEOUT)
            text += ": the TLS handshake is not finished"
        reply = self._reception.turn_away("57P05", text, "")
        self._refuse(reply, text, RefusalReason.LOGIN_TIMEOUT)

    def _tls_failed(self, error: OSError) -> None:
        kind, text = explain(error, "client")
        self.house.tls_failed(kind)
        self._refuse(b"", f"TLS failed: {text}", RefusalReason.TLS)

    def _welcome_at_once(self, guest: Guest) -> bool:
        """Let a guest in for whom no session has to be asked; False where one has."""
        pool = guest.pool
        assert isinstance(pool, Pool)
        cancel_key = self.house.new_cancel_key(guest.key_length)
        welcome = guest.welcome(cancel_key)
        if welcome is None:
            return False
        # In one piece: the end of the proof, and what the client is told after it.
        self._let_in(guest, pool, guest.reply, welcome, cancel_key, None)
        return True

    async def _welcome(self, guest: Guest) -> None:
        pool = guest.pool
        assert isinstance(pool, Pool)
        self.say(guest.reply)
        cancel_key = self.house.new_cancel_key(guest.key_length)
        welcome = guest.welcome(cancel_key)
        own: Session | None = None
        if welcome is None:
            try:
                if guest.private is None:
                    await learn(guest, pool)
                else:
                    own = await own_session(guest, pool, key_of(guest, pool), *terms_of(guest))
            except PoolError as error:
                self._turn_away(guest, error)
                return
            except (ProxyError, OSError) as error:
                cause = error if isinstance(error, BackendError) else BackendError(str(error))
                self._turn_away(guest, cause)
                return
            welcome = guest.welcome(cancel_key)
            assert welcome is not None
        try:
            self._let_in(guest, pool, b"", welcome, cancel_key, own)
        except BaseException:
            if own is not None:
                end_own(pool, own)
            raise

    def _let_in(
        self,
        guest: Guest,
        pool: Pool,
        proof: bytes,
        welcome: bytes,
        cancel_key: bytes,
        own: Session | None,
    ) -> None:
        if self._gone or self._transport.is_closing():
            raise _PeerGone("the client has gone")
        no = self.house.refusal()
        if no is not None:
            # Others have come in since it was asked at the startup packet.
            sqlstate, text, hint, reason = no
            raise Refused(text, proof + self._reception.turn_away(sqlstate, text, hint), reason)
        key = key_of(guest, pool)
        client = self._client(guest.codec, pool, key if own is None else own.key)
        self.house.admit(client, cancel_key, self.peer, guest.name, self._secured)
        self._transport.set_protocol(client)
        self._transport.write(proof + welcome if proof else welcome)
        if own is not None:
            assert isinstance(client, Tied)
            client.tie(own)
        ahead, self._late = guest.rest + self._late, b""
        if self._holds:
            self._transport.resume_reading()
        client.welcomed(ahead, self._ended)

    def _client(self, codec: ClientCodec, pool: Pool, key: Key) -> Client:
        ended = self.house.ended
        if key.private is not None:
            return Tied(self.number, self._transport, pool, key, codec, ended)
        if not self._reception.passes_ends():
            return Client(self.number, self._transport, pool, key, codec, ended)
        assert self.origin is not None
        return Pipe(self.number, self._transport, pool, key, codec, ended, self.origin)

    def _turn_away(self, guest: Guest, error: PoolError | BackendError) -> None:
        self._refuse(guest.turn_away(error), error.message, RefusalReason.POOL)

    def _refuse(self, reply: bytes, detail: str, reason: RefusalReason) -> None:
        self.house.refused(reason)
        _log.warning("client_refused", client=self.number, peer=self.peer, reason=str(reason), detail=detail)
        if reply and not self._gone and not self._securing:
            self.say(reply)
        self._close()

    def _close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()

    def end(self) -> None:
        """The daemon stops."""
        if self._talk is not None:
            self._talk.fail(_PeerGone("the daemon is stopping"))
        self._close()

    # -- as a talker ----------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Write bytes to the client."""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def hold(self) -> None:
        """Stop reading: what comes next is TLS."""
        self._transport.pause_reading()

    async def start_tls(self, step: StartTls) -> bytes | None:
        """Turn the connection into a TLS connection; the client's certificate, if it showed one."""
        self._securing = True
        tls = begin_with_client(self._transport, self, self.house.tls, step.ahead, self._login_timeout)
        self._transport = tls  # before it stands: nobody can say anything in clear any more
        await tls.secured()
        self._securing, self._secured = False, True
        certificate = told(step, self._transport)
        if step.ahead and not step.protocol:
            self.house.tls_failed(TlsFailure.ALPN)  # the login turns it away
        return certificate


class _LoginTalk(Driver):
    """The login of one connection, whose end its entrance is told at once."""

    def __init__(self, conversation: "Conversation[Guest | CancelTarget]", entrance: Entrance) -> None:
        super().__init__(conversation, entrance)
        self._entrance = entrance

    def over(self, result: Any, error: BaseException | None) -> None:
        """Tell it."""
        self._entrance.logged_in(result, error)


class _PeerGone(ProxyError):
    pass
