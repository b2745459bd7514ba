"""Which settings must hold for a client's statements, as shared immutable objects.

Two clients with the same settings have the same ``Profile`` object, so that "this session is ready
for this client" is one comparison of identity on the path of a query.
"""

from typing import Final

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
        if name not in TRACKED or profile.settings.get(name) == value:
            return profile
        return self.of({**profile.settings, name: value})


def difference(have: Profile, want: Profile) -> list[tuple[str, str | None]]:
    """What to set so that ``want`` holds where ``have`` does; None puts a setting back to its default."""
    changes: list[tuple[str, str | None]] = [
        (name, None) for name in have.settings if name not in want.settings
    ]
    changes += [(name, value) for name, value in want.settings.items() if have.settings.get(name) != value]
    # The encoding first: what follows is written in it.
    changes.sort(key=lambda change: change[0] != "client_encoding")
    return changes
