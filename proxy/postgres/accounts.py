"""Who may log in, with which secret, and what was learned about it on the way.

An account is built once from the configuration; only its caches change. What is slow (PBKDF2) is asked
for by conversations and done off the event loop, once for each secret. No repr shows a secret.
"""

import hashlib
import hmac
import threading
from collections.abc import Iterable
from secrets import token_bytes
from typing import Final

from proxy.postgres.verifier import (
    ITERATIONS,
    SALT_LENGTH,
    Verifier,
    keys_of,
    mock_verifier,
    prepare,
    salt_password,
)
from proxy.steps import Conversation, Work

SALTED_CAP: Final = 8  # salted keys kept for one account: a server that changes its salt cannot fill memory


class Account:
    """One user that may log in, to us or to a server, with a password, a SCRAM verifier or an MD5 hash.

    ``password`` is the clear text and serves every method. ``verifier`` alone serves SCRAM and clear-text
    logins of clients, and once one of them has proven its password, ``client_key`` serves logins to a
    server that holds the same verifier. ``md5`` (32 hex digits, with or without PostgreSQL's "md5" before
    them) serves MD5 on both sides, and clear-text logins of clients. ``pools`` are the names of the pools
    that may be used (None: any); ``run_as`` is the user that its sessions run as (None: itself).
    Raises ValueError when ``md5`` is not such a hash, or the password is empty.
    """

    def __init__(
        self,
        name: str,
        *,
        password: str | None = None,
        verifier: Verifier | None = None,
        md5: str | None = None,
        pools: frozenset[str] | None = None,
        run_as: str | None = None,
        admin: bool = False,
        is_mock: bool = False,
    ) -> None:
        if password == "":
            raise ValueError("an empty password lets nobody in")
        self.name = name
        self.password = password
        self.verifier = verifier
        self.md5 = None if md5 is None else _md5_digits(md5)
        self.pools = pools
        self.run_as = run_as
        self.admin = admin
        self.is_mock = is_mock  # stands in for a user that does not exist: nothing may let it in
        self.client_key: bytes | None = None
        self._derived: Verifier | None = None
        self._salted: dict[tuple[bytes, int], bytes] = {}
        self._slow_work = threading.Lock()

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    def may_use(self, pool: str) -> bool:
        """Whether this account is let into the pool of that name."""
        return self.pools is None or pool in self.pools

    def md5_hash(self, user: str = "") -> str | None:
        """The hex digits that an MD5 login as ``user`` (or as this one) starts from, or None: it cannot."""
        user = user or self.name
        if self.password is not None:
            data = self.password.encode("utf-8", "surrogateescape") + user.encode("utf-8")
            return hashlib.md5(data, usedforsecurity=False).hexdigest()
        return self.md5 if user == self.name else None

    def has_secret(self) -> bool:
        """Whether anything is known that a client could show."""
        return self.password is not None or self.verifier is not None or self.md5 is not None

    def same_secret(self, other: "Account") -> bool:
        """Whether the same proves both."""
        mine = (self.password, self.verifier, self.md5)
        return mine == (other.password, other.verifier, other.md5)

    def speaks_scram(self) -> bool:
        """Whether a client's SCRAM exchange can be checked against this account."""
        return self.verifier is not None or self.password is not None

    def scram_verifier(self) -> Conversation[Verifier]:
        """The verifier to check a client's proof with: the one given, or derived from the password once."""
        found = self.verifier or self._derived
        if found is None:
            found = yield Work(self._derive)
        return found

    def salted_password(self, salt: bytes, iterations: int) -> Conversation[bytes]:
        """The salted password for a server's salt and iteration count; computed once for each pair."""
        found = self._salted.get((salt, iterations))
        if found is None:
            found = yield Work(lambda: self._salt(salt, iterations))
        return found

    def accepts(self, presented: bytes) -> bool:
        """Whether a password in clear text is this account's. Slow: run it in Work.

        A wrong password costs one PBKDF2 whatever the account keeps, so that time tells nothing about it.
        """
        if self.password is not None and hmac.compare_digest(prepare(presented), prepare(self.password)):
            return True
        digest = hashlib.md5(presented + self.name.encode("utf-8"), usedforsecurity=False).hexdigest()
        if self.md5 is not None and hmac.compare_digest(digest, self.md5):
            return True
        against = self.verifier or mock_verifier(self.name, b"")
        client_key, _ = keys_of(salt_password(presented, against.salt, against.iterations))
        if self.verifier is None or not self.verifier.matches(client_key):
            return False
        self.client_key = client_key
        return True

    def inherit(self, old: "Account") -> None:
        """Take over what was learned about the same secret, so that a reload forgets nothing."""
        if self.verifier is not None and self.verifier == old.verifier:
            self.client_key = old.client_key
        if self.password is not None and self.password == old.password:
            self._derived = old._derived
            self._salted = dict(old._salted)

    # These two run in worker threads, one at a time for one account: of a storm of logins the first does the
    # work, and the others find it done.

    def _derive(self) -> Verifier:
        with self._slow_work:
            if self._derived is None:
                self._derived = Verifier.make(self.password or "")
            return self._derived

    def _salt(self, salt: bytes, iterations: int) -> bytes:
        with self._slow_work:
            found = self._salted.get((salt, iterations))
            if found is None:
                found = salt_password(self.password or "", salt, iterations)
                if len(self._salted) >= SALTED_CAP:
                    self._salted.clear()
                self._salted[salt, iterations] = found
            return found


class Directory:
    """The accounts that one configuration lists, and stand-ins for all users that it does not.

    ``previous`` is the directory that this one replaces: its mock secret and what its accounts learned
    live on, so that a reload neither changes a stand-in nor forgets a key.
    """

    def __init__(self, accounts: Iterable[Account], previous: "Directory | None" = None) -> None:
        self._accounts = {account.name: account for account in accounts}
        self._names = sorted(self._accounts)
        self._secret: bytes = token_bytes(32) if previous is None else previous._secret
        if previous is not None:
            for account in self._accounts.values():
                old = previous.find(account.name)
                if old is not None:
                    account.inherit(old)

    def find(self, user: str) -> Account | None:
        """The account of a user, or None."""
        return self._accounts.get(user)

    def stand_in(self, user: str, like: tuple[int, int] | None = None) -> Account:
        """An account for a user that cannot log in: it behaves as one of the real ones, and nothing fits it.

        Which one it imitates depends on the name alone, so that asking again gives the same picture; or it
        is like those of a server: iterations and bytes of salt of their verifiers.
        """
        if like is not None:
            return Account(user, verifier=mock_verifier(user, self._secret, *like), is_mock=True)
        place = hmac.digest(self._secret, b"imitate" + user.encode("utf-8", "replace"), "sha256")
        model = None
        if self._names:
            model = self._accounts[self._names[int.from_bytes(place, "big") % len(self._names)]]
        shape = None if model is None else model.verifier
        iterations, salt_length = (
            (ITERATIONS, SALT_LENGTH) if shape is None else (shape.iterations, len(shape.salt))
        )
        md5 = None
        if model is None or model.md5_hash() is not None:
            md5 = hmac.digest(self._secret, b"md5" + user.encode("utf-8", "replace"), "sha256").hex()[:32]
        verifier = mock_verifier(user, self._secret, iterations, salt_length)
        return Account(user, verifier=verifier, md5=md5, is_mock=True)


def _md5_digits(text: str) -> str:
    digits = text.removeprefix("md5").lower()
    if len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        raise ValueError("an MD5 hash is 32 hex digits of md5(password + user), as pg_shadow holds them")
    return digits
