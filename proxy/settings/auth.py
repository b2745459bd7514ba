"""How clients prove who they are at a listener, beyond ``auth``: files of users and rules, maps of names.

Reads the files that it names, and shows nothing of them; a mistake in one is told by its line.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, PrivateAttr, model_validator

from proxy.postgres.hba import Rules
from proxy.postgres.hba_reading import read_hba
from proxy.postgres.lines import WrongLines
from proxy.postgres.mapping import Entry, Mapping
from proxy.postgres.userlist import Listed, read_userlist
from proxy.settings.knobs import Table, knob
from proxy.settings.mistakes import Mistake, collect

_LONGEST_FILE: Final = 16 * 2**20  # bytes
_MOST_LINES: Final = 20  # wrong lines that are told of one file
AUTH_FILE: Final = (
    'A file of users, one `"name" "secret"` on each line, as PgBouncer\'s: clear text, md5 or SCRAM-SHA-256. '
    "Each runs as itself. `[users]` wins over it."
)


class AuthSettings(Table):
    """Who may log in at a listener, and how."""

    auth_file: str | None = knob(None, AUTH_FILE + " Here: in place of the one for all listeners.")
    hba_file: str | None = knob(
        None,
        "A file of rules in the format of `pg_hba.conf`, in place of `auth`: the first that fits the "
        "connection says how the client proves who it is; where none fits, it is refused.",
    )
    hba_trust: Literal["local", "any"] = knob(
        "local",
        "Whom a rule of `hba_file` may trust: clients on this machine only, or, with `any`, whomever the "
        "rule names.",
    )
    map: str | None = knob(
        None,
        "Whom a client may log in as whose certificate, or the operating system, names it otherwise: one of "
        "`[maps]`. Without it both names are the same.",
    )
    clientcert: Literal["off", "verify-full"] = knob(
        "off",
        "`verify-full`: besides the proof of `auth`, the client's certificate must name the user.",
    )
    cert_name: Literal["cn", "san-dns", "san-email", "san-uri"] = knob(
        "cn",
        "Where a certificate names the user: the common name of its subject, or an alternative name.",
    )

    _userlist: dict[str, Listed] | None = PrivateAttr(None)
    _rules: Rules | None = PrivateAttr(None)

    @property
    def userlist(self) -> dict[str, Listed] | None:
        """The users in ``auth_file``; None where there is no such file."""
        return self._userlist

    @property
    def rules(self) -> Rules | None:
        """The rules in ``hba_file``; None where there is no such file."""
        return self._rules

    def _file_mistakes(self) -> Iterator[Mistake]:
        """Read the files, and yield what is wrong with them."""
        if self.auth_file is not None:
            try:
                self._userlist = read_userlist(read_text(self.auth_file))
            except ValueError as error:
                yield from file_mistakes("auth_file", error)
        if self.hba_file is not None:
            try:
                self._rules = read_hba(read_text(self.hba_file))
            except ValueError as error:
                yield from file_mistakes("hba_file", error)


def _entries(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError('expected a table, for example { "web.internal" = "app" }')
    listed: dict[str, tuple[str, ...]] = {}
    for outer, users in value.items():
        users = (users,) if isinstance(users, str) else users
        if not isinstance(users, list | tuple) or not all(isinstance(user, str) for user in users):
            raise ValueError("a user, or a list of users, stands behind each name, in quotes")
        listed[outer] = tuple(users)
    return listed


class MapSettings(Table):
    """Names outside, and whom they may log in as: the table's name is what `map` refers to."""

    entries: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_entries)] = knob(
        {},
        "Who may be whom, as in `pg_ident.conf`: a name that begins with a slash is a regular expression, "
        "and `\\1` in a user is what its first group found; `all` is any user.",
        examples=[{"web.internal": ["app"], "/^(.*)@example\\.com$": ["\\1"]}],
    )

    _mapping: Mapping | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        collect(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Mistake]:
        entries = []
        for number, (outer, users) in enumerate(self.entries.items(), start=1):
            try:
                entries.append(Entry(outer, users))
            except ValueError as error:
                yield ("entries",), f"entry {number}: {error}"
        if not self.entries:
            yield ("entries",), "is empty, so nobody could log in by this map"
        self._mapping = Mapping("", entries)

    @property
    def mapping(self) -> Mapping:
        """The map itself."""
        assert self._mapping is not None
        return self._mapping


def read_text(path: str) -> str:
    """The text of a file of the login. Raises ValueError with a sentence that names neither text nor path."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise ValueError(f"the file cannot be read ({reason}); expected the path of a file") from None
    if len(raw) > _LONGEST_FILE:
        raise ValueError(f"the file is larger than {_LONGEST_FILE} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None


def file_mistakes(key: str, error: ValueError) -> Iterator[Mistake]:
    """What is wrong with a file, at the setting that names it."""
    if not isinstance(error, WrongLines):
        yield (key,), str(error)
        return
    sentences = error.sentences()
    for sentence in sentences[:_MOST_LINES]:
        yield (key,), sentence
    if len(sentences) > _MOST_LINES:
        yield (key,), f"and {len(sentences) - _MOST_LINES} more lines are wrong"
