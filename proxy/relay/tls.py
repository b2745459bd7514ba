"""TLS contexts, for clients and for servers, from the words of the configuration. TLS 1.2 and newer only.

Reads the files each time that it is asked for a context, and keeps nothing. No message here holds anything
of a key.
"""

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from proxy.relay.tls_dates import end_of

ALPN: Final = "postgresql"
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class ListenerFiles:
    """What a listener's TLS is made of. ``names`` are (name that is asked for, certificate, key).

    ``ca`` verifies the certificates of clients, and ``demanded`` refuses who shows none; ``crl`` are those
    that were revoked. ``ciphers`` is OpenSSL's list for TLS 1.2. ``alpn``: PostgreSQL is agreed on.
    """

    cert: str
    key: str
    ca: str | None = None
    crl: str | None = None
    demanded: bool = False
    min_version: str = "1.2"
    ciphers: str | None = None
    alpn: bool = True
    names: tuple[tuple[str, str, str], ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file."""
        named = [path for _, *pair in self.names for path in pair]
        return tuple(path for path in (self.cert, self.key, self.ca, self.crl, *named) if path is not None)

    def load(self) -> "Context":
        """The context. Raises OSError, ValueError."""
        contexts = {name.lower(): self._context(cert, key) for name, cert, key in self.names}
        made = self._context(self.cert, self.key)
        made.digest = _digest(self.paths)
        if contexts:
            made.ends = min(made.ends, *(context.ends for context in contexts.values()))
            made.sni_callback = _chooser(contexts)
        return made

    def _context(self, cert: str, key: str) -> "Context":
        context = Context(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[self.min_version]
        if self.ciphers is not None:
            context.set_ciphers(self.ciphers)
        if self.alpn:
            context.set_alpn_protocols([ALPN])
        context.load_cert_chain(cert, key, password=no_passphrase)
        context.served = certificate_of(cert)
        context.ends = end_of(context.served)
        # A ticket would let a client come back without its certificate being looked at again. Without the
        # number TLS 1.3 makes two for each connection all the same, and OpenSSL keeps both.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        if self.ca is not None:
            context.load_verify_locations(cafile=self.ca)
            context.verify_mode = ssl.CERT_REQUIRED if self.demanded else ssl.CERT_OPTIONAL
            _look_up_revoked(context, self.crl)
        return context


@dataclass(frozen=True)
class ServerFiles:
    """What TLS towards a server is made of, in libpq's words; ``min_version`` is "1.2" or "1.3"."""

    sslmode: str
    rootcert: str | None = None
    cert: str | None = None
    key: str | None = None
    crl: str | None = None
    min_version: str = "1.2"
    alpn: bool = True

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file."""
        return tuple(path for path in (self.rootcert, self.cert, self.key, self.crl) if path is not None)

    def load(self) -> "Context":
        """The context; not where sslmode is "disable". Raises OSError, ValueError."""
        context = Context(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = VERSIONS[self.min_version]
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.check_hostname = self.sslmode == "verify-full"
        if self.alpn:
            context.set_alpn_protocols([ALPN])
        if self.sslmode in ("verify-ca", "verify-full"):
            context.verify_mode = ssl.CERT_REQUIRED
            if self.rootcert is None:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            else:
                context.load_verify_locations(cafile=self.rootcert)
            _look_up_revoked(context, self.crl)
        else:
            context.verify_mode = ssl.CERT_NONE
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key, password=no_passphrase)
            context.ends = end_of(certificate_of(self.cert))
        context.digest = _digest(self.paths)
        return context


class Context(ssl.SSLContext):
    """A context that knows what it was made of.

    ``served`` is the certificate that is shown, in DER (b"" towards a server), ``ends`` when the first of the
    certificates in it expires, in seconds since 1970 (infinity where there is none). ``digest`` tells whether
    the files have other content.
    """

    served: bytes = b""
    ends: float = float("inf")
    digest: bytes = b""


def certificate_of(cert: str) -> bytes:
    """The first certificate of a PEM file, in DER: the one that is shown. Raises OSError, ValueError."""
    with open(cert, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = text.index(begin)
    return ssl.PEM_cert_to_DER_cert(text[start : text.index(end, start) + len(end)])


def _look_up_revoked(context: ssl.SSLContext, crl: str | None) -> None:
    # Of every certificate up to the root, as PostgreSQL and libpq do: each issuer needs its own list.
    if crl is not None:
        context.load_verify_locations(cafile=crl)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


def _chooser(contexts: dict[str, "Context"]) -> Callable[[Any, str | None, ssl.SSLContext], None]:
    """Whoever asks for a name that has a certificate of its own is shown that; all others the default."""

    def choose(connection: Any, name: str | None, _default: ssl.SSLContext) -> None:
        asked = (name or "").lower().rstrip(".")
        found = contexts.get(asked) or contexts.get(f"*.{asked.partition('.')[2]}")
        if found is not None:
            connection.context = found

    return choose


def _digest(paths: tuple[str, ...]) -> bytes:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.digest()


class Passphrase(ValueError):
    """The key asks for a passphrase, which a daemon has nobody to ask for."""


def no_passphrase() -> str:
    """Stand in for whoever would know the passphrase. Raises Passphrase."""
    raise Passphrase("the key has a passphrase, which is not supported: store it without one")
