"""A daemon that does nothing but remember what it was told."""

from collections.abc import Mapping
from typing import Any

from proxy.control.commands import CommandRefused, Commands


class Orders(Commands):
    """``answer`` is what it says; ``refusal``, if any, is why it does not."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.answer: Any = "done"
        self.refusal = ""

    def _note(self, *words: object) -> Any:
        if self.refusal:
            raise CommandRefused(self.refusal)
        self.heard.append(words)
        return self.answer

    def pools(self) -> Any:
        return self._note("pools")

    def holders(self, pool: str) -> Any:
        return self._note("holders", pool)

    def show(self, pool: str) -> Any:
        return self._note("show", pool)

    def set(self, pool: str, values: Mapping[str, str]) -> Any:
        return self._note("set", pool, dict(values))

    def pause(self, pool: str | None) -> Any:
        return self._note("pause", pool)

    def resume(self, pool: str | None) -> Any:
        return self._note("resume", pool)

    def drop(self, pool: str, session: int) -> Any:
        return self._note("drop", pool, session)

    def renew(self, pool: str) -> Any:
        return self._note("renew", pool)

    def clear(self, pool: str) -> Any:
        return self._note("clear", pool)

    def close(self, pool: str, force: bool, drain: bool) -> Any:
        return self._note("close", pool, force, drain)

    def reset_stats(self, pool: str) -> Any:
        return self._note("reset_stats", pool)

    async def reload(self) -> Any:
        return self._note("reload")
