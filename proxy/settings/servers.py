"""Which servers a pool opens its sessions to, and how it logs in there.

Connects to nothing; the only files it reads are secrets and certificates.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pydantic import PrivateAttr, SecretStr, ValidationInfo, field_validator

from proxy.relay.tls_files import mistakes
from proxy.settings.dsn import BackendAddress, parse_dsn
from proxy.settings.dsn_hosts import Servers, parse_servers
from proxy.settings.endpoints import (
    EndpointSettings,
    Route,
    RouteSettings,
    make_route,
    protocol_of,
    route_mistakes,
)
from proxy.settings.knobs import Table, knob, read_secret
from proxy.settings.mistakes import Mistake, Path
from proxy.settings.presets import Preset


class ServerSettings(Table):
    """The real server or servers, and how long a client holds a session."""

    endpoint_tables: dict[str, EndpointSettings] = knob(
        {},
        "Several servers in place of `backend`.",
        alias="endpoints",
        ancestors="generic's endpoints, Oracle's shards",
    )
    route_table: RouteSettings | None = knob(
        None, "Which of them a client's shard key leads to.", alias="route"
    )
    backend: SecretStr | None = knob(
        None,
        "The real server: `postgresql://user@host:5432/database?sslmode=verify-full`; several hosts are "
        "separated by commas, as for libpq. A pool `*` opens "
        "the database that the client asked for; the one in its URL is used to ask the server for its "
        "settings.",
        examples=["postgresql://app@db.internal:5432/app"],
        ancestors="Oracle `dsn` and `user`, psycopg2 `dsn`",
    )
    password: SecretStr | None = knob(None, "The password of the URL's user, if the URL does not hold it.")
    password_file: str | None = knob(None, "A file that holds this password.")

    preset: Preset | None = knob(
        None,
        "Values like those of another pool; whatever is written beside it wins over them.",
        examples=["oracle"],
    )
    pool_mode: Literal["transaction", "session", "statement"] = knob(
        "transaction",
        "When a client gives its session back: after the transaction, at its end, after each statement.",
        ancestors="Oracle `pool_boundary`",
    )

    _addresses: dict[str, BackendAddress] = PrivateAttr(default_factory=dict)
    _named: Servers | None = PrivateAttr(None)

    @field_validator("backend")
    @classmethod
    def _is_a_url(cls, backend: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if backend is not None:
            parse_servers(backend.get_secret_value())
        elif info.data.get("endpoint_tables") == {}:
            raise ValueError("is required")
        return backend

    @property
    def protocol(self) -> str:
        """What the servers speak: "postgres" or "tcp"."""
        return protocol_of(next(self._urls())[1])

    def _urls(self) -> Iterator[tuple[str, str]]:
        """Every URL, by the name of its endpoint."""
        if self.backend is not None:
            yield "", self.backend.get_secret_value()
        for name, entry in self.endpoint_tables.items():
            yield name, entry.backend.get_secret_value()

    @property
    def endpoints(self) -> dict[str, BackendAddress]:
        """Every server of the pool with its login, by name, in the order of the configuration.

        Those of a plain ``backend``, mostly one, are named ``host:port`` or as their sockets.
        """
        return dict(self._addresses)

    @property
    def dsn(self) -> BackendAddress:
        """The address and login of the first server, with the password from wherever it was given."""
        return next(iter(self._addresses.values()))

    @property
    def route(self) -> Route | None:
        """Which endpoint a shard key leads to; None: all are alike, and no client may name a key."""
        return make_route(self.endpoint_tables, self.route_table) if self.route_table is not None else None

    @property
    def url_target(self) -> str:
        """The target_session_attrs of the URL in ``backend``; "" without one."""
        return self._named.target if self._named is not None else ""

    @property
    def url_balance(self) -> str:
        """Its load_balance_hosts."""
        return self._named.balance if self._named is not None else ""

    def place_of(self, endpoint: str) -> Path:
        """Where the URL of ``endpoint`` stands below the pool."""
        return ("endpoints", endpoint, "backend") if endpoint in self.endpoint_tables else ("backend",)

    def _server_mistakes(self) -> Iterator[Mistake]:
        """Set the addresses, and yield what is wrong with them."""
        if self.backend is not None:
            self._named = parse_servers(self.backend.get_secret_value())
            self._addresses.update({address.place: address for address in self._named.addresses})
            if self.endpoint_tables:
                yield ("backend",), "the pool has endpoints, which have a backend each: keep one of both"
                return
        for name, entry in self.endpoint_tables.items():
            self._addresses[name] = parse_dsn(entry.backend.get_secret_value())
        yield from self._password_mistakes()
        yield from route_mistakes(self.endpoint_tables, self.route_table)
        yield from self._strange_endpoints()
        for name, dsn in self._addresses.items():
            files = (dsn.sslcert, dsn.sslkey, dsn.sslrootcert, dsn.tls.sslcrl)
            for which, sentence in mistakes(*files):
                parameter = "sslrootcert" if which == "ca" else f"ssl{which}"
                yield self.place_of(name), f"{parameter}: {sentence}"

    def _password_mistakes(self) -> Iterator[Mistake]:
        """Set the password of every address, and yield what is wrong with it."""
        in_url = next((dsn.password for dsn in self._addresses.values() if dsn.password is not None), None)
        given = [in_url, self.password, self.password_file]
        password = self.password
        if sum(value is not None for value in given) > 1:
            key = "password" if self.password is not None else "password_file"
            yield (key,), "the password is given twice: keep one of backend, password and password_file"
            return
        if self.password_file is not None:
            try:
                password = read_secret(self.password_file)
            except ValueError as error:
                yield ("password_file",), str(error)
        elif password is not None and not password.get_secret_value():
            yield ("password",), "is empty; leave it out if the server asks for no password"
        if password is not None:
            for name, dsn in self._addresses.items():
                self._addresses[name] = replace(dsn, password=password)

    def _only_in_urls(self) -> bool:
        return self.password is None and self.password_file is None

    def _strange_endpoints(self) -> Iterator[Mistake]:
        """Endpoints that do not fit each other."""
        for name, url in self._urls():
            if protocol_of(url) != self.protocol:
                yield self.place_of(name), "speaks another protocol than the other endpoints of the pool"
        places: dict[tuple[str, str, str], str] = {}
        first = next(iter(self._addresses), "")
        for name, dsn in self._addresses.items():
            where, model = self.place_of(name), self._addresses[first]
            if self.route_table is None and (dsn.user, dsn.database) != (model.user, model.database):
                what = "user" if dsn.user != model.user else "database"
                yield (
                    where,
                    f"has another {what} than endpoints.{first}: without a route any endpoint serves any "
                    f"client, so all have the same user and database",
                )
            elif dsn.user == model.user and dsn.password != model.password and self._only_in_urls():
                yield (
                    where,
                    f"has another password than endpoints.{first} for the same user, who could log in to "
                    f"Penstock with one of them only: give each endpoint a user of its own, or all the same "
                    f"password",
                )
            other = places.setdefault((dsn.place, dsn.user, dsn.database), name)
            if other != name and self.route_table is None:
                yield where, f"is the same server as endpoints.{other}"
