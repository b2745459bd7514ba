"""Mistakes on their way out: from a validator to a sentence beside the key that it is about.

No sentence here or in any validator ever repeats a value: a password stands in the wrong place too easily.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

Path = tuple[str, ...]
# Where (keys from the top of the configuration) and what is wrong there.
Mistake = tuple[Path, str]

_EXAMPLES = {
    "int": "expected a whole number, for example 20",
    "bool": "expected true or false",
    "float": "expected a number",
    "string": 'expected text in quotes, for example "app"',
    "list": 'expected a list, for example ["app", "orders"]',
    "tuple": 'expected a list, for example ["app", "orders"]',
    "dict": "expected a table, for example [pools.app]",
    "model": "expected a table, for example [pools.app]",
}


class Mistakes(ValueError):
    """Several mistakes found by one validator; each path is relative to what that validator checks."""

    def __init__(self, found: Iterable[Mistake]) -> None:
        self.found = list(found)
        super().__init__("; ".join(sentence for _, sentence in self.found))


def collect(found: Iterable[Mistake]) -> None:
    """Raise Mistakes if ``found`` holds any."""
    found = list(found)
    if found:
        raise Mistakes(found)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` is probably a typo of."""
    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.55)
    return close[0] if close else None


def translate(error: dict[str, Any]) -> list[Mistake]:
    """Turn one entry of pydantic's ``ValidationError.errors()`` into mistakes.

    An unknown key gets an empty sentence: whoever knows where it came from words the suggestion.
    """
    path = tuple(str(step) for step in error["loc"] if isinstance(step, str))
    kind = str(error["type"])
    context = error.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Mistakes):
        return [((*path, *inner), sentence) for inner, sentence in cause.found]
    if kind in ("value_error", "assertion_error"):
        return [(path, str(cause))]
    if kind == "extra_forbidden":
        return [(path, "")]
    return [(path, _sentence(kind, context))]


def _sentence(kind: str, context: dict[str, Any]) -> str:
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        return f"expected {context['expected']}".replace("'", '"')
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        return f"must be at {'least' if kind.startswith('greater') else 'most'} {bound}"
    if kind == "string_too_short":
        return "is empty; leave it out where there is nothing to say"
    if kind == "string_too_long":
        return f"is too long: at most {context['max_length']} letters"
    return _EXAMPLES.get(kind.partition("_")[0], f"is not valid here ({kind})")
