"""Our side of a login to the server: TLS, the startup packet, the proof, until the first ReadyForQuery.

The server is not trusted: each message is bounded and legal in one place only, nothing that came before
TLS is believed, and in SCRAM the server must prove itself too. Checking its certificate is the shell's
work, by its TLS context.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from proxy.errors import LocalProtocolError, LoginFailed, OpenFailed, RemoteProtocolError
from proxy.postgres.accounts import Account
from proxy.postgres.certificate import endpoint_hash
from proxy.postgres.messages import (
    ALPN,
    AUTH_CLEARTEXT,
    AUTH_MD5,
    AUTH_OK,
    AUTH_SASL,
    AUTH_SASL_CONTINUE,
    AUTH_SASL_FINAL,
    SSL_REQUEST,
    Inbox,
    cstring,
    message,
    read_fields,
    read_parameter,
    startup,
)
from proxy.postgres.scram import SCRAM, SCRAM_PLUS, ScramClient, ScramError
from proxy.postgres.verifier import keys_of
from proxy.postgres.versions import TOO_NEW, Versions, check_key, negotiated
from proxy.steps import Conversation, StartTls

PARAMETER_CAP: Final = 200  # distinct parameters that a server may report at login
APPLICATION_NAME: Final = "penstock"

_OTHERS: Final = {2: "Kerberos V5", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}
_RESERVED: Final = ("user", "database", "replication")


@dataclass(frozen=True)
class Wire:
    """How the connection to a server is secured, beyond the sslmode.

    ``direct``: TLS begins at once, without a request for it (libpq's sslnegotiation=direct, for PostgreSQL
    17 and newer). ``channel_binding`` is libpq's: prefer, require or disable.
    """

    direct: bool = False
    channel_binding: str = "prefer"


@dataclass(frozen=True)
class Identity:
    """Who a session is: the user and database it names, the account with the secret, its parameters.

    ``account`` is the one that proves ``user`` to the server. Without an ``application_name`` among the
    parameters it is "penstock". ``replication`` ("true" or "database") makes it a replication connection,
    whose parameters are those of the client that it is for, and no others. ``wire`` is how its connection is
    secured.
    """

    user: str
    database: str
    account: Account
    parameters: tuple[tuple[str, str], ...] = ()
    replication: str = ""
    wire: Wire = Wire()


@dataclass(frozen=True, repr=False)
class Opened:
    """A session that is ready.

    ``pid`` and ``secret`` cancel its queries (0 and b"" where the server gave none). ``rest`` are bytes
    that the server sent behind its first ReadyForQuery.
    """

    parameters: dict[str, str]
    pid: int
    secret: bytes
    tls: bool
    mechanism: str
    rest: bytes
    direct: bool = False  # TLS began without a request for it

    def __repr__(self) -> str:
        return f"Opened(pid={self.pid}, tls={self.tls}, mechanism={self.mechanism!r})"


def open_session(identity: Identity, sslmode: str, versions: Versions | None = None) -> Conversation[Opened]:
    """Open one session; ``sslmode`` is disable, prefer, require, verify-ca or verify-full.

    ``versions`` None: protocol 3.0. Raises OpenFailed, LoginFailed (with the server's own words, where it
    gave any) and RemoteProtocolError.
    """
    versions = versions or Versions()
    packet = startup(_parameters(identity), versions.asks)
    tls, certificate = False, None
    if sslmode != "disable":
        tls, certificate = yield from start_tls(sslmode, identity.wire.direct)
    login = _Login(identity, tls, certificate, versions)
    yield from login.prove(packet)
    return (yield from login.settle())


def _parameters(identity: Identity) -> list[tuple[str, str]]:
    """The startup packet's pairs. A parameter that could change who we are is a bug of ours."""
    named = {name.lower() for name, _ in identity.parameters}
    foreign = [name for name in named if name in _RESERVED or name.startswith("_pq_.") or not name]
    if foreign or not identity.user:
        raise LocalProtocolError(f"a session's parameters may not hold {foreign!r}, and it needs a user")
    pairs = [("user", identity.user), ("database", identity.database), *identity.parameters]
    if identity.replication:
        pairs.append(("replication", identity.replication))
    elif "application_name" not in named:
        pairs.append(("application_name", APPLICATION_NAME))
    return pairs


def start_tls(sslmode: str, direct: bool = False) -> Conversation[tuple[bool, bytes | None]]:
    """Ask for TLS, or begin with it; returns whether it is on, and the server's certificate in DER."""
    if direct:
        step = StartTls()
        shown: bytes | None = yield step
        if step.protocol != ALPN:
            raise OpenFailed(
                f'TLS began at once, but the server did not agree to "{ALPN}" by ALPN: '
                "sslnegotiation=direct needs PostgreSQL 17 or newer"
            )
        return True, shown
    answer: bytes = yield SSL_REQUEST
    if answer[:1] == b"E":
        # It comes before TLS, from whoever is there: its words are not passed on (CVE-2024-10977).
        raise OpenFailed("the server answered SSLRequest with an error")
    if len(answer) != 1:
        raise RemoteProtocolError("the server sent unencrypted data behind its answer to SSLRequest")
    if answer == b"S":
        certificate: bytes | None = yield StartTls()
        return True, certificate
    if answer != b"N":
        raise RemoteProtocolError(f"the server answered SSLRequest with {answer!r}")
    if sslmode != "prefer":
        raise OpenFailed(
            f"the server does not speak TLS, and sslmode={sslmode} insists on it: "
            "turn it on at the server, or use sslmode=prefer or disable where the network is trusted"
        )
    return False, None


class _Login:
    """The messages from the startup packet to the first ReadyForQuery, in their only legal order."""

    def __init__(self, identity: Identity, tls: bool, certificate: bytes | None, versions: Versions) -> None:
        self.mechanism = "trust"
        self._versions = versions
        self._asked = self._version = versions.asks  # that is spoken
        self._is_taken = False  # the server has answered the startup packet
        self._inbox = Inbox()
        self._identity = identity
        self._account = identity.account
        self._tls = tls
        self._wanted = identity.wire.channel_binding
        bindable = certificate is not None and self._wanted != "disable"
        self._binding = endpoint_hash(certificate) if certificate is not None and bindable else None

    def prove(self, packet: bytes) -> Conversation[None]:
        """Send the startup packet and whatever proof the server asks for, until AuthenticationOk."""
        try:
            code, body = yield from self._request(packet)
        except BaseException:  # GeneratorExit, where the server only closed the connection
            if not self._is_taken:
                self._versions.turned_away(self._asked)
            raise
        if self._wanted == "require":
            self._demand_binding(code, body)
        if code == AUTH_OK:
            return
        if code == AUTH_CLEARTEXT:
            answer = self._cleartext()
        elif code == AUTH_MD5:
            answer = self._md5(body)
        elif code == AUTH_SASL:
            answer = yield from self._scram(body)
        else:
            what = _OTHERS.get(code, f"method {code}")
            raise LoginFailed(
                f"the server asks for {what}; password, md5 and scram-sha-256 are supported", "28000"
            )
        code, _ = yield from self._request(answer)
        if code != AUTH_OK:
            raise RemoteProtocolError(f"authentication request {code} came where the login should be done")

    def _demand_binding(self, code: int, offered: bytes) -> None:
        """Refuse every proof that does not bind the channel, before any of it is given."""
        if not self._tls:
            why = "the connection is not secured by TLS"
        elif code != AUTH_SASL:
            why = "the server asks for another proof than SCRAM"
        elif SCRAM_PLUS.encode() not in offered.split(b"\0"):
            why = "the server does not offer SCRAM-SHA-256-PLUS"
        elif self._binding is None:
            why = "no binding is defined for the certificate of the server (its signature has no hash)"
        else:
            return
        raise LoginFailed(f"{self._who()}: channel_binding=require, and {why}", "28000")

    def settle(self) -> Conversation[Opened]:
        """Read what the server tells about itself, until it is ready."""
        parameters: dict[str, str] = {}
        pid, secret = 0, b""
        while True:
            kind, body = yield from self._next(b"")
            if kind == b"S":
                name, value = read_parameter(body)
                parameters[name] = value
                if len(parameters) > PARAMETER_CAP:
                    raise RemoteProtocolError(f"the server reports more than {PARAMETER_CAP} parameters")
            elif kind == b"K":
                check_key(body, self._version)
                pid, secret = int.from_bytes(body[:4], "big"), body[4:]
            elif kind == b"Z" and body == b"I":
                rest, direct = self._inbox.rest, self._identity.wire.direct
                return Opened(parameters, pid, secret, self._tls, self.mechanism, rest, direct)
            else:
                raise RemoteProtocolError(f"a message of type {kind!r} came while a session was being opened")

    def _take(self) -> None:
        if not self._is_taken:
            self._is_taken = True
            self._versions.taken(self._asked)

    def _cleartext(self) -> bytes:
        self.mechanism = "password"
        if self._account.password is None:
            raise LoginFailed(self._lacks("a password in clear text", "password"), "28000")
        return message(b"p", cstring(self._account.password))

    def _md5(self, salt: bytes) -> bytes:
        self.mechanism = "md5"
        inner = self._account.md5_hash(self._identity.user)
        if inner is None:
            raise LoginFailed(self._lacks("a password or MD5 hash of this very user", "md5"), "28000")
        if len(salt) != 4:
            raise RemoteProtocolError("the salt of the MD5 request is not 4 bytes")
        digest = hashlib.md5(inner.encode("ascii") + salt, usedforsecurity=False).hexdigest()
        return message(b"p", cstring(f"md5{digest}"))

    def _scram(self, offered: bytes) -> Conversation[bytes]:
        """Run the exchange up to the server's signature; returns what is left to send, which is nothing."""
        names = offered.split(b"\0")
        if names[-2:] != [b"", b""]:
            raise RemoteProtocolError("the list of SASL mechanisms is not strings with a terminator")
        binding = self._binding if SCRAM_PLUS.encode() in names else None
        if binding is None and SCRAM.encode() not in names:
            known = ", ".join(ascii(name.decode("ascii", "replace")) for name in names[:8] if name)
            raise LoginFailed(f"the server offers no SASL mechanism that is supported, only {known}", "28000")
        can_bind = self._binding is not None and SCRAM_PLUS.encode() not in names
        exchange = ScramClient(binding, can_bind=can_bind)
        self.mechanism = exchange.mechanism.lower()
        try:
            yield from self._exchange(exchange)
        except ScramError as broken:
            raise LoginFailed(f"{self._who()}: {broken}", broken.sqlstate) from None
        return b""

    def _exchange(self, exchange: ScramClient) -> Conversation[None]:
        first = exchange.first()
        body = cstring(exchange.mechanism) + struct.pack("!i", len(first)) + first
        code, challenge = yield from self._request(message(b"p", body))
        if code != AUTH_SASL_CONTINUE:
            raise RemoteProtocolError(f"authentication request {code} came in place of the SCRAM challenge")
        exchange.challenge(challenge)
        client_key, server_key = yield from self._keys(exchange.salt, exchange.iterations)
        code, final = yield from self._request(message(b"p", exchange.final(client_key, server_key)))
        if code != AUTH_SASL_FINAL:
            raise ScramError("the server ended the login without its SCRAM signature", "28000")
        exchange.finish(final)

    def _keys(self, salt: bytes, iterations: int) -> Conversation[tuple[bytes, bytes]]:
        """The keys to prove ourselves with: from the password, or as a client's login taught them."""
        account, verifier = self._account, self._account.verifier
        if account.password is not None:
            return keys_of((yield from account.salted_password(salt, iterations)))
        if verifier is None:
            raise LoginFailed(self._lacks("a password or SCRAM verifier", "scram-sha-256"), "28000")
        if (verifier.salt, verifier.iterations) != (salt, iterations):
            raise LoginFailed(
                f"{self._who()}: the SCRAM verifier in the configuration is not the one that the server has; "
                "copy rolpassword from the server's pg_authid, or configure a password",
                "28000",
            )
        if account.client_key is None:
            raise LoginFailed(
                f"{self._who()}: only a SCRAM verifier is configured, and the key for the server is learned "
                "when a client logs in as this user, which none has done yet; configure a password to open "
                "sessions before that",
                "28000",
            )
        return account.client_key, verifier.server_key

    def _request(self, send: bytes) -> Conversation[tuple[int, bytes]]:
        """Send, then wait for an authentication request: its code and what follows it."""
        while True:
            kind, body = yield from self._next(send)
            send = b""
            if kind == b"v":
                self._version = negotiated(body, self._is_taken, self._asked, self._versions.least)
                self._take()
                continue
            self._take()
            if kind != b"R" or len(body) < 4:
                raise RemoteProtocolError(f"a message of type {kind!r} came before the login was done")
            return int.from_bytes(body[:4], "big"), body[4:]

    def _next(self, send: bytes) -> Conversation[tuple[bytes, bytes]]:
        """Send, then wait for the next message that is not a notice. Raises LoginFailed on an error."""
        while True:
            kind, body = yield from self._inbox.next(send)
            send = b""
            if kind == ord("E"):
                fields = read_fields(body)
                words = fields.get("M", "no reason given")
                if fields.get("C") not in TOO_NEW:
                    self._take()
                raise LoginFailed(f"{self._who()}: {words}", fields.get("C") or "XX000", fields)
            if kind != ord("N"):
                return bytes((kind,)), body

    def _who(self) -> str:
        identity = self._identity
        return f"the server did not let user {identity.user!r} into database {identity.database!r}"

    def _lacks(self, what: str, method: str) -> str:
        return f"{self._who()}: it asks for {method}, which needs {what} in the configuration"
