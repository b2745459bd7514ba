"""Durations as people write them: text with a unit, in both directions.

Knows no library. A bare number is never guessed at: some pools count in seconds, others in milliseconds,
and a value carried over from one to the other would be wrong by a factor of a thousand.
"""

import math
import re
from decimal import Decimal
from typing import Final

from proxy.pool.limits import OFF

BARE_NUMBER: Final = (
    "a duration needs a unit: some pools count in seconds and others in milliseconds, "
    'so a bare number is not accepted; write for example "30s" or "500ms"'
)
EXPECTED: Final = 'expected a duration with a unit, for example "500ms", "30s", "10m" or "1h30m"'

# Largest first: the order in which format_duration writes them and parse_duration wants them.
_UNITS: Final = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_LONGEST: Final = 10 * 365 * 86400
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*")
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+")


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` means; ``"off"`` is infinity and ``"always"`` is 0.0.

    Units are ms, s, m, h and d; they combine from large to small (``"1h30m"``). Raises ValueError with a
    sentence that never repeats the text.
    """
    text = text.strip()
    if text == "off":
        return OFF
    if text == "always":
        return 0.0
    if _NUMBER.fullmatch(text):
        raise ValueError(BARE_NUMBER)
    if not text or len(text) > 64:
        raise ValueError(EXPECTED)
    total = Decimal(0)
    order = list(_UNITS)
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None or part[2] not in order:
            raise ValueError(EXPECTED)
        order = order[order.index(part[2]) + 1 :]
        total += Decimal(part[1]) * _UNITS[part[2]]
        position = part.end()
    if total > _LONGEST:
        raise ValueError('the duration is longer than ten years; write "off" where "never" is meant')
    return float(total)


def format_duration(seconds: float) -> str:
    """Return ``seconds`` as text that parse_duration reads back to the same number.

    Raises ValueError for a negative number and for NaN: no duration means either.
    """
    if seconds == math.inf:
        return "off"
    if not seconds >= 0:
        raise ValueError("a duration is neither negative nor NaN")
    rest = Decimal(repr(float(seconds)))
    if not rest:
        return "0s"
    words = []
    for unit, size in _UNITS.items():
        if unit == "ms":
            break
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count:f}{unit}")
    if rest:
        milliseconds = f"{rest * 1000:f}"
        words.append((milliseconds.rstrip("0").rstrip(".") if "." in milliseconds else milliseconds) + "ms")
    return "".join(words)
