"""The parameters of a PostgreSQL URL, sorted: ours, the server's, and those that are refused with a reason.

Must never repeat a value, nor a name that it does not know.
"""

import re
from difflib import get_close_matches
from typing import Final

from proxy.settings.dsn_tls import NAMES as TLS_NAMES

SSLMODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")

# As libpq names them; `latest` is the newest that Penstock speaks.
PROTOCOL_VERSIONS: Final = {"3.0": 0x00030000, "3.2": 0x00030002, "latest": 0x00030002}
PROTOCOL_BOUNDS: Final = ("max_protocol_version", "min_protocol_version")

# Those that the address is made of.
_OURS: Final = frozenset(
    {
        *("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey"),
        *("max_protocol_version", "min_protocol_version"),
        *TLS_NAMES,
    }
)
# libpq's own that are also startup parameters: they go to the server as they are.
_STARTUP: Final = frozenset({"application_name", "options", "client_encoding"})

_POINTERS: Final = {
    "connect_timeout": "pools.<name>.connect_timeout, as text with a unit",
    "keepalives": "pools.<name>.tcp_keepalive",
    "keepalives_idle": "pools.<name>.tcp_keepalive_idle, as text with a unit",
    "keepalives_interval": "pools.<name>.tcp_keepalive_interval, as text with a unit",
    "keepalives_count": "pools.<name>.tcp_keepalive_count",
    "tcp_user_timeout": "pools.<name>.tcp_user_timeout, as text with a unit",
    "fallback_application_name": "application_name",
    "hostaddr": "the address as the host of the URL",
    "passfile": "pools.<name>.password_file, which holds the password alone",
    "requiressl": "sslmode=require",
    "sslpassword": "a private key without a passphrase",
    "target_session_attrs": "pools.<name>.target_session_attrs",
    "load_balance_hosts": "pools.<name>.load_balance_hosts",
}
_REFUSED: Final = frozenset(
    {
        "gssdelegation",
        "gsslib",
        "krbsrvname",
        "krbspn",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "replication",
        "require_auth",
        "requirepeer",
        "scram_client_key",
        "scram_server_key",
        "service",
        "servicefile",
        "ssl_max_protocol_version",
        "sslcertmode",
        "sslcompression",
        "sslcrldir",
        "sslkeylogfile",
    }
)
# Refused unless the value asks for what happens anyway.
_MOOT: Final = {
    "gssencmode": ("disable", "prefer"),
    "sslcompression": ("0",),
    "target_session_attrs": ("any",),
    "load_balance_hosts": ("disable",),
}
_KNOWN: Final = _OURS | _STARTUP | _POINTERS.keys() | _REFUSED | _MOOT.keys()
_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def sort_parameters(pairs: list[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return (those that the address is made of, those for the server's startup message).

    A name that libpq does not know is taken for a setting of the server (``search_path``). Raises ValueError
    for one that Penstock does not support, with what to use in its place.
    """
    ours: dict[str, str] = {}
    startup: dict[str, str] = {}
    for name, value in pairs:
        if name in _OURS:
            ours[name] = value
        elif value in _MOOT.get(name, ()):
            continue
        else:
            _refuse(name)
            startup[name] = value
    return ours, startup


def _refuse(name: str) -> None:
    if name in _STARTUP:
        return
    if name in _POINTERS:
        raise ValueError(f"the parameter {name} is not read from the URL: use {_POINTERS[name]}")
    if name in _REFUSED or name in _MOOT:
        raise ValueError(
            f"the parameter {name} is not supported yet (other than its default, where it has one)"
        )
    if not _SETTING.fullmatch(name):
        raise ValueError("a parameter of the URL has a name that PostgreSQL cannot have")
    close = get_close_matches(name.lower(), sorted(_KNOWN), n=1, cutoff=0.8)
    if close:
        raise ValueError(f"a parameter of the URL is not known; did you mean {close[0]}?")
    lowered = name.lower()
    if lowered.startswith("penstock."):
        raise ValueError("penstock.* is for clients; the pool's own values are keys of its table, as getmode")
    if lowered.startswith(("ssl", "_pq_")) or lowered in ("database", "dbname", "user"):
        raise ValueError("a parameter of the URL is not known; the database and the user stand before the ?")
