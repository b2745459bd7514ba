"""docs/ancestors.md: every preset is in it, and whatever it tells people to write is right."""

import re
import tomllib

import pytest

from conformance.differences import PAGE
from proxy.settings.pools import PoolSettings
from proxy.settings.presets import PRESETS

TEXT = PAGE.read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_on_the_page(preset: str) -> None:
    assert f'`preset = "{preset}"`' in TEXT


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_configuration(example: str) -> None:
    for pool in tomllib.loads(example)["pools"].values():
        assert PoolSettings.model_validate(pool).limits.max >= 1


def test_every_setting_that_is_named_exists() -> None:
    """In the second columns, in code, what looks like `name = value` or is one word with a line in it."""
    known = set(PoolSettings.model_fields) | {
        str(field.alias) for field in PoolSettings.model_fields.values() if field.alias
    }
    named = set(re.findall(r"`([a-z_]+) = ", TEXT))
    for row in re.findall(r"^\| .* \| (.*) \|$", TEXT, re.MULTILINE):
        named |= set(re.findall(r"`([a-z]+_[a-z_]+)`", row))
    strange = named - known - {"penstock_pool_busy", "penstock_pool_opened"}
    assert not strange
