"""Where to listen: ``host:port`` or ``unix:/path``, taken apart once and frozen.

Resolves no name and opens nothing.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

EXPECTED: Final = (
    'expected an address such as "127.0.0.1:6432", "[::1]:6432" or "unix:/run/penstock/.s.PGSQL.6432"'
)
# What the kernel's sockaddr_un holds, less the closing zero.
_LONGEST_PATH: Final = 107


@dataclass(frozen=True)
class Address:
    """A place to listen on: ``host`` and ``port``, or ``path`` for a Unix socket (then port is 0)."""

    host: str | None
    port: int
    path: str | None = None

    def __str__(self) -> str:
        """Return the text that parse_address takes apart again."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine (or this pod) can reach it: a Unix socket or a loopback address."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host or "").is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Return the Address that ``text`` names. Port 0 means any free port.

    Raises ValueError with a sentence that never repeats the text.
    """
    text = text.strip()
    if text.startswith("unix:"):
        return Address(None, 0, _socket_path(text.removeprefix("unix:")))
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ValueError(EXPECTED)
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"a port is a number up to 65535; {EXPECTED}")
    return Address(_host(host), int(port))


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        try:
            return str(ipaddress.IPv6Address(inner))
        except ValueError:
            raise ValueError(f"only an IPv6 address stands in brackets; {EXPECTED}") from None
    if ":" in text:
        raise ValueError(f"an IPv6 address stands in brackets; {EXPECTED}")
    if not text or text == "*":
        raise ValueError('to listen on every interface, say so: "0.0.0.0:6432" or "[::]:6432"')
    if not text.isprintable() or any(letter in " /@[]" for letter in text):
        raise ValueError(EXPECTED)
    return text


def _socket_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError('the path of a Unix socket is absolute: "unix:/run/penstock/.s.PGSQL.6432"')
    if path.endswith("/") or not path.isprintable():
        raise ValueError(
            'a Unix socket is named by its file, not its directory: "unix:/run/penstock/.s.PGSQL.6432"'
        )
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(f"the path of a Unix socket has at most {_LONGEST_PATH} bytes")
    return path
