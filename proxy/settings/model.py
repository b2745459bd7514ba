"""The whole configuration as one frozen tree.

Built by proxy.settings.loading from its layers; built directly (as tests do), it reads its arguments alone.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy.postgres.userlist import Listed, read_userlist
from proxy.settings.auth import AUTH_FILE, MapSettings, file_mistakes, read_text
from proxy.settings.control import ControlSettings
from proxy.settings.crosschecks import Tables, cross_check
from proxy.settings.dsn_hosts import parse_servers
from proxy.settings.knobs import AddressOrOff, SecondsOrOff, SecondsOrOffOrZero, Table, knob
from proxy.settings.listeners import ListenerSettings
from proxy.settings.mistakes import collect
from proxy.settings.pools import PoolSettings
from proxy.settings.users import UserSettings


class HttpSettings(Table):
    """The HTTP endpoint: metrics, probes, status page. It only answers GET."""

    address: AddressOrOff = knob("127.0.0.1:9127", "Where it listens; Kubernetes probes need `0.0.0.0:9127`.")


class LogSettings(Table):
    """The log, written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = knob(
        "info", "The least important line that is written."
    )
    format: Literal["auto", "json", "console"] = knob(
        "auto", "`auto` is `console` on a terminal and `json` elsewhere."
    )


@dataclass
class Reading:
    """One load in progress: the layers to read, highest first, and what they amount to together."""

    layers: tuple[PydanticBaseSettingsSource, ...]
    merged: dict[str, Any] = field(default_factory=dict)


# How load() hands its layers over: pydantic-settings asks the class, not the instance, for its sources.
READING: ContextVar[Reading | None] = ContextVar("READING", default=None)


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True, title="Penstock"
    )

    database_url: SecretStr | None = knob(
        None,
        "One variable instead of a file: a pool named after the URL's database, whose user logs in with "
        "the URL's "
        "password.",
        examples=["postgresql://app:secret@db.internal/app"],
    )
    drain_timeout: SecondsOrOffOrZero = knob(
        "30s", "After TERM: how long running transactions may finish. Keep it below Kubernetes' grace period."
    )
    auth_file: str | None = knob(None, AUTH_FILE, examples=["/etc/penstock/users.txt"])
    tls_reload_interval: SecondsOrOff = knob(
        "10s", "How often the files of certificates are looked at, and read again when they have changed."
    )
    listeners: dict[str, ListenerSettings] = knob(
        {}, "Where clients connect. With none, `main` with its defaults is made."
    )
    pools: dict[str, PoolSettings] = knob({}, "The pools, by the database name that clients ask for.")
    users: dict[str, UserSettings] = knob({}, "Who may log in besides the pools' own users.")
    maps: dict[str, MapSettings] = knob({}, "Whom clients may log in as who are named otherwise outside.")
    http: HttpSettings = knob({}, "The HTTP endpoint.")
    control: ControlSettings = knob({}, "The control socket.")
    log: LogSettings = knob({}, "The log.")

    _userlist: dict[str, Listed] | None = PrivateAttr(None)

    @property
    def userlist(self) -> dict[str, Listed] | None:
        """The users in ``auth_file``; None where there is no such file."""
        return self._userlist

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the layers that load() has prepared; nothing else is ever read."""
        reading = READING.get()
        return (init_settings, *(reading.layers if reading is not None else ()))

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = with_implied(data)
        reading = READING.get()
        if reading is not None:
            reading.merged = data
        return data

    @field_validator("database_url")
    @classmethod
    def _is_a_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not parse_servers(url.get_secret_value()).addresses[0].database:
            raise ValueError(
                "the URL names no database; expected for example postgresql://app@db.internal/app"
            )
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth_file is not None:
            try:
                self._userlist = read_userlist(read_text(self.auth_file))
            except ValueError as error:
                collect(file_mistakes("auth_file", error))
        collect(cross_check(self.tables()))
        return self

    def tables(self) -> Tables:
        """What is checked across tables."""
        http = self.http.address
        return Tables(self.listeners, self.pools, self.users, http, maps=self.maps, userlist=self._userlist)


def with_implied(data: dict[str, Any]) -> dict[str, Any]:
    """Add what is implied: a listener if there is none, and the pool of ``database_url``.

    A pool of that name that has no backend of its own keeps its settings and gets this one. A URL that does
    not parse is left for the field's own validator to report.
    """
    if not data.get("listeners"):
        data = {**data, "listeners": {"main": {}}}
    url = data.get("database_url")
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    pools = data.get("pools", {})
    if not isinstance(text, str) or not isinstance(pools, dict):
        return data
    try:
        name = parse_servers(text).addresses[0].database
    except ValueError:
        return data
    pool = pools.get(name, {})
    if not name or not isinstance(pool, dict):
        return data
    for key in ("backend", "endpoints"):
        if pool.get(key):
            collect([(("pools", name, key), "database_url makes a pool of this name too: keep one of them")])
    return {**data, "pools": {**pools, name: {**pool, "backend": text}}}
