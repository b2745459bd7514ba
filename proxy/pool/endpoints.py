"""The servers behind one pool: how many sessions each has, and whether it can be asked for another one.

Synchronous, told the time, no I/O. A circuit breaker for each endpoint keeps apart what is often taken
for the same: an endpoint that refuses logins, and a pool that is full. What an endpoint refuses to one
key only (a wrong password, no such database) is that key's own affair, and closes it to nobody else.
What an endpoint is (a primary, a standby) is kept here, too; what follows from it is in targets.py.
"""

from typing import TYPE_CHECKING, Final

from proxy.errors import BackendError
from proxy.roles import ANY, PREFER_STANDBY, ROLES, STANDBY, TARGETS, UNKNOWN, suits

if TYPE_CHECKING:
    from proxy.pool.session import Key, Session

CLOSED: Final = 0  # logins are tried; after a failure not before a short back-off is over
OPEN: Final = 1  # too many failed in a row: nothing is tried until `until`
HALF_OPEN: Final = 2  # one login is tried, and decides
BREAKER_STATES: Final = ("closed", "open", "half_open")

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_MOST_REFUSALS: Final = 1024


def backoff(rounds: int, longest: float, jitter: float) -> float:
    """Seconds until the next try after so many rounds of failures, which doubles with each of them.

    It is five seconds or ``longest`` at most; ``jitter`` (0 to 1) takes off up to a half.
    """
    delay = _FIRST_DELAY * 2.0 ** min(rounds - 1, 10)
    return min(delay, longest, _LONGEST_DELAY) * (1.0 - jitter / 2.0)


class Refusal:
    """What one endpoint said to one key, ``rounds`` times in a row; nothing is tried before ``until``."""

    def __init__(self, error: BackendError) -> None:
        self.error = error
        self.rounds = 0
        self.until = 0.0


class Endpoint:
    """One server of a pool; ``name`` is what logs and metrics call it."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        # Mutable state.
        self.sessions: set[Session] = set()  # every one that takes a slot of this server
        self.failures = 0  # opens that failed in a row; those that failed side by side count once
        self.failed_at = 0.0  # when the latest of these did
        self.until = 0.0  # nothing is opened before
        self.is_broken = False  # the breaker is open, or half open once `until` has passed
        self.probe: Session | None = None  # the open that decides while the breaker is half open
        self.error: BackendError | None = None  # why the latest of `failures` failed
        self.last_error = ""  # why the latest open failed, whoever is to blame; empty when it did not
        self.refusals: dict[Key, Refusal] = {}  # keys that it did not let in, though it is healthy
        self.role: int = UNKNOWN  # one of roles.ROLES, as its sessions were told
        self.tried_at = 0.0  # when an open was last begun
        self.ask_at = 0.0  # when its role is to be asked again, while no session tells of itself
        self.scout: Session | None = None  # the open that will tell, while the role is not known
        self.doubted_at = 0.0  # when a session was last given up because it could not write

    def __repr__(self) -> str:
        return f"<Endpoint {self.name}>"

    def breaker(self, now: float) -> int:
        """CLOSED, OPEN or HALF_OPEN."""
        if not self.is_broken:
            return CLOSED
        return OPEN if now < self.until else HALF_OPEN

    def may_open(self, now: float) -> bool:
        """A login may be tried now, as far as the endpoint's health goes."""
        return now >= self.until and (not self.is_broken or self.probe is None)

    def may_open_for(self, key: "Key", now: float) -> bool:
        """A login of this key may be tried now."""
        if not self.may_open(now):
            return False
        refusal = self.refusals.get(key)
        return refusal is None or refusal.until <= now

    def failed(self, now: float, limit: int, timeout: float, jitter: float, started: float = 0.0) -> float:
        """An open failed because of this endpoint; returns for how long nothing is opened on it.

        After ``limit`` failures in a row (0: never) that is ``timeout`` seconds. ``jitter`` between 0 and 1
        shortens it by up to a half. An open that ``started`` before the latest failure failed side by side
        with it: the delay grows once a round, not once an open.
        """
        if now < self.until or (self.failures and 0.0 < started <= self.failed_at):
            return max(0.0, self.until - now)
        self.probe = None
        self.failures += 1
        self.failed_at = now
        self.role = UNKNOWN  # it may come back as something else
        self.is_broken = 0 < limit <= self.failures
        delay = timeout * (1.0 - jitter / 2.0) if self.is_broken else backoff(self.failures, timeout, jitter)
        self.until = now + delay
        return delay

    def refused(self, key: "Key", error: BackendError, now: float, jitter: float) -> float:
        """A login was refused because of its key; returns for how long this key is not tried here."""
        refusal = self.refusals.get(key)
        if refusal is None:
            if len(self.refusals) >= _MOST_REFUSALS:
                # Clients choose some parts of a key; what is over anyway is not remembered for ever.
                self.refusals = {key: old for key, old in self.refusals.items() if old.until > now}
            refusal = self.refusals[key] = Refusal(error)
        refusal.error = error
        if now >= refusal.until:
            refusal.rounds += 1
            refusal.until = now + backoff(refusal.rounds, _LONGEST_DELAY, jitter)
        return refusal.until - now

    def succeeded(self) -> None:
        """A login worked, or the server at least answered it: the endpoint is healthy."""
        self.failures, self.until, self.is_broken, self.probe = 0, 0.0, False, None
        self.error, self.last_error = None, ""


class Endpoints:
    """All endpoints of one pool, in the order of the configuration.

    ``first`` is the number of the one that comes first among equals. A hundred daemons that each need one
    session should not all open it on the same server, so each begins elsewhere.
    """

    def __init__(self, names: tuple[str, ...], first: int = 0) -> None:
        if not names:
            raise ValueError("a pool needs an endpoint")
        self.all = tuple(Endpoint(number, name) for number, name in enumerate(names))
        self.first = first
        self.own: int = ANY  # the target of clients that name none
        self.falls_back = True  # those who want a replica get the primary where there is none
        self.in_order = False  # for the pool's own target: the first that can be had, not the one with fewest
        self.targeted = False  # somebody cares what the servers are

    def allowed(self, key: "Key") -> "tuple[Endpoint, ...]":
        """Where sessions of this key may be opened."""
        return self.all if key.endpoint is None else (key.endpoint,)

    def suits(self, key: "Key", endpoint: Endpoint) -> bool:
        """What this endpoint is suits the key, as far as is known."""
        target = key.target
        if target == ANY or suits(target, endpoint.role):
            return True
        if target != PREFER_STANDBY:
            return False
        return not any(_may_be_standby(other, key) for other in self.all)

    def _will_do(self, endpoint: Endpoint, key: "Key", now: float) -> bool:
        if not endpoint.may_open_for(key, now):
            return False
        if key.target == ANY or (endpoint.role != UNKNOWN and self.suits(key, endpoint)):
            return True
        # One that nobody knows is asked by one login at a time; one that did not suit, after a while.
        if endpoint.scout is not None:
            return False
        return endpoint.role == UNKNOWN or (now >= endpoint.ask_at and not self._is_served(key))

    def _is_served(self, key: "Key") -> bool:
        for endpoint in self.allowed(key):
            if endpoint.role != UNKNOWN and not endpoint.failures and self.suits(key, endpoint):
                return True
        return False

    def askable(self, key: "Key", now: float) -> "list[Endpoint]":
        """Where a session of this key may be tried now, full or not."""
        return [endpoint for endpoint in self.allowed(key) if self._will_do(endpoint, key, now)]

    def choose(self, key: "Key", now: float, most: int | None) -> Endpoint | None:
        """Where the next session of this key is opened: the endpoint that has the fewest.

        ``most`` is the bound for each endpoint. One whose latest open failed is asked only where no healthy
        one has room: nobody should wait to find out whether it is back. None: every one is full, or not to
        be asked now.
        """
        allowed = self.allowed(key)
        in_order = self.in_order and key.target == self.own
        first = 0 if in_order else self.first
        best: Endpoint | None = None
        for offset in range(len(allowed)):
            endpoint = allowed[(first + offset) % len(allowed)]
            if not self._will_do(endpoint, key, now) or (most is not None and len(endpoint.sessions) >= most):
                continue
            if best is None or _is_better(endpoint, best, key.target, in_order):
                best = endpoint
        return best

    def may_open(self, key: "Key", now: float) -> bool:
        """Some endpoint of this key can be asked for a session, full or not."""
        return any(self._will_do(endpoint, key, now) for endpoint in self.allowed(key))

    def suspects(self, now: float) -> list[Endpoint]:
        """Where the latest open failed, and another one may be tried by now."""
        return [endpoint for endpoint in self.all if endpoint.failures and endpoint.may_open(now)]

    def why_not(self, key: "Key", now: float) -> BackendError | None:
        """Why no session of this key can be opened now; None when one can be tried.

        Of several reasons the most hopeful: a server that is only starting up will soon let us in.
        """
        reasons: list[BackendError] = []
        for endpoint in self.allowed(key):
            if self._will_do(endpoint, key, now) or (key.target != ANY and endpoint.scout is not None):
                return None
            refusal = endpoint.refusals.get(key)
            if not endpoint.may_open(now):
                if endpoint.error is not None:
                    reasons.append(endpoint.error)
            elif refusal is not None:
                reasons.append(refusal.error)
        for reason in reasons:
            if is_starting(reason):
                return reason
        if key.target != ANY and all(is_of_the_endpoint(reason) for reason in reasons):
            return self._lacking(key)
        return reasons[0] if reasons else None

    def _lacking(self, key: "Key") -> BackendError:
        found = ", ".join(
            f"{endpoint.name} is {ROLES[endpoint.role]}"
            + (f" ({endpoint.last_error})" if endpoint.last_error and endpoint.role == UNKNOWN else "")
            for endpoint in self.allowed(key)
        )
        return BackendError(f"no server can be had that is {TARGETS[key.target]}: {found}", "08001")


def _may_be_standby(endpoint: Endpoint, key: "Key") -> bool:
    if endpoint.failures:
        return False
    return endpoint.role == STANDBY or (endpoint.role == UNKNOWN and key not in endpoint.refusals)


def _is_better(one: Endpoint, other: Endpoint, target: int, in_order: bool) -> bool:
    if (one.failures > 0) != (other.failures > 0):
        return one.failures == 0
    if target != ANY and (one.role == UNKNOWN) != (other.role == UNKNOWN):
        return one.role != UNKNOWN
    return not in_order and len(one.sessions) < len(other.sessions)


# The server is only starting up (or shutting down) and says so: whoever waits may go on waiting.
_STARTING: Final = "57P03"
# Connection exceptions, no resources, operator intervention, errors of the system: anybody would have got
# the same. Whatever else a server answers to a login is about whom or what that login named.
_OF_THE_ENDPOINT: Final = ("08", "53", "57", "58")
# Where PostgreSQL says that a role or a database, not the server, has too many sessions.
_LIMITS_OF_A_KEY: Final = ("InitializeSessionUserId", "CheckMyDatabase")


def is_starting(error: BackendError) -> bool:
    """The server will let us in soon."""
    return error.sqlstate == _STARTING


def is_of_the_endpoint(error: BackendError) -> bool:
    """This error of an open is about the server; any other is about the user or database it was for."""
    if error.sqlstate == "53300" and error.fields.get("R") in _LIMITS_OF_A_KEY:
        return False
    return error.sqlstate[:2] in _OF_THE_ENDPOINT
