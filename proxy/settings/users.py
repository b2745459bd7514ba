"""``[users.<name>]``: who may log in to Penstock besides the pools' own users. Reads secrets, shows none."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import PrivateAttr, SecretStr, field_validator, model_validator

from proxy.settings.knobs import Listing, SecondsOrOff, Table, knob, read_secret
from proxy.settings.mistakes import Mistake, collect

_MD5: Final = re.compile(r"md5[0-9a-f]{32}")
_EXPECTED: Final = (
    "expected what PostgreSQL keeps in pg_authid.rolpassword: "
    '"SCRAM-SHA-256$<iterations>:<salt>$<stored>:<server>" '
    'or "md5" and 32 hex digits'
)


class UserSettings(Table):
    """One user who may log in; the table's name is the user's name."""

    password: SecretStr | None = knob(None, "The user's password.")
    password_file: str | None = knob(None, "A file that holds the password.")
    verifier: SecretStr | None = knob(
        None, "In place of the password: its SCRAM-SHA-256 or md5 verifier, as in PostgreSQL's `pg_authid`."
    )
    pools: Annotated[tuple[str, ...], Listing] | None = knob(
        None, "The pools that the user may use; without it, all of them."
    )
    run_as: Literal["", "pool"] = knob(
        "",
        'Whose rights the user has on the server: its own (`""`: it logs in there with its own name and '
        "password), or "
        "`pool`: those of the pool's user.",
    )
    admin: bool = knob(False, "May use the admin console.")
    query_timeout: SecondsOrOff | None = knob(
        None, "In place of the pool's, for this user.", examples=["30s"]
    )
    transaction_timeout: SecondsOrOff | None = knob(
        None, "In place of the pool's, for this user.", examples=["30s"]
    )
    idle_transaction_timeout: SecondsOrOff | None = knob(
        None, "In place of the pool's, for this user.", examples=["30s"]
    )
    client_idle_timeout: SecondsOrOff | None = knob(
        None, "In place of the pool's, for this user.", examples=["30s"]
    )

    _secret: SecretStr | None = PrivateAttr(None)

    @field_validator("verifier")
    @classmethod
    def _is_a_verifier(cls, verifier: SecretStr | None) -> SecretStr | None:
        if verifier is not None:
            check_verifier(verifier.get_secret_value())
        return verifier

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        collect(self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Mistake]:
        given = [key for key in ("password", "password_file", "verifier") if getattr(self, key) is not None]
        if len(given) > 1:
            yield (given[-1],), f"the user has both {given[0]} and {given[-1]}: keep one of them"
        elif self.password_file is not None:
            try:
                self._secret = read_secret(self.password_file)
            except ValueError as error:
                yield ("password_file",), str(error)
        elif self.password is not None:
            if not self.password.get_secret_value():
                yield ("password",), "is empty, and no client can log in with an empty password"
            self._secret = self.password
        if self.verifier is not None and self.md5 and not self.run_as:
            yield (
                ("verifier",),
                "an md5 verifier cannot log in to the server as the user itself: give the password or a "
                "SCRAM-SHA-256 "
                'verifier, or set run_as = "pool"',
            )

    @property
    def secret(self) -> SecretStr | None:
        """The password, from ``password`` or ``password_file``; None if there is only a verifier."""
        return self._secret

    @property
    def md5(self) -> bool:
        """Whether all that is known of the password is an md5 verifier."""
        return self.verifier is not None and self.verifier.get_secret_value().startswith("md5")


def check_verifier(text: str) -> None:
    """Raise ValueError, with a sentence that repeats nothing, unless ``text`` is a verifier."""
    if _MD5.fullmatch(text):
        return
    words = re.split(r"[$:]", text)
    shape = text.count("$") == 2 and text.count(":") == 2 and len(words) == 5
    if not shape or words[0] != "SCRAM-SHA-256" or not re.fullmatch(r"[0-9]{1,9}", words[1]):
        raise ValueError(_EXPECTED)
    try:
        salt, stored, server = (base64.b64decode(word, validate=True) for word in words[2:])
    except (binascii.Error, ValueError):
        raise ValueError(f"the salt or a key is not base64; {_EXPECTED}") from None
    if int(words[1]) < 1 or not salt or len(stored) != 32 or len(server) != 32:
        raise ValueError(f"the salt is empty or a key is not 32 bytes long; {_EXPECTED}")
