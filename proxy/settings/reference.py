"""The model written down: JSON schema, the commented default file, and the page docs/configuration.md.

``python -m proxy.settings.reference`` writes all three at the top of the repository; a test holds them up to
date. Reads no configuration.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Final

from proxy.settings.knobs import fields
from proxy.settings.model import Settings
from proxy.settings.pool_acquire import AcquireSettings
from proxy.settings.pool_health import HealthSettings
from proxy.settings.pool_listen import ListenSettings
from proxy.settings.pool_lookup import LookupSettings
from proxy.settings.pool_opening import OpeningSettings
from proxy.settings.pool_pins import PinSettings
from proxy.settings.pool_size import SizeSettings
from proxy.settings.pool_state import StateSettings
from proxy.settings.pool_targets import TargetSettings
from proxy.settings.pool_tcp import TcpSettings
from proxy.settings.pool_timing import TimingSettings
from proxy.settings.presets import PRESETS, preset_table
from proxy.settings.prose import EPILOGUE, HEADER, PRESET_NOTES, PRESETS_ABOUT, PROLOGUE, TABLES
from proxy.settings.servers import ServerSettings
from proxy.settings.show import toml
from proxy.settings.sockets import SocketSettings

POOL_GROUPS: Final = (
    ("Server", ServerSettings),
    ("Which server of several", TargetSettings),
    ("Size", SizeSettings),
    ("Acquire", AcquireSettings),
    ("Time", TimingSettings),
    ("Health and age", HealthSettings),
    ("Opening and ending", OpeningSettings),
    ("State between clients", StateSettings),
    ("State that follows a client", PinSettings),
    ("Notifications", ListenSettings),
    ("Users that are looked up", LookupSettings),
    ("Servers of an unknown protocol", TcpSettings),
    ("Sockets", SocketSettings),
)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration file."""
    raw = Settings.model_json_schema()
    tidied: dict[str, Any] = _tidy(raw)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Penstock", **tidied}


def schema_text() -> str:
    """Return the schema as the file config/schema.json holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """Return docs/configuration.md."""
    parts = [PROLOGUE]
    for title, about, key in TABLES:
        parts.append(f"## {title}\n\n{about}\n")
        entries = list(_entries(key))
        if key != "PoolSettings":
            parts.append(_table(entries))
            continue
        for heading, model in POOL_GROUPS:
            group = [entry for entry in entries if entry[0] in fields(model)]
            parts.append(f"### {heading}\n\n{_table(group)}")
        parts.append(_presets())
    return "\n".join([*parts, EPILOGUE])


def _table(entries: list[tuple[str, dict[str, Any]]]) -> str:
    if any("x-ancestors" in entry for _, entry in entries):
        head = ["| key | value | default | meaning | elsewhere |", "|---|---|---|---|---|"]
        rows = [f"{_row(name, entry)} {entry.get('x-ancestors', '')} |" for name, entry in entries]
    else:
        head = ["| key | value | default | meaning |", "|---|---|---|---|"]
        rows = [_row(name, entry) for name, entry in entries]
    return "\n".join([*head, *rows]) + "\n"


def _presets() -> str:
    rows = ["| preset | values | what follows from what is written |", "|---|---|---|"]
    for name in PRESETS:
        values = ", ".join(f"`{key} = {toml(value)}`" for key, value in preset_table(name).items())
        rows.append(f"| `{name}`: {PRESET_NOTES[name][0]} | {values} | {PRESET_NOTES[name][1]} |")
    return f"### Presets\n\n{PRESETS_ABOUT}\n\n" + "\n".join(rows) + "\n"


def default_file() -> str:
    """Return config/penstock.toml: every setting as a comment, with its default."""
    lines = [HEADER]
    for title, _, key in TABLES:
        lines.append("")
        if key:
            lines.append(f"#{title.strip('`')}")
        for name, entry in _entries(key):
            lines += textwrap.wrap(
                f"{entry['description'].replace('`', '')}", 100, initial_indent="# ", subsequent_indent="# "
            )
            if "x-ancestors" in entry:
                elsewhere = f"Elsewhere: {entry['x-ancestors'].replace('`', '')}."
                lines += textwrap.wrap(elsewhere, 100, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"#{name} = {_example(name, entry)}")
            lines.append("")
        lines.pop()
    return "\n".join(lines) + "\n"


def _entries(key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    whole = schema()
    model = whole if not key else whole["$defs"][key]
    # Inherited, so it comes first in the schema; to a reader it is of the least interest.
    for name, entry in sorted(model["properties"].items(), key=lambda item: item[0].startswith("tcp_")):
        # Tables of their own are left out; a table of text is a value like others.
        if "$ref" not in entry and "$ref" not in entry.get("additionalProperties", {}):
            yield name, entry


def _tidy(node: Any) -> Any:
    """Take out what TOML does not have (null) and what says nothing (titles made from names)."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        # Under "properties" the keys are settings, which may be called anything.
        if key == "properties":
            result[key] = {name: _tidy(entry) for name, entry in value.items()}
        elif key == "anyOf":
            [only] = [choice for choice in value if choice != {"type": "null"}]
            result.update(_tidy(only))
        elif not (key == "default" and value in (None, {})) and not (key == "title" and "type" in node):
            result[key] = _tidy(value)
    return result


def _form(entry: dict[str, Any]) -> str:
    form = _plain_form(entry)
    return form.replace("number", f"number of {entry['x-unit']}", 1) if "x-unit" in entry else form


def _plain_form(entry: dict[str, Any]) -> str:
    if "x-form" in entry:
        return str(entry["x-form"])
    choices = entry.get("enum") or ([entry["const"]] if "const" in entry else None)
    if choices:
        return " or ".join(f'`"{choice}"`' for choice in choices)
    if entry["type"] == "array":
        return f"list of {_form(entry['items'])}"
    if entry["type"] == "integer":
        least, most = entry.get("minimum"), entry.get("maximum")
        return f"number{'' if least is None else f' from {least}'}{'' if most is None else f' to {most}'}"
    words = {"boolean": "true or false", "object": "table of text"}
    return words.get(entry["type"], "secret text" if entry.get("writeOnly") else "text")


def _row(name: str, entry: dict[str, Any]) -> str:
    default = f"`{toml(entry['default'])}`" if "default" in entry else ""
    if name in ("backend", "rule", "cert_file", "key_file"):
        default = "required"
    return f"| `{name}` | {_form(entry)} | {default} | {entry['description']} |"


_EXAMPLES: Final = {
    "password": "...",
    "password_file": "/run/secrets/db-password",
    "verifier": "SCRAM-SHA-256$4096:...",
    "auth_file": "/etc/penstock/users.txt",
    "hba_file": "/etc/penstock/pg_hba.conf",
    "map": "ours",
    "auth_user": "asker",
    "auth_user_password": "...",
    "auth_user_password_file": "/run/secrets/asker-password",
    "auth_database": "postgres",
    "tls_cert_file": "/etc/penstock/tls.crt",
    "tls_key_file": "/etc/penstock/tls.key",
    "tls_ca_file": "/etc/penstock/clients.crt",
    "tls_crl_file": "/etc/penstock/clients.crl",
    "tls_ciphers": "ECDHE+AESGCM",
    "pool": "app",
    "pools": ["app"],
    "max_forced": 0,
}


def _example(name: str, entry: dict[str, Any]) -> str:
    default = entry.get("default") or entry.get("examples", [entry.get("default", _EXAMPLES.get(name))])[0]
    return toml(default)


def main() -> int:
    """Write the three files below the current directory."""
    for path, text in FILES.items():
        FilePath(path).write_text(text(), encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


FILES: Final = {
    "docs/configuration.md": page,
    "config/schema.json": schema_text,
    "config/penstock.toml": default_file,
}

if __name__ == "__main__":
    sys.exit(main())
