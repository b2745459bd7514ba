"""The commands that a running daemon takes: the interface behind them, and what each must be told.

Answers are plain JSON values: a sentence for what was done, lists and tables for what was looked at.
A command either does the whole of what it says or refuses with a sentence and changes nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.errors import ProxyError

Answer = Any  # what json can write


class CommandRefused(ProxyError):
    """The command was not done; the message is the sentence for whoever gave it."""


class Commands(ABC):
    """What a daemon does when told. Every method may raise CommandRefused, and then has changed nothing."""

    @abstractmethod
    def pools(self) -> Answer:
        """Every pool at this moment: a list of tables."""

    @abstractmethod
    def holders(self, pool: str) -> Answer:
        """Who holds the sessions of a pool: a list of tables."""

    @abstractmethod
    def show(self, pool: str) -> Answer:
        """The settings of a pool that can be changed while it runs: a table."""

    @abstractmethod
    def set(self, pool: str, values: Mapping[str, str]) -> Answer:
        """Change settings of a pool, all or none, until the next reload or restart."""

    @abstractmethod
    def pause(self, pool: str | None) -> Answer:
        """Grant nothing more, in one pool or in all: what runs may finish, who asks waits."""

    @abstractmethod
    def resume(self, pool: str | None) -> Answer:
        """Undo a pause."""

    @abstractmethod
    def drop(self, pool: str, session: int) -> Answer:
        """Close one session, whoever holds it."""

    @abstractmethod
    def renew(self, pool: str) -> Answer:
        """Replace every session: an idle one at once, a busy one when it comes home."""

    @abstractmethod
    def clear(self, pool: str) -> Answer:
        """Close the idle sessions."""

    @abstractmethod
    def close(self, pool: str, force: bool, drain: bool) -> Answer:
        """Close a pool until the restart; refused while it is in use.

        Unless ``force`` cuts whoever holds a session, or ``drain`` gives them ``drain_timeout`` before that.
        """

    @abstractmethod
    def reset_stats(self, pool: str) -> Answer:
        """Begin the statistics since the last reset anew. Metrics go on."""

    @abstractmethod
    async def reload(self) -> Answer:
        """Read the configuration again."""


@dataclass(frozen=True)
class Command:
    """One command: what it takes (name and kind of each argument), and how it is passed on."""

    call: Callable[[Commands, dict[str, Any]], Any]
    needs: Mapping[str, type] = field(default_factory=dict)
    takes: Mapping[str, type] = field(default_factory=dict)


_POOL: Final = {"pool": str}

COMMANDS: Final[Mapping[str, Command]] = {
    "pools": Command(lambda to, _: to.pools()),
    "holders": Command(lambda to, said: to.holders(said["pool"]), _POOL),
    "show": Command(lambda to, said: to.show(said["pool"]), _POOL),
    "set": Command(lambda to, said: to.set(said["pool"], said["values"]), {**_POOL, "values": dict}),
    "pause": Command(lambda to, said: to.pause(said.get("pool")), takes=_POOL),
    "resume": Command(lambda to, said: to.resume(said.get("pool")), takes=_POOL),
    "drop": Command(lambda to, said: to.drop(said["pool"], said["session"]), {**_POOL, "session": int}),
    "renew": Command(lambda to, said: to.renew(said["pool"]), _POOL),
    "clear": Command(lambda to, said: to.clear(said["pool"]), _POOL),
    "close": Command(
        lambda to, said: to.close(said["pool"], said.get("force", False), said.get("drain", False)),
        _POOL,
        {"force": bool, "drain": bool},
    ),
    "reset-stats": Command(lambda to, said: to.reset_stats(said["pool"]), _POOL),
    "reload": Command(lambda to, _: to.reload()),
}


async def obey(commands: Commands, name: str, said: Any) -> Answer:
    """Do the command ``name`` with the arguments ``said``, as they came off the wire.

    Raises CommandRefused, also when there is no such command or it is told something else than it takes.
    """
    command = COMMANDS.get(name)
    if command is None:
        raise CommandRefused(f"there is no such command; the commands are: {', '.join(COMMANDS)}")
    _check(name, command, said)
    answer = command.call(commands, said)
    return await answer if isinstance(answer, Awaitable) else answer


def _check(name: str, command: Command, said: Any) -> None:
    known = {**command.needs, **command.takes}
    if not isinstance(said, dict) or not said.keys() <= known.keys():
        expected = ", ".join(known) or "nothing"
        raise CommandRefused(f"{name} takes a JSON object with: {expected}")
    for key, kind in known.items():
        if key not in said and key not in command.needs:
            continue
        # type(), not isinstance(): true is no session's number.
        if type(said.get(key)) is not kind:
            raise CommandRefused(f"{name} needs {key}: {_KINDS[kind]}")
    values = said.get("values", {})
    if not all(isinstance(value, str) for value in values.values()):
        raise CommandRefused(f"{name}: every value is text, written as in the configuration")


_KINDS: Final = {str: "text", int: "a whole number", bool: "true or false", dict: "a table of text"}
