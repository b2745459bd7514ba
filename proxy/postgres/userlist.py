"""Users and their secrets in a file, one on each line, in the format of PgBouncer's ``auth_file``.

    "name" "secret"        ; a comment

A quote inside is doubled; what follows the second string is ignored. A secret is a password in clear text,
``md5`` and 32 hex digits, or a SCRAM-SHA-256 verifier as in pg_authid; an empty one belongs to a user who
needs none (a certificate, a peer). Reads text, opens nothing, and never repeats any of it in an error.
"""

import re
from typing import Final

from proxy.postgres.accounts import Account
from proxy.postgres.lines import WrongLines
from proxy.postgres.verifier import Verifier

NAME_CAP: Final = 63  # bytes that PostgreSQL looks at
SECRET_CAP: Final = 4096  # letters
FORM: Final = 'expected "name" "secret", both in double quotes'

_STRING: Final = re.compile(r'"((?:[^"]|"")*)"')
_MD5: Final = re.compile(r"md5[0-9a-f]{32}")
_SCRAM: Final = "SCRAM-SHA-256$"


class Listed:
    """One user of a file, and the line that it stands on. ``secret`` is "" for a user who has none."""

    def __init__(self, name: str, secret: str, line: int) -> None:
        self.name = name
        self.secret = secret
        self.line = line

    def __repr__(self) -> str:
        return f"Listed({self.name!r}, line {self.line})"


def read_userlist(text: str) -> dict[str, Listed]:
    """The users by name. Raises WrongLines."""
    users: dict[str, Listed] = {}
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.strip()
        if not words or words.startswith(";"):
            continue
        try:
            name, secret = _pair(words)
            if name in users:
                raise ValueError(f"is the same user as line {users[name].line}: keep one of them")
            users[name] = Listed(name, secret, number)
        except ValueError as error:
            wrong.append((number, str(error)))
    if wrong:
        raise WrongLines(wrong)
    return users


def _pair(line: str) -> tuple[str, str]:
    """Name and secret of one line. Raises ValueError with a sentence."""
    first = _STRING.match(line)
    second = _STRING.match(line[first.end() :].lstrip()) if first is not None else None
    if first is None or second is None:
        raise ValueError(FORM)
    name, secret = (found.group(1).replace('""', '"') for found in (first, second))
    if not 1 <= len(name.encode("utf-8", "surrogateescape")) <= NAME_CAP or "\0" in name:
        raise ValueError(f"a name has 1 to {NAME_CAP} bytes")
    if len(secret) > SECRET_CAP or "\0" in secret:
        raise ValueError(f"a secret has at most {SECRET_CAP} letters, and no zero byte")
    if secret.startswith(_SCRAM):
        Verifier.parse(secret)
    return name, secret


def account_of(name: str, secret: str, pools: frozenset[str] | None = None) -> Account:
    """The account of a user with a secret in any of its three forms. Raises ValueError with a sentence."""
    if secret.startswith(_SCRAM):
        return Account(name, verifier=Verifier.parse(secret), pools=pools)
    if _MD5.fullmatch(secret):
        return Account(name, md5=secret, pools=pools)
    return Account(name, password=secret or None, pools=pools)
