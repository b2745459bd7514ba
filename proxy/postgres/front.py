"""Where PostgreSQL meets the rest of the house: what a pool and a listener get from this protocol.

``Served`` is one pool as PostgreSQL sees it: which sessions serve which client, how they log in, and
what a client is told at its login. ``Front`` is what a listener needs. No I/O here.
"""

import itertools
from collections.abc import Callable
from typing import Final

from proxy.codec import CancelTarget, Conversation, Guest, Reception, SessionCodec
from proxy.errors import BackendError, PoolError
from proxy.postgres import answers
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.client_login import Admitted, Destination, Door, log_in, welcome
from proxy.postgres.messages import error
from proxy.postgres.profile import Profile, Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Identity, Opened, open_session
from proxy.postgres.startup import CancelKey
from proxy.postgres.state import POOL_MODES, Terms
from proxy.reasons import RefusalReason

# What clients are told at login is remembered for so many different settings.
_WELCOMES: Final = 1024
# Every client gets one, across all pools: a session remembers whose left-overs it may hold.
_numbers = itertools.count(1)


class Served:
    """One pool, as PostgreSQL. ``pool`` is opaque here: it is handed through to the relay.

    ``database`` is the server's; "" opens whichever the client asks for. ``account`` is the pool's own
    user. ``parameters`` go into the startup packet of each session.
    """

    def __init__(
        self,
        name: str,
        pool_mode: str,
        terms: Terms,
        account: Account,
        database: str,
        sslmode: str,
        parameters: dict[str, str],
        accounts: dict[str, Account],
    ) -> None:
        self.name = name
        self.pool: object = None
        self.mode = POOL_MODES.index(pool_mode)
        self.terms = terms
        self.profiles = Profiles()
        self._account = account
        self._database = database
        self._sslmode = sslmode
        self._parameters = tuple(parameters.items())
        self._accounts = accounts
        self._welcomes: dict[tuple[str, str, Profile], dict[str, str]] = {}

    def key_for(self, account: Account, database: str) -> tuple[str, str]:
        """The database and user of the sessions that serve a client: its own rights, never another's."""
        own = account.name == self._account.name or account.run_as is not None
        return self._database or database, self._account.name if own else account.name

    def begin(self, database: str, user: str) -> SessionCodec:
        """The codec of a session that is about to be opened."""
        return PgSessionCodec(self.profiles, lambda: self._open(database, user))

    def _open(self, database: str, user: str) -> Conversation[Opened]:
        account = self._account if user == self._account.name else self._accounts[user]
        identity = Identity(user, database, account, self._parameters)
        opened = yield from open_session(identity, self._sslmode)
        key = (database, user, self.profiles.empty)
        if self._welcomes.get(key) != opened.parameters:
            # The server is another one, or was told to report otherwise.
            self._welcomes.clear()
        self._welcomes[key] = dict(opened.parameters)
        return opened

    def reported(self, database: str, user: str, profile: Profile) -> dict[str, str] | None:
        """What the server reports to a client with these settings, once a session has shown it."""
        return self._welcomes.get((database, user, profile))

    def note(self, database: str, user: str, profile: Profile, reported: dict[str, str]) -> None:
        """Remember what a session reported with these settings."""
        if len(self._welcomes) >= _WELCOMES:
            self._welcomes.clear()
        self._welcomes[database, user, profile] = dict(reported)


class PgGuest(Guest):
    """A client that has proven who it is."""

    def __init__(self, admitted: Admitted, served: Served, cap: int) -> None:
        startup = admitted.startup
        database, user = served.key_for(admitted.account, startup.database)
        profile = served.profiles.of(startup.settings)
        codec = PgClientCodec(next(_numbers), served.mode, served.terms, served.profiles, profile, cap)
        if startup.getmode is not None:
            codec.getmode = served.terms.check_getmode(startup.getmode)
        if startup.wait_timeout is not None:
            codec.wait_timeout = served.terms.check_wait_timeout(startup.wait_timeout)
            codec.wait_timeout_text = startup.wait_timeout
        super().__init__(served.pool, database, user, codec)
        self.name = startup.user
        self.reply, self.rest = admitted.reply, admitted.rest
        self._served = served
        self._application_name = startup.settings.get("application_name")
        # It is free text that any server takes, and many clients have one of their own: what else a client
        # wants is tried on a session, once for all clients that want the same.
        plain = {name: value for name, value in startup.settings.items() if name != "application_name"}
        self._plain = served.profiles.of(plain)

    def welcome(self, cancel_key: bytes) -> bytes | None:
        """AuthenticationOk, the parameters as the server reports them, the cancel key, ReadyForQuery."""
        reported = self._served.reported(self.database, self.user, self._plain)
        if reported is None:
            return None
        if self._application_name is not None:
            reported = {**reported, "application_name": self._application_name}
        return welcome(reported, cancel_key)

    def turn_away(self, error: PoolError | BackendError) -> bytes:
        """FATAL, in the words of the pool or the server."""
        pool = self._served.name
        if isinstance(error, PoolError):
            return answers.refusal(pool, error, "FATAL")
        return answers.unavailable(pool, error.sqlstate, error.message, error.fields, "FATAL")

    def learn(self, session: SessionCodec) -> None:
        """Note what a session reports that has the client's settings."""
        assert isinstance(session, PgSessionCodec)
        reported = dict(session.reported)
        if "application_name" in session.defaults:
            # What it reports is this client's; the others that want the same have their own.
            reported["application_name"] = session.defaults["application_name"]
        self._served.note(self.database, self.user, self._plain, reported)


class Front(Reception):
    """One listener's PostgreSQL. ``served_for`` finds the pool for (user, database), or None."""

    def __init__(
        self,
        auth: str,
        tls: str,
        certificate_hash: bytes | None,
        directory: Directory,
        served_for: Callable[[str, str], Served | None],
        max_message_bytes: int,
    ) -> None:
        self._auth = auth
        self._tls = tls
        self._certificate_hash = certificate_hash
        self._directory = directory
        self._served_for = served_for
        self._cap = max_message_bytes

    def log_in(
        self, local: bool, refusal: Callable[[], tuple[str, str, str, RefusalReason] | None]
    ) -> Conversation[Guest | CancelTarget]:
        """Lead one connection in. Raises Refused."""
        found = yield from log_in(
            Door(
                auth=self._auth,
                tls=self._tls,
                directory=self._directory,
                pool_of=self._served_for,
                check_terms=_check_terms,
                refusal=refusal,
                certificate_hash=self._certificate_hash,
                is_local=local,
            )
        )
        if isinstance(found, CancelKey):
            return CancelTarget(found.key)
        assert isinstance(found.pool, Served)
        return PgGuest(found, found.pool, self._cap)

    def turn_away(self, sqlstate: str, text: str, hint: str) -> bytes:
        """A FATAL error."""
        return error("FATAL", sqlstate, text, hint=hint)


def _check_terms(served: Destination, getmode: str | None, wait_timeout: str | None) -> None:
    assert isinstance(served, Served)
    if getmode is not None:
        served.terms.check_getmode(getmode)
    if wait_timeout is not None:
        served.terms.check_wait_timeout(wait_timeout)
