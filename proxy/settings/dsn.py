"""A PostgreSQL URL taken apart into a BackendAddress, with every part checked.

Must never repeat any part of the text in a sentence: a wrongly quoted password moves into the host, the port,
the database or the name of a parameter.
"""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr

from proxy.settings.dsn_parameters import PROTOCOL_BOUNDS, PROTOCOL_VERSIONS, SSLMODES, sort_parameters
from proxy.settings.dsn_tls import TlsWishes, read_wishes
from proxy.settings.tcp_url import is_tcp, parse_tcp_url

EXAMPLE: Final = '"postgresql://app@db.internal:5432/app"'


@dataclass(frozen=True)
class BackendAddress:
    """Where the real server is and how to log in to it.

    Either ``host`` and ``port`` or ``path`` (the whole path of a Unix socket) is set. ``sslmode`` is one of
    disable, prefer, require, verify-ca, verify-full; without ``sslrootcert`` the verify modes use the
    system's certificates. ``parameters`` go into the startup message. ``database`` is "" where the URL
    names none. ``max_protocol_version`` and ``min_protocol_version`` are 3.0, 3.2 or latest. ``protocol`` is
    "postgres", or "tcp" where nobody logs in: then ``user`` and ``database`` are "", and ``sslmode`` is
    "disable" unless the URL begins with ``tls://``.
    """

    host: str | None
    port: int
    path: str | None
    user: str
    password: SecretStr | None
    database: str
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    protocol: str = "postgres"
    tls: TlsWishes = field(default_factory=TlsWishes)
    max_protocol_version: str = "3.0"
    min_protocol_version: str = "3.0"

    def __hash__(self) -> int:
        """Hash what identifies the server and the login; the rest still counts for equality."""
        return hash((self.host, self.port, self.path, self.user, self.database))

    @property
    def place(self) -> str:
        """``host:port`` or the path of the socket, as logs and errors name it."""
        if self.path is not None:
            return self.path
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def masked(self) -> str:
        """Return the address as a URL with asterisks for the password, safe to show."""
        if self.protocol == "tcp":
            return self._tcp_url()
        secret = ":********" if self.password is not None else ""
        options = dict(self.parameters)
        where = self.place
        if self.path is not None:
            directory, _, name = self.path.rpartition("/")
            where = "" if name == ".s.PGSQL.5432" else f":{self.port}"
            options["host"] = directory
        for name in ("sslrootcert", "sslcert", "sslkey"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        for name in PROTOCOL_BOUNDS:
            if getattr(self, name) != "3.0":
                options[name] = getattr(self, name)
        if self.sslmode != "prefer":
            options["sslmode"] = self.sslmode
        options |= self.tls.written()
        query = "&".join(f"{quote(key)}={quote(value, safe='/')}" for key, value in options.items())
        url = f"postgresql://{quote(self.user, safe='')}{secret}@{where}/{quote(self.database, safe='')}"
        return f"{url}?{query}" if query else url

    def _tcp_url(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.sslmode == "disable":
            return f"tcp://{self.place}"
        names = ("sslmode", "sslrootcert", "sslcert", "sslkey")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        query = "&".join(f"{name}={value}" for name, value in {**given, **self.tls.written()}.items())
        return f"tls://{self.place}?{query}"


def parse_dsn(text: str) -> BackendAddress:
    """Return the address that a URL names: ``postgresql://``, or one of tcp_url.py.

    Raises ValueError with a sentence that holds nothing of the URL but names that Penstock knows.
    """
    if is_tcp(text):
        tcp = parse_tcp_url(text)
        files = (tcp.sslmode, tcp.sslrootcert, tcp.sslcert, tcp.sslkey)
        return BackendAddress(tcp.host, tcp.port, tcp.path, "", None, "", *files, protocol="tcp", tls=tcp.tls)
    parts = _split(text.strip())
    known, parameters = sort_parameters(parts.query)
    values = parts.merged(known)
    user, database = values.get("user", ""), values.get("dbname", "")
    if not user:
        raise ValueError(f"the URL names no user; expected for example {EXAMPLE}")
    host, port, path = _where(values)
    sslmode = _sslmode(known)
    rootcert = known.get("sslrootcert")
    password = values.get("password")
    return BackendAddress(
        host=host,
        port=port,
        path=path,
        user=user,
        password=SecretStr(password) if password else None,
        database=database,
        sslmode=sslmode,
        sslrootcert=None if rootcert == "system" else rootcert,
        sslcert=known.get("sslcert"),
        sslkey=known.get("sslkey"),
        parameters=parameters,
        tls=read_wishes(known, sslmode, path is not None),
        **_protocol_bounds(known),
    )


@dataclass(frozen=True)
class _Parts:
    values: dict[str, str]
    query: list[tuple[str, str]]

    def merged(self, known: dict[str, str]) -> dict[str, str]:
        values = dict(self.values)
        for name in ("host", "port", "user", "password", "dbname"):
            if name in known:
                if values.get(name):
                    raise ValueError(f"the {name} is given twice: before the question mark and after it")
                values[name] = known[name]
        return values


def _split(text: str) -> _Parts:
    rest = _without_scheme(text)
    ends = [place for place in (rest.find("/"), rest.find("?")) if place >= 0]
    end = min(ends, default=len(rest))
    authority, rest = rest[:end], rest[end:]
    path, _, query = rest.partition("?")
    # Whatever follows here may be a piece of a password with a raw "@", "/" or "?" in it: nothing may echo.
    if "@" in rest or authority.count("@") > 1:
        raise ValueError(
            'an "@", "/" or "?" stands unescaped in the user, the password or a parameter; '
            "write them as %40, %2F and %3F, or use password_file"
        )
    login, _, where = authority.rpartition("@")
    user, _, password = login.partition(":")
    host, port = _host_and_port(where)
    values = {"user": user, "password": password, "host": host, "port": port, "dbname": path[1:]}
    if "/" in path[1:]:
        raise ValueError(f"only the database follows the host; expected for example {EXAMPLE}")
    return _Parts({name: _decode(value) for name, value in values.items()}, _pairs(query))


def _without_scheme(text: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if text.startswith(scheme):
            return text.removeprefix(scheme)
    if text.startswith(("postgresql+", "postgres+")):
        raise ValueError(f"leave the driver out of the URL; expected for example {EXAMPLE}")
    if "://" not in text and "=" in text:
        raise ValueError(f'"key=value" text is not supported; expected a URL, for example {EXAMPLE}')
    if text.startswith(("redis://", "rediss://")):
        raise ValueError(f"of the protocols only PostgreSQL is built so far; expected for example {EXAMPLE}")
    raise ValueError(f"expected a URL of PostgreSQL, for example {EXAMPLE}")


def _host_and_port(where: str) -> tuple[str, str]:
    if "," in where:
        raise ValueError(
            "here a URL names one host; several stand in the backend of the pool itself, or are "
            "[pools.<name>.endpoints.<name>] with a backend each"
        )
    if where.startswith("["):
        host, bracket, port = where[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError('an IPv6 address is written in brackets: "postgresql://app@[::1]:5432/app"')
        return host, port[1:]
    host, _, port = where.partition(":")
    if ":" in port:
        raise ValueError('an IPv6 address is written in brackets: "postgresql://app@[::1]:5432/app"')
    return host, port


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = []
    for word in query.split("&") if query else []:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError("after the question mark stand name=value pairs, joined by &")
        pairs.append((_decode(name), _decode(value)))
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a parameter is given twice")
    return pairs


def _decode(text: str) -> str:
    try:
        # By hand, because unquote() lets a stray percent sign pass.
        head, *others = text.split("%")
        raw = head.encode()
        for piece in others:
            digits = piece[:2]
            if len(digits) < 2 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                raise ValueError
            raw += bytes.fromhex(digits) + piece[2:].encode()
        decoded = raw.decode()
    except ValueError:
        raise ValueError(
            "a % is followed by two hex digits, and they spell UTF-8; a % itself is %25"
        ) from None
    if "\0" in decoded or "\n" in decoded or "\r" in decoded:
        raise ValueError("the URL holds a line break or a zero byte")
    return decoded


def _where(values: dict[str, str]) -> tuple[str | None, int, str | None]:
    host, digits = values.get("host", ""), values.get("port", "") or "5432"
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 5 or not 1 <= int(digits) <= 65535:
        raise ValueError(
            "the port is not a number from 1 to 65535 "
            "(a reserved character in a password is written in percent form: / as %2F, @ as %40)"
        )
    port = int(digits)
    if not host:
        raise ValueError(
            f"the URL names no host; expected for example {EXAMPLE}, "
            'or "postgresql://app@/app?host=/var/run/postgresql" for a Unix socket'
        )
    if "," in host:
        return _host_and_port(host)[0], port, None
    if host.startswith("@"):
        raise ValueError("abstract Unix sockets are not supported")
    if host.startswith("/"):
        return None, port, f"{host.rstrip('/')}/.s.PGSQL.{port}"
    if not host.isprintable() or any(letter in " /@?#\\" for letter in host):
        raise ValueError(f"the host is not a name or an address; expected for example {EXAMPLE}")
    return host, port, None


def _protocol_bounds(known: dict[str, str]) -> dict[str, str]:
    bounds = {name: known.get(name, "3.0") for name in PROTOCOL_BOUNDS}
    for name, version in bounds.items():
        if version not in PROTOCOL_VERSIONS:
            raise ValueError(f"{name} is one of {', '.join(PROTOCOL_VERSIONS)}")
    newest, oldest = (PROTOCOL_VERSIONS[version] for version in bounds.values())
    if oldest > newest:
        raise ValueError(
            "min_protocol_version is newer than max_protocol_version, which is 3.0 where the URL has none"
        )
    return bounds


def _sslmode(known: dict[str, str]) -> str:
    mode = known.get("sslmode", "prefer")
    if mode == "allow":
        raise ValueError('sslmode "allow" is not supported: use "prefer", or "verify-full" to be sure')
    if mode not in SSLMODES:
        raise ValueError(f"sslmode is one of {', '.join(SSLMODES)}")
    if ("sslcert" in known) != ("sslkey" in known):
        raise ValueError("sslcert and sslkey go together: the certificate and its private key")
    if "sslrootcert" in known and mode == "require":
        # As libpq does: who names a root wants it checked.
        return "verify-ca"
    return mode
