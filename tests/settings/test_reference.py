import json
import re
import tomllib
from pathlib import Path

import pytest

from proxy.settings import Settings, read
from proxy.settings.knobs import fields
from proxy.settings.pools import PoolSettings
from proxy.settings.reference import FILES, schema

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_generated_file_is_up_to_date(path: str) -> None:
    stored = (ROOT / path).read_text(encoding="utf-8")
    assert stored == FILES[path](), "run: python -m proxy.settings.reference"


def test_the_default_file_changes_nothing() -> None:
    assert tomllib.loads(FILES["config/penstock.toml"]()) == {}


def test_every_commented_setting_of_the_default_file_is_known_and_its_default() -> None:
    text = re.sub(r"^#(?=[a-z_]+ = |\[)", "", FILES["config/penstock.toml"](), flags=re.MULTILINE)
    # These only stand there as examples: they need files, or exclude each other.
    text = re.sub(
        r"^(tls_\w+_file|tls_ciphers|password|password_file|verifier|database_url|auth_\w+|hba_file|map"
        r"|target_session_attrs|load_balance_hosts|replica_database|failover_wait) = .*$",
        "",
        text,
        flags=re.MULTILINE,
    )
    tables = tomllib.loads(text)
    # The examples of users and of the pool need a password.
    tables["users"] = {
        "reporting": {**tables["users"]["reporting"], "password": "x"},
        "app": {"password": "x"},
    }
    tables["listeners"]["main"].pop("tls_sni")
    # These exclude each other, or are no defaults.
    pool = tables["pools"]["app"]
    for key in ("endpoints", "route", "priority", "preset", "session_init", "role", "labels", "ping_script"):
        pool.pop(key)
    settings = Settings(**tables)
    plain = Settings(pools={"app": {"backend": "postgresql://app:x@db/app"}})
    assert settings.pools["app"].limits == plain.pools["app"].limits
    assert settings.listeners["main"].model_copy(update={"pool": None}) == plain.listeners["main"]
    assert (settings.http, settings.log, settings.drain_timeout) == (
        plain.http,
        plain.log,
        plain.drain_timeout,
    )


def test_the_tables_within_a_pool_of_the_default_file_are_right_too() -> None:
    text = re.sub(r"^#(?=[a-z_]+ = |\[)", "", FILES["config/penstock.toml"](), flags=re.MULTILINE)
    pool = tomllib.loads(re.sub(r"^(password|password_file) = .*$", "", text, flags=re.MULTILINE))["pools"][
        "app"
    ]
    eu = pool["endpoints"]["eu"]
    assert {"keys", "from", "to"} <= eu.keys()
    inner = {key: pool[key] for key in ("route", "priority", "session_init", "role", "labels")}
    endpoints = {"eu": {"backend": eu["backend"], "keys": eu["keys"]}}
    settings = Settings(pools={"app": {"endpoints": endpoints, **inner}}, users={"app": {"password": "x"}})
    assert settings.pools["app"].route.keys == (("eu", ("eu", "de")),)


def test_every_setting_of_a_pool_is_on_the_page_once() -> None:
    text = FILES["docs/configuration.md"]()
    pool = text[text.index("## `[pools.app]`") : text.index("### Presets")]
    for key in fields(PoolSettings):
        is_table = any(f"`[pools.app.{key}{end}" in text for end in "].")
        assert pool.count(f"\n| `{key}` |") == (0 if is_table else 1), key


def test_every_setting_is_described() -> None:
    for table in [schema(), *schema()["$defs"].values()]:
        for name, entry in table["properties"].items():
            assert entry.get("description", "").endswith((".", ")")), name


def test_the_schema_knows_no_other_keys_and_hides_secrets() -> None:
    whole = schema()
    json.dumps(whole)
    assert whole["additionalProperties"] is False
    for key in ("backend", "password"):
        assert whole["$defs"]["PoolSettings"]["properties"][key]["writeOnly"] is True
    assert whole["$defs"]["PoolSettings"]["properties"]["wait_timeout"]["default"] == "30s"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "config" / "examples").glob("*.toml")), ids=lambda file: file.name
)
def test_an_example_loads_once_its_files_are_there(file: Path, tmp_path: Path, certificate) -> None:
    text = file.read_text()
    for path in re.findall(r'"(/run/secrets/[^"]+)"', text):
        secret = tmp_path / Path(path).name
        secret.write_text("secret\n")
        text = text.replace(path, str(secret))
    text = text.replace("/etc/penstock/tls.crt", str(certificate[0])).replace(
        "/etc/penstock/tls.key", str(certificate[1])
    )
    copy = tmp_path / "penstock.toml"
    copy.write_text(text)
    loaded = read(copy, None, {})
    assert loaded.settings.pools
    assert loaded.warnings() == []
