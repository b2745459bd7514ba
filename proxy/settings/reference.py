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

from proxy.settings.model import Settings
from proxy.settings.prose import EPILOGUE, HEADER, PROLOGUE, TABLES
from proxy.settings.show import toml


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
        rows = [_row(name, entry, key) for name, entry in _entries(key)]
        table = "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])
        parts.append(f"## {title}\n\n{about}\n\n{table}\n")
    return "\n".join([*parts, EPILOGUE])


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
            lines.append(f"#{name} = {_example(name, entry)}")
            lines.append("")
        lines.pop()
    return "\n".join(lines) + "\n"


def _entries(key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    whole = schema()
    model = whole if not key else whole["$defs"][key]
    # Inherited, so it comes first in the schema; to a reader it is of the least interest.
    for name, entry in sorted(model["properties"].items(), key=lambda item: item[0].startswith("tcp_")):
        if "$ref" not in entry and "additionalProperties" not in entry:
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
    return {"string": "secret text" if entry.get("writeOnly") else "text", "boolean": "true or false"}[
        entry["type"]
    ]


def _row(name: str, entry: dict[str, Any], key: str) -> str:
    default = f"`{toml(entry['default'])}`" if "default" in entry else ""
    if key == "PoolSettings" and name == "backend":
        default = "required"
    return f"| `{name}` | {_form(entry)} | {default} | {entry['description']} |"


_EXAMPLES: Final = {
    "password": "...",
    "password_file": "/run/secrets/db-password",
    "verifier": "SCRAM-SHA-256$4096:...",
    "tls_cert_file": "/etc/penstock/tls.crt",
    "tls_key_file": "/etc/penstock/tls.key",
    "tls_ca_file": "/etc/penstock/clients.crt",
    "pool": "app",
    "pools": ["app"],
    "max_forced": 0,
}


def _example(name: str, entry: dict[str, Any]) -> str:
    return toml(entry["default"] if "default" in entry else entry.get("examples", [_EXAMPLES.get(name)])[0])


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
