"""The whole configuration as one frozen tree.

Built by proxy.settings.loading from its layers; built directly (as tests do), it reads its arguments alone.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy.settings.control import ControlSettings
from proxy.settings.crosschecks import Tables, cross_check
from proxy.settings.dsn import parse_dsn
from proxy.settings.knobs import AddressOrOff, SecondsOrOffOrZero, Table, knob
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
    listeners: dict[str, ListenerSettings] = knob(
        {}, "Where clients connect. With none, `main` with its defaults is made."
    )
    pools: dict[str, PoolSettings] = knob({}, "The pools, by the database name that clients ask for.")
    users: dict[str, UserSettings] = knob({}, "Who may log in besides the pools' own users.")
    http: HttpSettings = knob({}, "The HTTP endpoint.")
    control: ControlSettings = knob({}, "The control socket.")
    log: LogSettings = knob({}, "The log.")

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
        if url is not None and not parse_dsn(url.get_secret_value()).database:
            raise ValueError(
                "the URL names no database; expected for example postgresql://app@db.internal/app"
            )
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        collect(cross_check(Tables(self.listeners, self.pools, self.users, self.http.address)))
        return self


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
        name = parse_dsn(text).database
    except ValueError:
        return data
    pool = pools.get(name, {})
    if not name or not isinstance(pool, dict):
        return data
    for key in ("backend", "endpoints"):
        if pool.get(key):
            collect([(("pools", name, key), "database_url makes a pool of this name too: keep one of them")])
    return {**data, "pools": {**pools, name: {**pool, "backend": text}}}
