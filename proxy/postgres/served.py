"""One pool as PostgreSQL sees it: which sessions serve which client, how they log in, what clients are told.

No I/O here, and nothing about how a client proves who it is.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.codec import SessionCodec
from proxy.errors import LoginFailed
from proxy.postgres import leftovers
from proxy.postgres.accounts import Account
from proxy.postgres.client_login import framed
from proxy.postgres.fanout import Fanouts
from proxy.postgres.lookup import Lookup
from proxy.postgres.profile import Profile, Profiles
from proxy.postgres.replication import (
    ReplicationSession,
    Wishes,
)
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Identity, Opened, Wire, open_session
from proxy.postgres.state import POOL_MODES, SESSION_MODE
from proxy.postgres.statements import Statements
from proxy.postgres.terms import Terms
from proxy.postgres.upkeep import Upkeep
from proxy.postgres.versions import Versions
from proxy.steps import Conversation

# What clients are told at login is remembered for so many different settings.
_WELCOMES: Final = 1024


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
        self.wire = Wire()


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
        self.statements = Statements()  # of the pool's database
        self._others: dict[str, Statements] = {}  # ... and of each, where clients choose it
        self.versions: dict[int, Versions] = {}  # by endpoint
        self.asks_role = False  # there are several servers, and it matters what each of them is
        self.replica_name = ""  # the database whose clients want a replica, unless they say otherwise
        self.fanouts: Fanouts | None = None  # where LISTEN is shared
        self.wire = Wire()  # how connections to the first endpoint are secured
        self.replicates = True  # replication connections are let in
        self.account = account
        self._database = database
        self._sslmode = sslmode
        self._parameters = tuple(parameters.items())
        self._accounts = accounts
        self.lookup: Lookup | None = None  # who finds users that are not listed
        self._proven: dict[str, Account] = {}  # those of them who have proven who they are
        self._welcomes: dict[tuple[str, str, Profile], dict[str, bytes]] = {}
        self._shown: dict[tuple[str, str, int], dict[str, str]] = {}  # what each endpoint reported last

    def shares_listening(self) -> bool:
        """LISTEN is taken over by a session that listens for all."""
        rules = self.terms.rules
        changes_hands = self.mode != SESSION_MODE
        return self.fanouts is not None and changes_hands and rules is not None and rules.shares

    def statements_of(self, database: str) -> Statements:
        """The named statements of the clients of a database."""
        if self._database:
            return self.statements
        found = self._others.get(database)
        if found is None:
            found = self._others[database] = self.statements.another()
        return found

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
        if self.lookup is None:
            self._proven = {}

    def admit(self, account: Account) -> None:
        """Somebody has proven to be this: sessions are opened as them from now on."""
        if account.name not in self._accounts and not self._is_own(account):
            self._proven[account.name] = account

    def placed(self, identity: Identity, endpoint: int) -> tuple[Identity, str]:
        """Who a session is at this endpoint that is ``identity`` at the first, and its sslmode there."""
        login = self.logins.get(endpoint)
        if login is None:
            return replace(identity, wire=self.wire), self._sslmode
        return self._elsewhere(identity, login), login.sslmode

    def begin(
        self, database: str, user: str, endpoint: int = 0, private: object | None = None
    ) -> SessionCodec:
        """The codec of a session that is about to be opened at this endpoint.

        ``private``: the guest's that it is for alone.
        """
        made = self._begin(database, user, endpoint, private)
        made.versions, made.endpoint = self.versions.get(endpoint, made.versions), endpoint
        made.server.asks = self.asks_role and private is None  # a walsender may know no SQL
        return made

    def _begin(self, database: str, user: str, endpoint: int, private: object | None) -> PgSessionCodec:
        if isinstance(private, Wishes):
            wishes = private
            return ReplicationSession(lambda: self._open(database, user, endpoint, wishes))
        made = PgSessionCodec(
            self.profiles,
            lambda: self._open(database, user, endpoint),
            self.upkeep,
            lambda reported: self._opened(database, user, endpoint, reported),
        )
        made.learn = leftovers.learn if self.terms.rules is not None else None
        return made

    def _open(
        self, database: str, user: str, endpoint: int, wishes: Wishes | None = None
    ) -> Conversation[Opened]:
        account = self.account if user == self.account.name else self._accounts.get(user)
        account = account or self._proven.get(user)
        if account is None:
            # It was listed when its client logged in, and the configuration has been read again since.
            raise LoginFailed(f'the user "{user}" is not listed any more', "28000")
        identity, sslmode = self.placed(Identity(user, database, account, self._parameters), endpoint)
        if wishes is not None:
            identity = replace(identity, parameters=wishes.parameters, replication=wishes.kind)
        elif self.marks:
            parameters = {**dict(identity.parameters), **self.marks}
            identity = replace(identity, parameters=tuple(parameters.items()))
        try:
            return (yield from open_session(identity, sslmode, self.versions.get(endpoint)))
        except LoginFailed:
            if self.lookup is not None:
                self.lookup.forget(user)
            raise

    def _opened(self, database: str, user: str, endpoint: int, reported: dict[str, str]) -> None:
        """A session is ready, and this is what it reports."""
        shown = (database, user, endpoint)
        if self._shown.get(shown, reported) != reported:
            # The server is another one, or was told to report otherwise.
            self._welcomes.clear()
        if len(self._shown) >= _WELCOMES:
            self._shown.clear()
        if self.terms.rules is not None:
            self.terms.rules.note_reported(frozenset(name.lower() for name in reported))
        self._shown[shown] = dict(reported)
        self.note(database, user, self.profiles.empty, reported)

    def _elsewhere(self, identity: Identity, login: Login) -> Identity:
        """Who a session is at another endpoint: the pool's own user and database have other names there."""
        user, database, account = identity.user, identity.database, identity.account
        if login.account is not None and account is self.account:
            user, account = login.account.name, login.account
        if self._database and database == self._database:
            database = login.database
        return Identity(user, database, account, login.parameters, wire=login.wire)

    def reported(self, database: str, user: str, profile: Profile) -> dict[str, bytes] | None:
        """What the server reports to a client with these settings, once a session has shown it: the messages
        of the parameters, by their names.
        """
        return self._welcomes.get((database, user, profile))

    def note(self, database: str, user: str, profile: Profile, reported: dict[str, str]) -> None:
        """Remember what a session reported with these settings."""
        if len(self._welcomes) >= _WELCOMES:
            self._welcomes.clear()
        self._welcomes[database, user, profile] = framed(reported)


def _everybody(user: str, application_name: str) -> int:
    return 0
