"""Where a shard key leads: to one endpoint of the pool, by list, by range or by hash.

Pure. The rules are asked in this order, and the first one that knows the key decides:

1. *list*: these keys, exactly as written, to this endpoint;
2. *range*: keys from a first one up to, and without, a last one. Where both bounds are whole numbers, keys
   are compared as numbers, and a key that is none is not in the range; otherwise as text, by code point;
3. *hash*: any other key, to the endpoint at ``CRC32(key in UTF-8) modulo n`` in the order of the rule
   (zlib's CRC32, the one of Ethernet and gzip: in Python ``zlib.crc32(key.encode()) % n``).

A key that no rule knows leads nowhere, and is refused: to guess would be to write to the wrong shard.
"""

import zlib
from typing import Final

_LONGEST_NUMBER: Final = 40  # digits; a longer key is text
_SHOWN: Final = 64  # letters of a client's key that an error repeats


class Span:
    """Keys from ``first`` up to, and without, ``last``; None leaves that side open.

    Raises ValueError when no key lies between them.
    """

    def __init__(self, first: str | None, last: str | None, endpoint: int) -> None:
        self.first = first
        self.last = last
        self.endpoint = endpoint
        self._low = None if first is None else whole_number(first)
        self._high = None if last is None else whole_number(last)
        bounds = [text for text in (first, last) if text is not None]
        self.is_numeric = bool(bounds) and all(whole_number(text) is not None for text in bounds)
        if first is not None and last is not None and not self._is_ordered(first, last):
            raise ValueError(
                f"no key lies between {first!r} and {last!r}: the second must be the greater one"
            )

    def _is_ordered(self, first: str, last: str) -> bool:
        if self._low is not None and self._high is not None:
            return self._low < self._high
        return first < last

    def __contains__(self, key: str) -> bool:
        if not self.is_numeric:
            return (self.first is None or self.first <= key) and (self.last is None or key < self.last)
        number = whole_number(key)
        if number is None:
            return False
        return (self._low is None or self._low <= number) and (self._high is None or number < self._high)


class Routes:
    """The rules of one pool; endpoints by their numbers.

    ``default`` serves clients that name no key, and the pool itself; None: any endpoint of the pool does.
    ``demands_key``: a client that names none is refused.
    """

    def __init__(
        self,
        pool: str,
        *,
        lists: dict[str, int] | None = None,
        spans: tuple[Span, ...] = (),
        hashed: tuple[int, ...] = (),
        default: int | None = None,
        demands_key: bool = False,
    ) -> None:
        self.pool = pool
        self.lists = lists or {}
        self.spans = spans
        self.hashed = hashed
        self.default = default
        self.demands_key = demands_key

    def endpoint_for(self, shard_key: str | None) -> int | None:
        """The number of the endpoint that this key leads to; None: any of them.

        Raises ValueError with a sentence for the client when no rule knows the key, or when it needs one.
        """
        if not shard_key:
            if self.demands_key:
                raise ValueError(
                    f'pool "{self.pool}" needs a shard key: set penstock.shard_key, for example by'
                    f" options=-c penstock.shard_key=..., or pools.{self.pool}.route.default"
                )
            return self.default
        endpoint = self.lists.get(shard_key)
        if endpoint is not None:
            return endpoint
        for span in self.spans:
            if shard_key in span:
                return span.endpoint
        if self.hashed:
            return self.hashed[zlib.crc32(shard_key.encode("utf-8", "surrogateescape")) % len(self.hashed)]
        shown = shard_key if len(shard_key) <= _SHOWN else f"{shard_key[:_SHOWN]}..."
        raise ValueError(
            f'shard key {shown!r} leads to no endpoint of pool "{self.pool}": expected one that'
            f" pools.{self.pool}.route knows"
        )


def whole_number(text: str) -> int | None:
    """The number that the text is, as people write it: digits, perhaps with a minus; None for other text."""
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _LONGEST_NUMBER:
        return None
    return int(text)
