"""What only a pool of raw TCP has: when a session may serve another client, and how that is found out.

Plain values, and what contradicts itself among them.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import SecretStr, model_validator

from proxy.settings.knobs import Kind, Table, knob
from proxy.settings.mistakes import Mistake
from proxy.settings.tcp_url import is_tcp

if TYPE_CHECKING:
    from proxy.settings.pools import PoolSettings

_ESCAPES: Final = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}
_LONGEST: Final = 4096
TCP_ONLY: Final = ("share", "send_proxy", "reset_script", "ping_script")


def _read_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(r'expected text with escapes, for example "PING\r\n" or ' + r"'\x00\x01'")
    found = b""
    for piece in re.findall(r"\\x[0-9A-Fa-f]{2}|\\.|[^\\]+|\\$", value, re.DOTALL):
        if piece.startswith("\\x") and len(piece) == 4:
            found += bytes.fromhex(piece[2:])
        elif piece.startswith("\\"):
            if piece[1:] not in _ESCAPES:
                raise ValueError(r"the escapes are \r \n \t \0 \\ and \x with two hex digits")
            found += _ESCAPES[piece[1:]]
        else:
            found += piece.encode()
    if len(found) > _LONGEST:
        raise ValueError(f"has at most {_LONGEST} bytes")
    return found


def _write_bytes(data: bytes) -> str:
    """As it is read again; printable."""
    names = {13: "\\r", 10: "\\n", 9: "\\t", 92: "\\\\"}
    return "".join(names.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data)


Bytes = Annotated[bytes, Kind(_read_bytes, _write_bytes, "text with escapes")]


class ScriptSettings(Table):
    """One exchange with a server whose protocol Penstock does not know."""

    send: Bytes = knob(
        ...,
        r"What is sent, as text; `\r`, `\n`, `\t`, `\0`, `\\` and `\x00` stand for bytes.",
        examples=[r"PING\r\n"],
    )
    expect: Bytes = knob(
        ...,
        "What the server has to answer, to the byte and nothing more.",
        examples=[r"+PONG\r\n"],
    )


class TcpSettings(Table):
    """What only a pool of raw TCP has."""

    share: Literal["never", "stateless"] = knob(
        "never",
        "For `tcp://`, `tls://` and `unix:` servers. `never`: a session on which anything was sent or "
        "received serves no other client. `stateless`: the protocol keeps nothing between clients, so a "
        "session is given on after the `reset_script`, if its client ended properly and the server spoke "
        "last.",
    )
    send_proxy: Literal["off", "v1", "v2"] = knob(
        "off",
        "For `tcp://` and `unix:` servers: announce each client to the server with a header of the PROXY "
        "protocol.",
    )
    ping_script: ScriptSettings | None = knob(
        None,
        'For share = "stateless": what a ping sends, and has to get within `ping_timeout`. Without it, only '
        "the socket is looked at.",
    )
    reset_script: ScriptSettings | None = knob(
        None,
        'For share = "stateless": what is sent between two clients, and has to be answered within '
        "`reset_timeout`; anything else that comes is left over, and the session is closed.",
    )

    @model_validator(mode="before")
    @classmethod
    def _held_to_the_end(cls, written: Any) -> Any:
        """Nobody knows where a transaction of an unknown protocol ends."""
        if isinstance(written, dict) and "pool_mode" not in written and _leads_to_tcp(written):
            return {**written, "pool_mode": "session"}
        return written


def _leads_to_tcp(written: dict[str, Any]) -> bool:
    urls = [written.get("backend")]
    endpoints = written.get("endpoints")
    if isinstance(endpoints, dict):
        urls += [entry.get("backend") for entry in endpoints.values() if isinstance(entry, dict)]
    texts = [url.get_secret_value() if isinstance(url, SecretStr) else url for url in urls]
    return any(isinstance(text, str) and is_tcp(text) for text in texts)


def tcp_mistakes(pool: "PoolSettings") -> Iterator[Mistake]:
    """Yield what is wrong between the settings of raw TCP and the others; paths begin below the pool."""
    if pool.protocol != "tcp":
        for key in TCP_ONLY:
            if getattr(pool, key) != TcpSettings.model_fields[key].default:
                yield (key,), "is for tcp://, tls:// and unix: servers; PostgreSQL needs no such thing"
        return
    if pool.pool_mode != "session":
        yield (
            ("pool_mode",),
            f'"{pool.pool_mode}" is for PostgreSQL: of an unknown protocol nobody can tell where a '
            'transaction or a statement ends; leave it out, or set "session"',
        )
    for key in ("password", "password_file"):
        if getattr(pool, key) is not None:
            yield (key,), "nobody logs in over plain TCP: leave it out"
    if pool.route_table is not None or pool.affinity == "key":
        key = "affinity" if pool.route_table is None else "route"
        yield (key,), "goes by what a client names, and over plain TCP none can: leave it out"
    yield from _scripts(pool)
    if pool.send_proxy != "off" and any(address.sslmode != "disable" for address in pool.endpoints.values()):
        yield (
            ("send_proxy",),
            "a PROXY header stands in front of TLS, and sessions have made their TLS before their client is "
            'known: use a tcp:// or unix: server, or "off"',
        )


def _scripts(pool: "PoolSettings") -> Iterator[Mistake]:
    if pool.share == "never":
        for key in ("ping_script", "reset_script"):
            if getattr(pool, key) is not None:
                yield (
                    (key,),
                    'whatever is sent on a session spends it where share = "never": leave it out, or set '
                    'share = "stateless" if the protocol keeps nothing between clients',
                )
    elif pool.send_proxy != "off":
        yield (
            ("send_proxy",),
            'announces one client for the whole life of a session, and share = "stateless" gives it to '
            "several",
        )
    elif pool.reset_script is None:
        yield (
            ("share",),
            '"stateless" needs a reset_script: its answer shows that nothing of the last client\'s is still '
            r'under way; for Redis reset_script = { send = "RESET\r\n", expect = "+RESET\r\n" }',
        )
