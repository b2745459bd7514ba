"""Where PostgreSQL meets the rest of the house: what a pool and a listener get from this protocol.

``Served`` is one pool as PostgreSQL sees it: which sessions serve which client, how they log in, and
what a client is told at its login. ``Front`` is what a listener needs. No I/O here.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.codec import CancelTarget, Conversation, Guest, Reception, SessionCodec
from proxy.errors import BackendError, LoginFailed, PoolError
from proxy.postgres import answers
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.client_login import Admitted, Destination, Door, log_in, welcome
from proxy.postgres.messages import error
from proxy.postgres.own import TAG
from proxy.postgres.own_answers import choose
from proxy.postgres.profile import Profile, Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Identity, Opened, open_session
from proxy.postgres.startup import CancelKey
from proxy.postgres.state import POOL_MODES
from proxy.postgres.terms import Terms, read_tag
from proxy.postgres.upkeep import Upkeep
from proxy.reasons import RefusalReason

# What clients are told at login is remembered for so many different settings.
_WELCOMES: Final = 1024
# Every client gets one, across all pools: a session remembers whose left-overs it may hold.
_numbers = itertools.count(1)


class Login:
    """How sessions log in at one endpoint of a pool, where that differs from the pool's first.

    ``account`` stands in for the pool's own user there (None: it is the same one), ``database`` for the
    pool's database ("": whichever the client asks for).
    """

    def __init__(
        self, account: Account | None, database: str, sslmode: str, parameters: dict[str, str]
    ) -> None:
        self.account = account
        self.database = database
        self.sslmode = sslmode
        self.parameters = tuple(parameters.items())


class Served:
    """One pool, as PostgreSQL. ``pool`` is opaque here: it is handed through to the relay.

    ``database`` is the server's; "" opens whichever the client asks for. ``account`` is the pool's own
    user. ``parameters`` go into the startup packet of each session. All this is about the first endpoint;
    ``logins`` has the others, by their numbers.

    ``marks`` are parameters of every session, whatever its endpoint. ``homogeneous``: no session is
    anybody's but the pool's own user's. ``priority_of`` gives the number of a client's class, from its user
    and its application_name.
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
        self.logins: dict[int, Login] = {}
        self.marks: dict[str, str] = {}
        self.homogeneous = False
        self.priority_of: Callable[[str, str], int] = _everybody
        self.upkeep = Upkeep()
        self.account = account
        self._database = database
        self._sslmode = sslmode
        self._parameters = tuple(parameters.items())
        self._accounts = accounts
        self._welcomes: dict[tuple[str, str, Profile], dict[str, str]] = {}
        self._shown: dict[tuple[str, str, int], dict[str, str]] = {}  # what each endpoint reported last

    def key_for(self, account: Account, database: str) -> tuple[str, str]:
        """The database and user of the sessions that serve a client: its own rights, never another's."""
        user = self.account.name if self._is_own(account) else account.name
        return self._database or database, user

    def _is_own(self, account: Account) -> bool:
        return account.name == self.account.name or account.run_as is not None

    def may_enter(self, account: Account) -> bool:
        """Whether this pool has sessions for such a user."""
        return not self.homogeneous or self._is_own(account)

    def adopt(self, account: Account, accounts: dict[str, Account]) -> None:
        """Log in to the server with these from now on; sessions that are open stay."""
        account.inherit(self.account)
        self.account, self._accounts = account, accounts

    def begin(self, database: str, user: str, endpoint: int = 0) -> SessionCodec:
        """The codec of a session that is about to be opened at this endpoint."""
        return PgSessionCodec(
            self.profiles,
            lambda: self._open(database, user, endpoint),
            self.upkeep,
            lambda reported: self._opened(database, user, endpoint, reported),
        )

    def _open(self, database: str, user: str, endpoint: int) -> Conversation[Opened]:
        account = self.account if user == self.account.name else self._accounts.get(user)
        if account is None:
            # It was listed when its client logged in, and the configuration has been read again since.
            raise LoginFailed(f'the user "{user}" is not listed any more', "28000")
        identity, sslmode = Identity(user, database, account, self._parameters), self._sslmode
        login = self.logins.get(endpoint)
        if login is not None:
            identity, sslmode = self._elsewhere(identity, login), login.sslmode
        if self.marks:
            parameters = {**dict(identity.parameters), **self.marks}
            identity = replace(identity, parameters=tuple(parameters.items()))
        return (yield from open_session(identity, sslmode))

    def _opened(self, database: str, user: str, endpoint: int, reported: dict[str, str]) -> None:
        """A session is ready, and this is what it reports."""
        shown = (database, user, endpoint)
        if self._shown.get(shown, reported) != reported:
            # The server is another one, or was told to report otherwise.
            self._welcomes.clear()
        if len(self._shown) >= _WELCOMES:
            self._shown.clear()
        self._shown[shown] = self._welcomes[database, user, self.profiles.empty] = dict(reported)

    def _elsewhere(self, identity: Identity, login: Login) -> Identity:
        """Who a session is at another endpoint: the pool's own user and database have other names there."""
        user, database, account = identity.user, identity.database, identity.account
        if login.account is not None and account is self.account:
            user, account = login.account.name, login.account
        if self._database and database == self._database:
            database = login.database
        return Identity(user, database, account, login.parameters)

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
        wishes = served.terms.check_all(startup.wishes)
        choose(codec, wishes)
        codec.terms_changed = False  # nobody has looked yet
        settings = {**startup.settings, **read_tag(wishes.get(TAG, ""))}
        # Its class is that of its login: SET application_name does not change it.
        codec.priority = served.priority_of(startup.user, settings.get("application_name", ""))
        super().__init__(served.pool, database, user, codec)
        self.name = startup.user
        self.reply, self.rest = admitted.reply, admitted.rest
        self._served = served
        self._application_name = settings.get("application_name")
        # It is free text that any server takes, and many clients have one of their own: what else a client
        # wants is tried on a session, once for all clients that want the same.
        plain = {name: value for name, value in settings.items() if name != "application_name"}
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
                may_enter=_may_enter,
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


def _check_terms(served: Destination, wishes: dict[str, str]) -> None:
    assert isinstance(served, Served)
    served.terms.check_all(wishes)


def _may_enter(served: Destination, account: Account) -> bool:
    assert isinstance(served, Served)
    return served.may_enter(account)


def _everybody(user: str, application_name: str) -> int:
    return 0
