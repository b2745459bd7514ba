"""``[pools.<name>.priority.<class>]``: who is served more often than others when sessions are scarce."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from proxy.settings.knobs import Listing, Table, Weight, knob
from proxy.settings.mistakes import Mistake


class PrioritySettings(Table):
    """One class of clients, and its share of the sessions that come back while clients wait."""

    weight: Weight = knob(
        1,
        "Its share against the other classes; everybody who is in none has 1. Within a class the first to "
        "come is the first served.",
    )
    users: Annotated[tuple[str, ...], Listing] = knob((), "The users in it.", examples=[["reporting"]])
    application_names: Annotated[tuple[str, ...], Listing] = knob(
        (),
        "Patterns of `application_name` in it, with `*`, `?` and `[...]`, in which capitals count. A "
        "client whose user is in a class is in that one, whatever its application is called; of several "
        "patterns that fit, the first of the file counts.",
        examples=[["web-*"]],
    )


@dataclass(frozen=True)
class Priorities:
    """Which class a client is in: 0 is everybody else, then the classes in the order of the file."""

    names: tuple[str, ...] = ()
    weights: tuple[float, ...] = (1.0,)
    users: tuple[tuple[str, int], ...] = ()
    patterns: tuple[tuple[str, int], ...] = ()

    def __call__(self, user: str, application_name: str) -> int:
        """Return the number of the client's class."""
        for name, number in self.users:
            if name == user:
                return number
        for pattern, number in self.patterns:
            if fnmatchcase(application_name, pattern):
                return number
        return 0


def priorities(classes: dict[str, PrioritySettings]) -> Priorities:
    """Return the rule that these tables amount to."""
    numbered = list(enumerate(classes.values(), start=1))
    return Priorities(
        names=tuple(classes),
        weights=(1.0, *(entry.weight for entry in classes.values())),
        users=tuple((user, number) for number, entry in numbered for user in entry.users),
        patterns=tuple(
            (pattern, number) for number, entry in numbered for pattern in entry.application_names
        ),
    )


def priority_mistakes(classes: dict[str, PrioritySettings]) -> Iterator[Mistake]:
    """Yield what is wrong between the classes; paths begin below the pool."""
    seen: dict[tuple[str, str], str] = {}
    for name, entry in classes.items():
        if not entry.users and not entry.application_names:
            yield ("priority", name), "nobody is in this class: give users or application_names"
        for key, words in (("users", entry.users), ("application_names", entry.application_names)):
            for word in words:
                other = seen.setdefault((key, word), name)
                if other != name:
                    yield ("priority", name, key), f"one of them is in priority.{other} already"
