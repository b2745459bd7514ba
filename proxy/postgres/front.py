"""What a listener needs of PostgreSQL: how a connection becomes a client of one of the pools. No I/O here."""

from collections.abc import Callable

from proxy.caller import Caller
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.client_login import Destination, Door, log_in
from proxy.postgres.guest import PgGuest
from proxy.postgres.lookup import Lookup
from proxy.postgres.messages import error
from proxy.postgres.replication import (
    ReplicationGuest,
    replication_refused,
)
from proxy.postgres.served import Served
from proxy.postgres.startup import CancelKey
from proxy.postgres.ways import Ways
from proxy.reasons import RefusalReason
from proxy.reception import CancelTarget, Guest, Reception
from proxy.steps import Conversation


class Front(Reception):
    """One listener's PostgreSQL. ``served_for`` finds the pool for (user, database), or None."""

    def __init__(
        self,
        auth: str,
        tls: str,
        directory: Directory,
        served_for: Callable[[str, str], Served | None],
        max_message_bytes: int,
        ways: Ways | None = None,
    ) -> None:
        self._auth = auth
        self._ways = ways
        self._tls = tls
        self._directory = directory
        self._served_for = served_for
        self._cap = max_message_bytes

    def log_in(
        self,
        local: bool,
        refusal: Callable[[], tuple[str, str, str, RefusalReason] | None],
        caller: Caller | None = None,
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
                is_local=local,
                ways=self._ways,
                caller=caller or Caller(),
                lookup_of=_lookup_of,
            )
        )
        if isinstance(found, CancelKey):
            return CancelTarget(found.key)
        assert isinstance(found.pool, Served)
        found.pool.admit(found.account)
        if not found.startup.replication:
            return PgGuest(found, found.pool, self._cap)
        if not found.pool.replicates:
            raise replication_refused(found)
        served = found.pool
        key = served.key_for(found.account, found.startup.database)
        return ReplicationGuest(found, served.pool, key, served.terms)

    def turn_away(self, sqlstate: str, text: str, hint: str) -> bytes:
        """A FATAL error."""
        return error("FATAL", sqlstate, text, hint=hint)


def _check_terms(served: Destination, wishes: dict[str, str]) -> None:
    assert isinstance(served, Served)
    served.terms.check_all(wishes)


def _may_enter(served: Destination, account: Account) -> bool:
    assert isinstance(served, Served)
    return served.may_enter(account)


def _lookup_of(served: Destination) -> Lookup | None:
    assert isinstance(served, Served)
    return served.lookup
