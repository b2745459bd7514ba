"""What clients may take their time for: one look at each client, now and then, instead of a timer for each.

Cold: the sweep of a listener calls ``look`` for every client of a pool that has any of these limits. It costs
the warm path nothing: what a client does is told by counts that are kept anyway. So a limit holds to within
one sweep (``interval``). A query that takes too long is cancelled by the server itself, again if need be;
only where the server does not answer is the session taken away. Everything else ends the client.
"""

from typing import Final

import structlog

from proxy.pool.limits import OFF, Limits
from proxy.pool.session import BUSY
from proxy.reasons import CloseReason, DropReason, TimeoutReason
from proxy.relay.client import Client
from proxy.relay.link import READY, WAITING
from proxy.relay.stopwatch import Timeouts

_log = structlog.get_logger("penstock")
_SHORTEST: Final = 0.1  # seconds between two sweeps, at least
_NOBODY: Final = 0.25  # ... and while nobody is there: who comes may have less time than those before
_LONGEST: Final = 1.0  # ... and at most: they look for clients that have hung up, too
_CANCEL_AGAIN: Final = 1.0  # seconds between two cancel requests for one query
_PATIENCE: Final = 5.0  # seconds that the server has to end a query that was cancelled
_SPOKEN: Final = "the query ran for longer than query_timeout"


_AS_THE_POOL: Final = Timeouts()
# Of a query, a transaction, an idle transaction, an idle client: seconds.
Allowed = tuple[float, float, float, float]
_EVERYTHING: Final[Allowed] = (OFF, OFF, OFF, OFF)


def allowed_for(limits: Limits, own: Timeouts) -> Allowed:
    """What a user of this pool may take its time for."""
    allowed = (
        limits.query_timeout if own.query is None else own.query,
        limits.transaction_timeout if own.transaction is None else own.transaction,
        limits.idle_transaction_timeout if own.idle_transaction is None else own.idle_transaction,
        limits.client_idle_timeout if own.client_idle is None else own.client_idle,
    )
    return _EVERYTHING if allowed == _EVERYTHING else allowed


def interval(shortest: float) -> float:
    """Seconds until the next sweep, where this is the shortest of the limits."""
    return max(_SHORTEST, min(_LONGEST, shortest / 4))


def sweep(clients: list[Client], timeouts: dict[str, Timeouts], now: float) -> float:
    """Look at all clients of a listener; ``timeouts`` are those of users. Returns the shortest limit."""
    shortest = OFF if clients else _NOBODY * 4
    known: dict[tuple[str, str], Allowed] = {}
    for client in clients:
        client.look_for_hangup()
        pool, user = client.pool, client.user if client.user in timeouts else ""
        allowed = known.get((pool.name, user))
        if allowed is None:
            allowed = known[pool.name, user] = allowed_for(pool.limits, timeouts.get(user, _AS_THE_POOL))
            shortest = min(shortest, *allowed, pool.limits.query_wait_notify)
        if allowed is not _EVERYTHING and client.key.private is None:
            _look(client, allowed, now)
        if client.phase == WAITING:
            _notify(client, pool.limits.query_wait_notify, now)
    return shortest


def _look(client: Client, allowed: Allowed, now: float) -> None:
    if client.phase != READY:
        client.activity_seen = -1
        return
    query, transaction, idle_transaction, client_idle = allowed
    if client.session is not None and transaction != OFF and _transaction(client, transaction, now):
        return
    if client.session is not None and query != OFF:
        _query(client, query, now)
    if client.activity_seen != client.activity:
        client.activity_seen, client.idle_since = client.activity, now
    elif client.codec.is_holding_idle():
        if now - client.idle_since >= idle_transaction:
            _end(client, CloseReason.IDLE_TRANSACTION, TimeoutReason.IDLE_TRANSACTION)
    elif now - client.idle_since >= client_idle and not client.codec.in_transaction():
        _end(client, CloseReason.CLIENT_IDLE, TimeoutReason.CLIENT_IDLE)


def _end(client: Client, reason: CloseReason, counted: TimeoutReason) -> None:
    client.pool.counters.timeouts[counted] += 1
    client.end(reason)


def _transaction(client: Client, limit: float, now: float) -> bool:
    """End a client whose transaction lasts for longer; True when it was."""
    clock, session = client.clock, client.session
    assert session is not None
    if not client.codec.in_transaction():
        clock.transaction = -1
        return False
    number = client.codec.transactions
    if clock.transaction != number or clock.held != session.busy_since:
        clock.transaction, clock.held = number, session.busy_since
        # The first of a hold begins with it; when a later one began is not known better than this.
        clock.begun = now if number else session.busy_since
    if now - clock.begun < limit:
        return False
    _end(client, CloseReason.TRANSACTION, TimeoutReason.TRANSACTION)
    return True


def _query(client: Client, limit: float, now: float) -> None:
    clock, session = client.clock, client.session
    assert session is not None
    number = client.codec.running()
    if number < 0:
        clock.query = -1
        return
    if clock.query != number or clock.query_held != session.busy_since:
        clock.query, clock.query_held = number, session.busy_since
        clock.running_since, clock.cancelled = now, -1.0
    ran = now - clock.running_since
    if ran < limit:
        return
    if clock.cancelled < 0.0:
        client.pool.counters.timeouts[TimeoutReason.QUERY] += 1
        clock.first_cancel = now
        _log.warning(
            "query_timed_out",
            pool=client.pool.name,
            client=client.number,
            user=client.user,
            application_name=client.codec.label(),
            session=session.number,
            ran=round(ran, 3),
        )
    elif now - clock.first_cancel >= _PATIENCE:
        if session.state == BUSY:
            detail = f"{_SPOKEN}, and the server did not end it when asked to"
            client.pool.expel(session, DropReason.QUERY_TIMEOUT, detail)
        return
    if now - clock.cancelled >= _CANCEL_AGAIN or clock.cancelled < 0.0:
        clock.cancelled = now
        client.stop_query()


def _notify(client: Client, limit: float, now: float) -> None:
    """Tell a client, once for each wait, that it waits. It is at the end of an answer: it has no session."""
    if client.clock.told == client.since or now - client.since < limit:
        return
    client.clock.told = client.since
    pool = client.pool
    waits = f"no session of pool {pool.name} is free: the query waits for one"
    client.write(client.codec.notice(waits, pool.ledger.picture(now - client.since)))
