"""Asks a pool's server for users that are listed nowhere, and remembers the answers for a while.

The session for it is the pool's, within its bound, under a key that no client can name; it is given back
whole, or not at all, whatever becomes of the client that the question is about. A lookup is bounded in time,
and so is how many there are at once. What is logged is that a lookup failed and why, never a secret; the
client sees what it would see with a wrong password.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Final

import structlog

from proxy.codec import SessionCodec
from proxy.errors import ProxyError
from proxy.pool.limits import OFF, TIMEDWAIT
from proxy.pool.pool import Pool
from proxy.pool.session import Key, Session
from proxy.postgres.accounts import Account
from proxy.postgres.lookup import Lookup, ask, found, parameters
from proxy.postgres.profile import Profiles
from proxy.postgres.served import Served
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Identity, open_session
from proxy.reasons import DropReason
from proxy.relay.backend import SocketBackend
from proxy.tasks import spawn

CLASS: Final = "auth_query"  # of the sessions, for those who look at the pool
PATIENCE: Final = 10.0  # seconds for a lookup: the queue, the login of its session and the query
QUERY_PATIENCE: Final = 5.0  # seconds for the query alone; the server ends it
AT_ONCE: Final = 3  # lookups that hold or wait for a session
MOST_WAITING: Final = 200  # users that are being looked up; who comes on top is not found
MOST_KEPT: Final = 10_000  # answers of either kind that are remembered
SOON: Final = 1.0  # seconds: an answer as young as this is not asked for again

_log = structlog.get_logger("penstock")


@dataclass(frozen=True)
class Terms:
    """What is asked, and as whom: ``account`` None is the pool's own. ``keep`` is in seconds."""

    statement: str
    account: Account | None
    user: str
    database: str
    keep: float

    def __repr__(self) -> str:
        return f"Terms(user={self.user!r}, database={self.database!r})"


class Answer:
    """What the server said of one user, and when."""

    def __init__(self, account: Account | None, asked: float) -> None:
        self.account = account
        self.asked = asked


class Lookups(Lookup):
    """The lookups of one pool. ``terms`` may change while it runs; None: nobody is looked up."""

    def __init__(self, name: str, served: Served) -> None:
        self.name = name
        self.terms: Terms | None = None
        self._served = served
        self._keys: list[Key] = []  # every one there was: a session of the last may still be opening
        self._found: dict[str, Answer] = {}
        self._not_found: dict[str, Answer] = {}
        self._under_way: dict[str, asyncio.Task[Account | None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def adopt(self, terms: Terms | None) -> None:
        """Go by these terms from now on."""
        before, self.terms = self.terms, terms
        if terms is not None:
            self._served.lookup = self
            if before is None or (before.user, before.database) != (terms.user, terms.database):
                self._keys.append(Key(terms.database, terms.user, CLASS))
        else:
            self._served.lookup = None
        if before != terms:
            self._found, self._not_found = {}, {}

    # -- as a lookup ----------------------------------------------------------------------------

    async def find(self, user: str) -> Account | None:
        """The user's account, as the server has just said, or said not long ago."""
        terms = self.terms
        kept = self._found.get(user) or self._not_found.get(user)
        if kept is not None and terms is not None and time.monotonic() - kept.asked < terms.keep:
            return kept.account
        return await self._asked(user)

    async def find_again(self, user: str) -> Account | None:
        """Ask again, unless the answer is quite new."""
        kept = self._found.get(user) or self._not_found.get(user)
        if kept is not None and time.monotonic() - kept.asked < SOON:
            return kept.account
        return await self._asked(user)

    def forget(self, user: str) -> None:
        """Ask again when the user comes next."""
        kept = self._found.get(user)
        if kept is not None:
            kept.asked = -OFF

    async def _asked(self, user: str) -> Account | None:
        """One question at a time for each user; whoever wants to know meanwhile hears its answer."""
        task = self._under_way.get(user)
        if task is None:
            if len(self._under_way) >= MOST_WAITING:
                _log.warning("auth_query_refused", pool=self.name, detail="too many users are looked up")
                return None
            task = self._under_way[user] = spawn(self._look_up(user), f"auth_query of pool {self.name}")
        # Whoever asked may go; the question is asked to its end, so that the session is in order.
        return await asyncio.shield(task)

    # -- the question ---------------------------------------------------------------------------

    async def _look_up(self, user: str) -> Account | None:
        try:
            async with asyncio.timeout(PATIENCE), self._gate:
                account = found(user, await self._query(user), self.name)
        except TimeoutError:
            detail = f"no answer within {PATIENCE:g}s: is every session of the pool held?"
            _log.error("auth_query_failed", pool=self.name, detail=detail)
            return None
        except (ProxyError, OSError) as error:
            _log.error("auth_query_failed", pool=self.name, detail=str(error))
            return None
        finally:
            self._under_way.pop(user, None)
        return self._remember(user, account)

    async def _query(self, user: str) -> str | None:
        """Ask the server. Raises ProxyError and OSError."""
        terms, pool = self.terms, self._served.pool
        if terms is None:
            return None
        assert isinstance(pool, Pool)
        session = await pool.acquire(self._keys[-1], TIMEDWAIT, PATIENCE)
        backend = session.backend
        assert isinstance(backend, SocketBackend)
        try:
            codec = backend.codec
            assert isinstance(codec, PgSessionCodec)
            session.begun_at = OFF  # this ends a transaction that was begun ahead
            secret: str | None = await backend.converse(ask(codec, terms.statement, user))
        except (ProxyError, OSError):
            pool.recover(session)
            raise
        except BaseException:
            pool.drop(session, DropReason.UNCERTAIN)
            raise
        pool.release(session)
        return secret

    def _remember(self, user: str, account: Account | None) -> Account | None:
        """Keep an answer; one that says the same as before keeps what was learned about the secret."""
        before = self._found.pop(user, None)
        self._not_found.pop(user, None)
        now = time.monotonic()
        if account is None:
            _put(self._not_found, user, Answer(None, now))
            return None
        known = before.account if before is not None else None
        if known is not None and known.same_secret(account):
            account = known
        if account.verifier is not None:
            self.shape = account.verifier.iterations, len(account.verifier.salt)
        _put(self._found, user, Answer(account, now))
        return account

    # -- its sessions ---------------------------------------------------------------------------

    def owns(self, session: Session) -> bool:
        """Whether the session is opened for lookups."""
        return session.key in self._keys

    def begin(self, session: Session) -> SessionCodec:
        """The codec of such a session: it is told nothing of any client, nor what the pool's others are."""
        account = self.terms.account if self.terms is not None else None
        account = account or self._served.account
        endpoint = session.endpoint.number
        identity = Identity(account.name, session.key.database, account)
        placed, sslmode = self._served.placed(identity, endpoint)
        own = replace(placed, parameters=parameters(QUERY_PATIENCE))
        versions = self._served.versions.get(endpoint)
        codec = PgSessionCodec(Profiles(), lambda: open_session(own, sslmode, versions))
        codec.versions = versions or codec.versions
        return codec


def _put(answers: dict[str, Answer], user: str, answer: Answer) -> None:
    while len(answers) >= MOST_KEPT:
        del answers[next(iter(answers))]
    answers[user] = answer
