"""Which session fits whom: purity, tags, affinity, tiers; and which idle one is given up for another's sake.

Decisions over the ledger's collections, as synchronous as the ledger. Nothing here moves a session.
"""

from proxy.pool.endpoints import Endpoint
from proxy.pool.ledger import Ledger
from proxy.pool.limits import (
    BEGIN_AHEAD,
    BY_KEY,
    LIFO,
    OFF,
    PING_IN_BACKGROUND,
    REAP_IN_BACKGROUND,
    TAGS_ANY,
    TAGS_OFF,
    TIERED,
)
from proxy.pool.session import Key, Session, Waiter


def is_quick(ledger: Ledger) -> bool:
    """A client without wishes can be served by the ledger's ``take`` and ``rest``: no rule needs a look."""
    limits = ledger.limits
    return (
        not (ledger.closed or ledger.paused or ledger.excess or limits.max_forced)
        and limits.max_idle is None
        and limits.reap == REAP_IN_BACKGROUND
        and limits.reuse != TIERED
        and limits.tags == TAGS_OFF
        and limits.affinity != BY_KEY
        and limits.begin != BEGIN_AHEAD
    )


def fits(waiter: Waiter, session: Session) -> bool:
    """This session may serve this waiter, whatever it costs to prepare it."""
    return session.key is waiter.key and not (waiter.wants_new and session.used)


def is_tied(ledger: Ledger, waiter: Waiter) -> bool:
    """Only one session will do for this waiter, and somebody holds it (psycopg2's getconn(key))."""
    return bool(waiter.affinity) and waiter.affinity in ledger.shared


def is_due(ledger: Ledger, session: Session, now: float) -> bool:
    """The idle session must be looked after before it is handed out."""
    limits = ledger.limits
    if limits.begin == BEGIN_AHEAD and now - session.begun_at >= limits.begin_max_age:
        return True
    return limits.ping_mode != PING_IN_BACKGROUND and now - session.proven_at >= limits.ping_interval


def pick(ledger: Ledger, waiter: Waiter, strict: bool) -> Session | None:
    """The idle session that this waiter should have; None when no idle one will do.

    ``strict``: one in another state than the waiter wants (another tag) will not do.
    """
    lane = ledger.lanes.get(waiter.key)
    if not lane:
        return None
    tags = ledger.limits.tags
    if tags == TAGS_OFF and not waiter.wants_new:
        return _in_order(ledger, lane)
    candidates = [session for session in lane if not (waiter.wants_new and session.used)]
    if tags != TAGS_OFF:
        same = [session for session in candidates if session.tag is waiter.tag]
        if not same:
            same = [session for session in candidates if session.tag is None]
        if same or (strict and tags != TAGS_ANY):
            candidates = same
    return _in_order(ledger, candidates) if candidates else None


def _in_order(ledger: Ledger, lane: list[Session]) -> Session:
    reuse = ledger.limits.reuse
    if reuse == LIFO:
        return lane[-1]
    if reuse == TIERED:
        for session in lane:
            if session.core:
                return session
        return lane[-1]
    return lane[0]


def is_core(ledger: Ledger, session: Session) -> bool:
    """Where tiers matter: the session that is given back belongs to the core of its endpoint.

    As in generic_connection_pool: those that are still held count for the core, too.
    """
    least = ledger.limits.min_per_endpoint
    held = idle_core = 0
    for other in session.endpoint.sessions:
        if other is session:
            continue
        if other in ledger.busy:
            held += 1
        elif other.core:
            idle_core += 1
    return held < least - idle_core


# -- room ---------------------------------------------------------------------------------------


def has_room(ledger: Ledger, key: Key, now: float) -> bool:
    """Some healthy endpoint of this key has a free slot, as far as ``max_per_endpoint`` goes."""
    most = ledger.limits.max_per_endpoint
    if most is None:
        return True
    return any(len(endpoint.sessions) < most for endpoint in ledger.endpoints.askable(key, now))


def helps(ledger: Ledger, session: Session, waiter: Waiter, now: float) -> bool:
    """Without this session, the waiter could have one opened."""
    most = ledger.limits.max_per_endpoint
    if most is None:
        return True
    for endpoint in ledger.endpoints.askable(waiter.key, now):
        if len(endpoint.sessions) - (1 if endpoint is session.endpoint else 0) < most:
            return True
    return False


def victim(ledger: Ledger, waiter: Waiter, now: float) -> Session | None:
    """The idle session to close so that this waiter's can be opened: the one that would end soonest.

    Those outside the core go first (as in generic_connection_pool).
    """
    if not ledger.limits.evict:
        return None
    best: Session | None = None
    for lane in ledger.lanes.values():
        for session in lane:
            if not helps(ledger, session, waiter, now):
                continue
            if best is None or _ends(ledger, session) < _ends(ledger, best):
                best = session
    return best


def _ends(ledger: Ledger, session: Session) -> tuple[bool, float, float]:
    idle_timeout = OFF if session.core else ledger.limits.idle_timeout
    return session.core, min(session.idle_since + idle_timeout, session.expires), session.idle_since


def is_above_floor(ledger: Ledger, endpoint: Endpoint) -> bool:
    """More sessions are open on this endpoint than ``min_per_endpoint`` keeps."""
    least = ledger.limits.min_per_endpoint
    if least == 0:
        return True
    count = 0
    for session in endpoint.sessions:
        if session not in ledger.opening and session not in ledger.closing:
            count += 1
    return count > least
