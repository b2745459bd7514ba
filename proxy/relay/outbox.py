"""What clients are told in one turn of the loop, written at the end of that turn.

Warm. Each write wakes whoever reads it, and the machine may let that one run at once, in our place. Where
several sessions are at work several answers come in one turn, often for the same process: it is woken once
for all of them. What is long is written at once, for to keep it would cost more. Nothing stays here longer
than to the end of the turn.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

import structlog
from mypy_extensions import mypyc_attr, trait

# An answer of more bytes is written at once.
LONGEST: Final = 8192
_log = structlog.get_logger("penstock")


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class Teller(ABC):
    """Somebody with something to write."""

    @abstractmethod
    def tell_now(self) -> None:
        """Write what waits."""


class Outbox:
    """Those who have something to write at the end of this turn: one for all clients of a loop."""

    def __init__(self) -> None:
        self._tellers: list[Teller] = []
        self._spare: list[Teller] = []

    def add(self, teller: Teller) -> None:
        """This one writes at the end of the turn."""
        self._tellers.append(teller)
        if len(self._tellers) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        tellers, self._tellers = self._tellers, self._spare
        for teller in tellers:
            try:
                teller.tell_now()
            except Exception:  # noqa: BLE001 - the others must still be told
                _log.exception("client_not_told")
        tellers.clear()
        self._spare = tellers
