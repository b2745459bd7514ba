"""How a pool finds users that are listed nowhere: by asking its server (``auth_query``)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import PrivateAttr, SecretStr

from proxy.settings.knobs import SecondsOrOff, Table, knob, read_secret, statement
from proxy.settings.mistakes import Mistake

if TYPE_CHECKING:
    from proxy.settings.pools import PoolSettings

_LOOKUPS: Final = ("auth_query", "auth_user", "auth_user_password", "auth_user_password_file")


class LookupSettings(Table):
    """How users are found on the server."""

    auth_query: Annotated[str, statement("default")] | None = knob(
        None,
        "Who is not listed is looked up on the server, and runs as itself in this pool: SQL that returns the "
        "name and the secret of the user `$1`. `default` asks pg_authid, which takes a superuser.",
        examples=["SELECT * FROM penstock.user_lookup($1)"],
    )
    auth_user: str | None = knob(None, "Who asks; without it the pool's own user.", min_length=1)
    auth_user_password: SecretStr | None = knob(None, "The password of `auth_user`.")
    auth_user_password_file: str | None = knob(None, "A file that holds this password.")
    auth_database: str | None = knob(
        None, "The database that is asked; without it the pool's own.", min_length=1
    )
    auth_cache: SecondsOrOff = knob(
        "10s",
        "How long an answer is remembered; a password that was changed on the server is known after that.",
    )

    _auth_secret: SecretStr | None = PrivateAttr(None)

    @property
    def auth_secret(self) -> SecretStr | None:
        """The password of ``auth_user``, from wherever it was given."""
        return self._auth_secret

    def _lookup_mistakes(self) -> Iterator[Mistake]:
        """Set the password, and yield what is wrong with it."""
        if self.auth_user_password is not None and self.auth_user_password_file is not None:
            yield ("auth_user_password_file",), "the password is given twice: keep one of both"
        elif self.auth_user_password_file is not None:
            try:
                self._auth_secret = read_secret(self.auth_user_password_file)
            except ValueError as error:
                yield ("auth_user_password_file",), str(error)
        elif self.auth_user_password is not None:
            if not self.auth_user_password.get_secret_value():
                yield ("auth_user_password",), "is empty; leave it out if the server asks for no password"
            self._auth_secret = self.auth_user_password


def lookup_mistakes(pool: "PoolSettings") -> Iterator[Mistake]:
    """Yield what does not fit the rest of the pool."""
    if pool.protocol != "postgres":
        for key in _LOOKUPS:
            if getattr(pool, key) is not None:
                yield (key,), f"is for PostgreSQL, and the servers of this pool speak {pool.protocol}"
        return
    query = pool.auth_query
    if query is None:
        for key in (*_LOOKUPS[1:], "auth_database"):
            if getattr(pool, key) is not None:
                yield (key,), 'has no effect without auth_query: add auth_query = "default"'
        return
    if query != "default" and "$1" not in query:
        yield ("auth_query",), "lacks $1, in whose place the name of the user is asked for"
    if pool.auth_secret is not None and pool.auth_user is None:
        yield ("auth_user",), "is required with its password: whose is it?"
    if pool.homogeneous:
        yield (
            ("auth_query",),
            "finds users who run as themselves, and the pool is homogeneous: set homogeneous = false",
        )
