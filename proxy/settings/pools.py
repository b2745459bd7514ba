"""``[pools.<name>]``: one real server, and how much of it Penstock may use.

Turns itself into the frozen Limits that the ledger reads and the BackendAddress that sessions are opened to.
Connects to nothing; the only files it reads are secrets and certificates.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import PrivateAttr, SecretStr, field_validator, model_validator

from proxy.pool.limits import GETMODES, REUSES, Limits
from proxy.settings.dsn import BackendAddress, parse_dsn
from proxy.settings.knobs import (
    Count,
    Listing,
    Number,
    PingInterval,
    QueueLength,
    Seconds,
    SecondsOrOff,
    knob,
    read_secret,
)
from proxy.settings.mistakes import Mistake, collect
from proxy.settings.sockets import SocketSettings, load_certificates

Freedom = Literal["wait", "nowait", "timedwait", "forceget", "wait_timeout"]


class PoolSettings(SocketSettings):
    """One bounded pool of sessions; its name is the database that clients ask for, and `*` takes any."""

    backend: SecretStr = knob(
        ...,
        "The real server: `postgresql://user@host:5432/database?sslmode=verify-full`. A pool `*` opens "
        "the database "
        "that the client asked for; the one in its URL is used to ask the server for its settings.",
        examples=["postgresql://app@db.internal:5432/app"],
    )
    password: SecretStr | None = knob(None, "The password of the URL's user, if the URL does not hold it.")
    password_file: str | None = knob(None, "A file that holds this password.")
    pool_mode: Literal["transaction", "session", "statement"] = knob(
        "transaction",
        "When a client gives its session back: after the transaction, at its end, after each statement.",
    )
    min: Count = knob(0, "Sessions kept open.")
    max: Number = knob(10, "Sessions open at most (`forceget` may go above it, by `max_forced`).", ge=1)
    increment: Number = knob(1, "Sessions opened at a time when one is missing (0 is taken as 1).", ge=0)
    getmode: Literal["wait", "nowait", "timedwait", "forceget"] = knob(
        "timedwait",
        "When every session is taken: `wait` queues without limit, `nowait` refuses at once, `timedwait` "
        "queues for "
        "`wait_timeout`, `forceget` opens one more.",
    )
    max_forced: Count | None = knob(
        None,
        "Sessions that `forceget` may open above `max`. By default `max` where getmode is `forceget`, "
        "else 0.",
    )
    wait_timeout: SecondsOrOff = knob(
        "30s", "The longest wait for a session: queueing, ping and connect together."
    )
    max_waiting: QueueLength = knob("off", "Refuse at once when so many clients already queue.")
    ping_interval: PingInterval = knob(
        "60s", "A session that was idle for longer is pinged before it is handed out."
    )
    ping_timeout: Seconds = knob("5s", "A slower ping has failed.")
    idle_timeout: SecondsOrOff = knob("10m", "A session that was idle for longer is closed, down to `min`.")
    max_lifetime: SecondsOrOff = knob("1h", "An older session is closed once it is idle; varied by 10 %.")
    reuse: Literal["lifo", "lru"] = knob(
        "lifo", "Which idle session is handed out: the latest used, or the longest idle."
    )
    max_opening: Number = knob(4, "Logins to the server in parallel.", ge=1)
    connect_timeout: Seconds = knob("15s", "Connect, TLS and login together.")
    reset_timeout: Seconds = knob("5s", "Cleaning a session between two clients; a slower one is closed.")
    close_timeout: Seconds = knob(
        "30s", "How long a closed session keeps its slot while the server has not ended it."
    )
    idle_transaction_timeout: SecondsOrOff = knob(
        "off", "A client that is idle in a transaction for longer is disconnected."
    )
    client_may_set: Annotated[tuple[Freedom, ...], Listing] = knob(
        ("nowait", "timedwait", "wait_timeout"),
        "What a client may choose for itself: get modes, and a `wait_timeout` up to the pool's.",
    )

    _dsn: BackendAddress = PrivateAttr()

    @field_validator("backend")
    @classmethod
    def _is_a_url(cls, backend: SecretStr) -> SecretStr:
        parse_dsn(backend.get_secret_value())
        return backend

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._dsn = parse_dsn(self.backend.get_secret_value())
        collect(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Mistake]:
        if self.min > self.max:
            yield ("min",), f"min ({self.min}) is above max ({self.max}): lower min, or raise max"
        given = [self._dsn.password, self.password, self.password_file]
        if sum(value is not None for value in given) > 1:
            key = "password" if self.password is not None else "password_file"
            yield (key,), "the password is given twice: keep one of backend, password and password_file"
        elif self.password_file is not None:
            try:
                self._dsn = replace(self._dsn, password=read_secret(self.password_file))
            except ValueError as error:
                yield ("password_file",), str(error)
        elif self.password is not None:
            if not self.password.get_secret_value():
                yield ("password",), "is empty; leave it out if the server asks for no password"
            self._dsn = replace(self._dsn, password=self.password)
        dsn = self._dsn
        for name, sentence in load_certificates(dsn.sslcert, dsn.sslkey, dsn.sslrootcert):
            parameter = {"cert": "sslcert", "key": "sslkey", "ca": "sslrootcert"}[name]
            yield ("backend",), f"{parameter}: {sentence}"

    @property
    def dsn(self) -> BackendAddress:
        """The server's address and login, with the password from wherever it was given."""
        return self._dsn

    @property
    def limits(self) -> Limits:
        """The bounds of this pool as the ledger reads them: times in seconds, modes as numbers."""
        forced = self.max_forced
        if forced is None:
            forced = self.max if self.getmode == "forceget" else 0
        return Limits(
            min=self.min,
            max=self.max,
            increment=self.increment or 1,
            getmode=GETMODES.index(self.getmode),
            max_forced=forced,
            wait_timeout=self.wait_timeout,
            max_waiting=self.max_waiting,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            idle_timeout=self.idle_timeout,
            max_lifetime=self.max_lifetime,
            reuse=REUSES.index(self.reuse),
            max_opening=self.max_opening,
            connect_timeout=self.connect_timeout,
            reset_timeout=self.reset_timeout,
            close_timeout=self.close_timeout,
            idle_transaction_timeout=self.idle_transaction_timeout,
            client_may_set=frozenset(self.client_may_set),
        )
