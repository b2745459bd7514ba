"""Which settings must hold for a client's statements, as shared immutable objects.

Two clients with the same settings have the same ``Profile`` object, so that "this session is ready
for this client" is one comparison of identity on the path of a query.
"""

from typing import Final

from proxy.postgres.messages import message

# Reported settings that a client may change for itself and then finds again on every session. The
# others that servers report (server_version, is_superuser, ...) are facts of the server, not choices.
TRACKED: Final = frozenset(
    {
        "application_name",
        "client_encoding",
        "datestyle",
        "default_transaction_read_only",
        "intervalstyle",
        "search_path",
        "standard_conforming_strings",
        "timezone",
    }
)
_CAP: Final = 4096


class Profile:
    """Settings by lower-case name. Made by ``Profiles`` only."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings


class Profiles:
    """Makes profiles, each once. Forgetting one is harmless: it only costs a look at the values."""

    def __init__(self) -> None:
        self.tracked = TRACKED  # those of the reported ones that follow their clients
        self._known: dict[tuple[tuple[str, str], ...], Profile] = {}
        self.empty = self.of({})

    def of(self, settings: dict[str, str]) -> Profile:
        """The profile with exactly these settings."""
        name = tuple(sorted(settings.items()))
        profile = self._known.get(name)
        if profile is None:
            if len(self._known) >= _CAP:
                # Clients choose the values, so the number of profiles is theirs to choose too.
                self._known.clear()
            profile = self._known[name] = Profile(dict(settings))
        return profile

    def changed_if_tracked(self, profile: Profile, name: str, value: str) -> Profile:
        """The profile after the server has reported a new value of a setting that clients choose."""
        if name not in self.tracked or profile.settings.get(name) == value:
            return profile
        return self.of({**profile.settings, name: value})


def difference(have: Profile, want: Profile) -> list[tuple[str, str | None]]:
    """What to set so that ``want`` holds where ``have`` does; None puts a setting back to its default."""
    changes: list[tuple[str, str | None]] = [
        (name, None) for name in have.settings if name not in want.settings
    ]
    changes += [(name, value) for name, value in want.settings.items() if have.settings.get(name) != value]
    changes.sort(key=_turn)
    return changes


def _turn(change: tuple[str, str | None]) -> int:
    name, value = change
    if name == "client_encoding":
        return 0  # what follows is written in it
    if name == "role":
        # Under another role less may be set.
        return 1 if value is None else 3
    return 2


def set_config(changes: list[tuple[str, str | None]]) -> bytes:
    """The batch that makes these changes: bound parameters, so that no text is quoted into SQL."""
    batch = message(b"P", b"\0SELECT pg_catalog.set_config($1,$2,false)\0" + b"\0\0")
    for name, value in changes:
        batch += message(b"B", b"\0\0\0\0\0\x02" + _argument(name) + _argument(value) + b"\0\0")
        batch += message(b"E", b"\0\0\0\0\0")
    return batch + b"S\x00\x00\x00\x04"


def _argument(text: str | None) -> bytes:
    if text is None:
        return b"\xff\xff\xff\xff"
    data = text.encode("utf-8")
    return len(data).to_bytes(4, "big") + data
