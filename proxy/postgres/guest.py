"""A client of PostgreSQL between its login and its welcome: what it wants, and what it is told."""

import itertools

from proxy.codec import SessionCodec
from proxy.errors import BackendError, PoolError
from proxy.postgres import answers
from proxy.postgres.client_login import Admitted, welcome_with
from proxy.postgres.listening import Listening
from proxy.postgres.messages import parameter_status
from proxy.postgres.own import TAG, TARGET
from proxy.postgres.own_answers import choose
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.served import Served
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.terms import read_tag
from proxy.reception import Guest

# Every client gets one, across all pools: a session remembers whose left-overs it may hold.
_numbers = itertools.count(1)


class PgGuest(Guest):
    """A client that has proven who it is."""

    def __init__(self, admitted: Admitted, served: Served, cap: int) -> None:
        startup = admitted.startup
        database, user = served.key_for(admitted.account, startup.database)
        profile = served.profiles.of(startup.settings)
        codec = PgClientCodec(
            next(_numbers),
            served.mode,
            served.terms,
            served.profiles,
            profile,
            cap,
            served.statements_of(database),
        )
        wishes = served.terms.check_all(startup.wishes)
        codec.home_target = "replica" if startup.database == served.replica_name != "" else ""
        choose(codec, wishes)
        codec.terms_changed = False  # nobody has looked yet
        settings = {**startup.settings, **read_tag(wishes.get(TAG, ""))}
        # Its class is that of its login: SET application_name does not change it.
        codec.priority = served.priority_of(startup.user, settings.get("application_name", ""))
        if served.shares_listening():
            assert served.fanouts is not None
            codec.listening = Listening(codec, served.fanouts, database, user)
        super().__init__(served.pool, database, user, codec)
        self.name = startup.user
        self.key_length = startup.key_length
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
            told = parameter_status("application_name", self._application_name)
            reported = {**reported, "application_name": told}
        if self._served.asks_role and "in_hot_standby" in reported:
            # Whichever server it was that told: this is what the client gets.
            word = self.codec.target or self._served.terms.shown.get(TARGET, "")
            told = parameter_status("in_hot_standby", "on" if word == "replica" else "off")
            reported = {**reported, "in_hot_standby": told}
        return welcome_with(reported.values(), cancel_key)

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
