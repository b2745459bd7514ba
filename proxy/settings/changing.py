"""One pool with a few settings changed, checked as if the whole configuration had been read anew.

Reads no layer: what the other settings were given by, they keep.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from proxy.errors import ConfigError
from proxy.settings.crosschecks import cross_check
from proxy.settings.descriptors import check_descriptors, raise_descriptor_limit
from proxy.settings.mistakes import Mistake, nearest, translate
from proxy.settings.model import Settings
from proxy.settings.overrides import parse_overrides
from proxy.settings.pools import PoolSettings
from proxy.settings.sources import dotted


def changed_pool(settings: Settings, name: str, values: Mapping[str, str]) -> PoolSettings:
    """The pool ``name`` with ``values`` (written as for ``--set``, below the pool) in place of its own.

    Raises ConfigError with every mistake; ValueError when a key is none.
    """
    before = settings.pools[name]
    given: dict[str, Any] = _bared(before.model_dump(by_alias=True, exclude_unset=True))
    if given.pop("password_file", None) is not None and before.dsn.password is not None:
        # The file may have gone since, and is not what changes.
        given["password"] = before.dsn.password.get_secret_value()
    changes = parse_overrides(f"{key}={value}" for key, value in values.items())
    try:
        after = PoolSettings.model_validate(_merged(given, changes))
    except ValidationError as error:
        found = [
            mistake
            for entry in error.errors(include_url=False, include_input=False)
            for mistake in translate({**entry})
        ]
        raise ConfigError([_worded(path, sentence) for path, sentence in found]) from None
    whole = settings.model_copy(update={"pools": settings.pools | {name: after}})
    needs = check_descriptors(whole, raise_descriptor_limit())
    between: list[Mistake] = [*cross_check(whole.tables()), *needs]
    if between:
        raise ConfigError([(dotted(path), sentence) for path, sentence in between])
    return after


def _bared(node: Any) -> Any:
    # As the file has them: presets look at the text of a URL.
    if isinstance(node, dict):
        return {key: _bared(value) for key, value in node.items()}
    return node.get_secret_value() if isinstance(node, SecretStr) else node


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    both = dict(low)
    for key, value in high.items():
        known = both.get(key)
        both[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return both


def _worded(path: tuple[str, ...], sentence: str) -> tuple[str, str]:
    if sentence:
        return dotted(path), sentence
    close = nearest(path[-1], PoolSettings.model_fields)
    return dotted(path), "is not a known setting" + (f"; did you mean {close}?" if close else "")
