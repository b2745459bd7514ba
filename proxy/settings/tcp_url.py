"""The URL of a server whose protocol Penstock does not know, taken apart: ``tcp://``, ``tls://``, ``unix:``.

As with every URL of a backend, nothing of the text is ever repeated in a sentence.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from proxy.settings.dsn_tls import TlsWishes, read_wishes

SCHEMES: Final = ("tcp://", "tls://", "unix:")
EXAMPLE: Final = '"tcp://cache.internal:6379", "tls://cache.internal:6380" or "unix:/run/cache.sock"'
_SSLMODES: Final = ("require", "verify-ca", "verify-full")
_WISHES: Final = ("sslcrl", "sslsni", "ssl_min_protocol_version")
_PARAMETERS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey", *_WISHES)
_LONGEST_PATH: Final = 107


@dataclass(frozen=True)
class TcpParts:
    """``host`` and ``port``, or ``path``; ``sslmode`` "disable" means no TLS."""

    host: str | None
    port: int
    path: str | None
    sslmode: str = "disable"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    tls: TlsWishes = field(default_factory=TlsWishes)


def is_tcp(text: str) -> bool:
    """Whether this is the URL of a server that speaks no protocol of ours."""
    return text.strip().startswith(SCHEMES)


def parse_tcp_url(text: str) -> TcpParts:
    """Take the URL apart. Raises ValueError with a sentence."""
    text = text.strip()
    if text.startswith("unix:"):
        return TcpParts(None, 0, _path(text.removeprefix("unix:")))
    scheme, _, rest = text.partition("://")
    where, question, query = rest.partition("?")
    host, port = _place(where)
    if scheme == "tcp":
        if question:
            raise ValueError("a tcp:// URL has no parameters; the certificates of TLS go with tls://")
        return TcpParts(host, port, None)
    known = _parameters(query)
    mode = known.get("sslmode", "verify-full")
    if mode not in _SSLMODES:
        raise ValueError(f"sslmode is one of {', '.join(_SSLMODES)}; without TLS the URL begins with tcp://")
    if ("sslcert" in known) != ("sslkey" in known):
        raise ValueError("sslcert and sslkey go together: the certificate and its private key")
    root = known.get("sslrootcert")
    if root is not None and mode == "require":
        mode = "verify-ca"  # who names a root wants it checked
    root = None if root == "system" else root
    wishes = read_wishes({name: known[name] for name in _WISHES if name in known}, mode, is_socket=False)
    return TcpParts(host, port, None, mode, root, known.get("sslcert"), known.get("sslkey"), wishes)


def _path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or path.startswith("//") or not path.isprintable():
        raise ValueError(
            f"a Unix socket is named by the whole path of its file; expected for example {EXAMPLE}"
        )
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(f"the path of a Unix socket has at most {_LONGEST_PATH} bytes")
    return path


def _place(where: str) -> tuple[str, int]:
    if "@" in where:
        raise ValueError("nobody logs in over plain TCP: the URL names a host and a port, and no user")
    host, colon, port = where.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        good = re.fullmatch(r"[0-9A-Fa-f:.]+", host)
    else:
        good = re.fullmatch(r"[^\s/\\#:\[\]]+", host)
    if not colon or not good or not host.isprintable():
        raise ValueError(f"the URL names no host with its port; expected for example {EXAMPLE}")
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError(f"the port is not a number from 1 to 65535; expected for example {EXAMPLE}")
    return host, int(port)


def _parameters(query: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for word in query.split("&") if query else []:
        name, equals, value = word.partition("=")
        if not equals or not value or name not in _PARAMETERS or not value.isprintable():
            raise ValueError(f"the parameters of a tls:// URL are {', '.join(_PARAMETERS)}, joined by &")
        if name in known:
            raise ValueError("a parameter is given twice")
        known[name] = value
    return known
