"""What the URL of a backend says about TLS beyond its sslmode, in libpq's words.

Must never repeat a value.
"""

from dataclasses import dataclass
from typing import Final

NAMES: Final = ("sslnegotiation", "ssl_min_protocol_version", "sslcrl", "sslsni", "channel_binding")
_VERSIONS: Final = {"TLSv1.2": "1.2", "TLSv1.3": "1.3"}
_CHOICES: Final = {
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": tuple(_VERSIONS),
    "sslsni": ("0", "1"),
    "channel_binding": ("disable", "prefer", "require"),
}
_STRONG: Final = ("require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class TlsWishes:
    """As libpq names and means them."""

    sslnegotiation: str = "postgres"
    ssl_min_protocol_version: str = "TLSv1.2"
    sslcrl: str | None = None
    sslsni: str = "1"
    channel_binding: str = "prefer"

    @property
    def min_version(self) -> str:
        """As the listeners write it."""
        return _VERSIONS[self.ssl_min_protocol_version]

    def written(self) -> dict[str, str]:
        """Those that are not as by default."""
        usual = TlsWishes()
        values = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in values.items() if value != getattr(usual, name)}


def read_wishes(known: dict[str, str], sslmode: str, is_socket: bool) -> TlsWishes:
    """Take them out of the parameters of a URL. Raises ValueError with a sentence."""
    given = {name: known[name] for name in NAMES if name in known}
    for name, value in given.items():
        if value not in _CHOICES.get(name, (value,)) or not value:
            raise ValueError(f"{name} is one of {', '.join(_CHOICES.get(name, ('the path of a file',)))}")
    wishes = TlsWishes(**given)
    secure = sslmode in _STRONG and not is_socket
    if wishes.sslnegotiation == "direct" and not secure:
        raise ValueError(f"sslnegotiation=direct needs sslmode={', '.join(_STRONG)}: TLS is not asked for")
    if wishes.channel_binding == "require" and not secure:
        raise ValueError(f"channel_binding=require needs TLS: sslmode={', '.join(_STRONG)}")
    if wishes.sslcrl is not None and sslmode not in ("verify-ca", "verify-full"):
        raise ValueError("sslcrl needs sslmode=verify-ca or verify-full: nothing is verified otherwise")
    if wishes.sslsni == "0" and sslmode == "verify-full":
        raise ValueError(
            "sslsni=0 does not go together with sslmode=verify-full, which needs the name: use verify-ca"
        )
    return wishes
