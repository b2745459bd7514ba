"""A connection before it is a client: its login, under one deadline, and its welcome.

Cold. When the login is proven the connection is handed to a ``Client``; when it is not, the last words
are sent and the connection is closed. A connection that only brings a cancel request ends here, too.
"""

import asyncio
from typing import Any

import structlog

from proxy.codec import ClientCodec
from proxy.errors import BackendError, PoolError, ProtocolError, ProxyError
from proxy.pool.limits import GETMODES, OFF
from proxy.pool.pool import Pool
from proxy.pool.session import Key, Session
from proxy.reasons import DropReason, RefusalReason, TlsFailure
from proxy.reception import CancelTarget, Guest, Reception, Refused
from proxy.relay.backend import SocketBackend
from proxy.relay.client import Client
from proxy.relay.house import House, Leaver
from proxy.relay.pipe import Pipe
from proxy.relay.proxy_header import Origin, caller_of, origin_of
from proxy.relay.sockets import peer_uid, tune
from proxy.relay.talk import Talk, Talker
from proxy.relay.tied import Tied, end_own, own_session
from proxy.relay.tls_failures import explain
from proxy.relay.tls_start import begin_with_client, told
from proxy.steps import StartTls
from proxy.tasks import spawn

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
        self._talk: Talk | None = None
        self._late = b""
        self._gone = False
        self._secured = False
        self._securing = False  # TLS has begun, and is not there yet: nothing can be said
        self._ended = False  # it will send no more

    # -- called by the event loop ---------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """A connection was accepted."""
        self._transport = transport
        sock = transport.get_extra_info("socket")
        tune(sock, self.house.keepalive)
        info = transport.get_extra_info
        self.origin = self.origin or origin_of(info("peername"), info("sockname"))
        self.peer = str(self.origin)
        self._secured = info("ssl_object") is not None
        if self.house.is_out_of_descriptors(sock.fileno()):
            text = "the daemon has only its reserve of file descriptors left"
            reply = self._reception.turn_away("53300", text, "Raise the limit of open files.")
            self._refuse(reply, text, RefusalReason.DESCRIPTORS)
            return
        self.house.enter(self)
        # In this step: what it sends may arrive before the task runs.
        caller = caller_of(self.origin, -1 if self.house.announced else peer_uid(sock))
        self._talk = Talk(self._reception.log_in(self.house.is_local, self.house.refusal, caller), self)
        self._talk.begin()
        spawn(self._enter(self._talk), f"login of client {self.number}")

    def data_received(self, data: bytes) -> None:
        """It sent something."""
        if self._talk is not None:
            self._talk.feed(data)
        elif not self._transport.is_closing():
            # Sent ahead of the welcome: kept for the client to come, and read no further.
            self._late += data
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

    async def _enter(self, talk: Talk) -> None:
        try:
            async with asyncio.timeout(self._login_timeout):
                found = await self._login(talk)
                if isinstance(found, CancelTarget):
                    await self.house.cancel(found.key)
                    self._close()
                else:
                    await self._welcome(found)
        except Refused as refusal:
            self._refuse(refusal.reply, str(refusal), refusal.reason)
        except _PeerGone:
            self._close()
        except TimeoutError:
            self._too_late()
        except OSError as error:
            self._tls_failed(error)
        except ProtocolError as error:
            reply = self._reception.turn_away("08P01", str(error), "")
            self._refuse(reply, str(error), RefusalReason.PROTOCOL)
        except BaseException:
            self._close()
            raise
        finally:
            self.house.leave(self)

    def _too_late(self) -> None:
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

    async def _login(self, talk: Talk) -> "Guest | CancelTarget":
        try:
            found: Guest | CancelTarget = await talk.future
            return found
        except asyncio.CancelledError:
            talk.fail(_PeerGone("given up"))
            raise
        finally:
            self._talk = None
            self._late += talk.early

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
                    await self._learn(guest, pool)
                else:
                    own = await own_session(guest, pool, _key(guest, pool), *_terms(guest, pool))
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
            if self._gone or self._transport.is_closing():
                raise _PeerGone("the client has gone")
            self._let_in(guest, pool, welcome, cancel_key, own)
        except BaseException:
            if own is not None:
                end_own(pool, own)
            raise

    def _let_in(
        self, guest: Guest, pool: Pool, welcome: bytes, cancel_key: bytes, own: Session | None
    ) -> None:
        no = self.house.refusal()
        if no is not None:
            # Others have come in since it was asked at the startup packet.
            sqlstate, text, hint, reason = no
            raise Refused(text, self._reception.turn_away(sqlstate, text, hint), reason)
        key = _key(guest, pool)
        client = self._client(guest.codec, pool, key if own is None else own.key)
        self.house.admit(client, cancel_key, self.peer, guest.name, self._secured)
        self._transport.set_protocol(client)
        self._transport.write(welcome)
        if own is not None:
            assert isinstance(client, Tied)
            client.tie(own)
        ahead, self._late = guest.rest + self._late, b""
        self._transport.resume_reading()
        client.welcomed(ahead, self._ended)

    def _client(self, codec: ClientCodec, pool: Pool, key: Key) -> Client:
        ended = self.house.client_ended
        if key.private is not None:
            return Tied(self.number, self._transport, pool, key, codec, ended)
        if not self._reception.passes_ends():
            return Client(self.number, self._transport, pool, key, codec, ended)
        assert self.origin is not None
        return Pipe(self.number, self._transport, pool, key, codec, ended, self.origin)

    def _turn_away(self, guest: Guest, error: PoolError | BackendError) -> None:
        self._refuse(guest.turn_away(error), error.message, RefusalReason.POOL)

    async def _learn(self, guest: Guest, pool: Pool) -> None:
        """Have a session take the client's settings, and the guest note what the server reports then."""
        codec = guest.codec
        session = await pool.acquire(_key(guest, pool), *_terms(guest, pool), tag=codec.tag)
        backend = session.backend
        assert isinstance(backend, SocketBackend)
        try:
            if codec.join(backend.codec):
                pool.counters.fixups += 1
                session.begun_at = OFF  # this ends a transaction that was begun ahead
                await backend.converse(codec.prepare())
            guest.learn(backend.codec)
        except (ProxyError, OSError):
            codec.part()
            pool.recover(session)
            raise
        except BaseException:
            pool.drop(session, DropReason.PREPARE_FAILED)
            raise
        codec.part()
        _give_back(pool, session, backend)

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
        self._transport = await begin_with_client(
            self._transport, self, self.house.tls, step.ahead, self._login_timeout
        )
        self._securing, self._secured = False, True
        certificate = told(step, self._transport)
        if step.ahead and not step.protocol:
            self.house.tls_failed(TlsFailure.ALPN)  # the login turns it away
        return certificate


class _PeerGone(ProxyError):
    pass


def _terms(guest: Guest, pool: Pool) -> tuple[int | None, float | None]:
    codec = guest.codec
    getmode = GETMODES.index(codec.getmode) if codec.getmode else None
    return getmode, codec.wait_timeout if codec.wait_timeout >= 0 else None


def _key(guest: Guest, pool: Pool) -> Key:
    codec = guest.codec
    return pool.key(guest.database, guest.user, codec.cclass, codec.shard_key or None, codec.target)


def _give_back(pool: Pool, session: Session, backend: SocketBackend) -> None:
    session.tag = backend.codec.tag()
    if pool.resets:
        pool.reset(session)
    else:
        pool.release(session)
