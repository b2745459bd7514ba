"""What the servers of a pool are, who is held while none of the right kind can be had, and for how long.

An *outage* begins when a session for some target can be opened nowhere. For ``failover_wait`` seconds from
then on whoever asks for one stays in the queue, while every server that may come into question is tried,
side by side, several times a second; it ends with the first session that suits. After that time those who
still wait are told why, and so is each newcomer, at once. A client that asked for ``nowait`` is never held.
Cold: nothing here is called while all is well.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from proxy.errors import BackendError
from proxy.pool.alarm import Alarm
from proxy.pool.endpoints import Endpoint, is_of_the_endpoint, is_starting
from proxy.pool.ledger import Ledger
from proxy.pool.limits import BEGIN_AHEAD, NOWAIT, OFF
from proxy.pool.opening import Opening
from proxy.pool.session import BEGIN, BUSY, CARE, IDLE, OPENING, PING, Key, Session, Waiter
from proxy.reasons import DropReason
from proxy.roles import ANY, DOUBTED, READ_WRITE, ROLES, TARGETS, THE_PRIMARY, UNKNOWN

_log = structlog.get_logger("penstock")
_PACE: Final = 0.25  # seconds between two rounds of tries while somebody is held
_SLOW_PACE: Final = 1.0  # ... between two looks at an outage otherwise
_DOUBT_PAUSE: Final = 1.0  # seconds: a statement that may not write costs one session in so long


class Outage:
    """One target that no server serves. ``error`` is the latest reason."""

    def __init__(self, key: Key, since: float, until: float, error: BackendError) -> None:
        self.key = key
        self.since = since
        self.until = until
        self.error = error
        self.held = 0  # the most clients that waited for its end at a time


class Failover:
    """The roles and outages of one pool.

    ``drop`` removes an idle session, ``refuse`` tells a waiter who is in no queue any more, ``wake`` looks
    after those who wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        opening: Opening,
        clock: Callable[[], float],
        drop: Callable[[Session, DropReason], None],
        refuse: Callable[[Waiter, BackendError], None],
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._opening = opening
        self._clock = clock
        self._drop = drop
        self._refuse = refuse
        self._wake = wake
        # Mutable state.
        self.outages: dict[tuple[int, Endpoint | None], Outage] = {}
        self._alarm = Alarm(clock, self._look)

    def stop(self) -> None:
        """The pool closes."""
        self._alarm.stop()
        self.outages.clear()

    # -- what the servers are ---------------------------------------------------------------------

    def arrived(self, session: Session) -> None:
        """A session has just been opened: what it was told at its login is what its server is."""
        endpoint = session.endpoint
        if endpoint.scout is session:
            endpoint.scout = None
        if session.key.private is not None:
            return  # its client's own parameters may say otherwise
        if session.backend is not None:
            self._note(endpoint, session.backend.role())
        if not self._still_suits(session):
            self.doom(session, DropReason.ROLE)
        if self.outages and session.doom is None:
            for outage in [outage for outage in self.outages.values() if self._serves(session, outage)]:
                self._end(outage)

    def told(self, session: Session, role: int) -> None:
        """An open session was told something of its server: its role by now, or DOUBTED."""
        # In a step of its own: whoever holds the session is in the middle of what it was told.
        tell = self.doubt if role == DOUBTED else self.learn
        asyncio.get_running_loop().call_soon(tell, session)

    def learn(self, session: Session) -> None:
        """A session that was open already has been told that its server is another than before."""
        if session.backend is not None and session.state in (IDLE, BUSY, CARE):
            self._note(session.endpoint, session.backend.role())
            self._wake()

    def doubt(self, session: Session) -> None:
        """A statement that writes was refused as read-only. Perhaps its client wanted that; perhaps not."""
        endpoint, now = session.endpoint, self._clock()
        if session.key.target not in (READ_WRITE, THE_PRIMARY) or now - endpoint.doubted_at < _DOUBT_PAUSE:
            return
        endpoint.doubted_at, endpoint.ask_at = now, 0.0
        self.doom(session, DropReason.ROLE)

    def _note(self, endpoint: Endpoint, role: int) -> None:
        ledger = self._ledger
        endpoint.ask_at = self._clock() + ledger.limits.role_check_interval
        was, endpoint.role = endpoint.role, role
        if was == role:
            return
        if role != UNKNOWN:
            _log.info(
                "endpoint_role_changed",
                pool=ledger.name,
                endpoint=endpoint.name,
                role=ROLES[role],
                was=ROLES[was],
            )
        for session in self._opened():
            # What cannot be reached now may be what it was.
            if session.endpoint.role != UNKNOWN and not self._still_suits(session):
                self.doom(session, DropReason.ROLE)

    def _still_suits(self, session: Session) -> bool:
        return session.key.target == ANY or self._ledger.endpoints.suits(session.key, session.endpoint)

    def doom(self, session: Session, reason: DropReason) -> None:
        """The session serves nobody any more: it goes now, or when whoever holds it gives it back."""
        if session.doom is None:
            session.doom, session.expires = reason, -OFF
            if session.state == IDLE:
                self._drop(session, reason)

    def ask(self, key: Key, now: float) -> tuple[list[Session], list[Session]]:
        """Ask the servers that have not told for ``role_check_interval`` what they are.

        Returns sessions to open and sessions to ping, moved already. A server with sessions that are held
        tells by itself, and one that cannot be reached is tried by ``growth.probe``.
        """
        opens: list[Session] = []
        pings: list[Session] = []
        ledger = self._ledger
        if not ledger.endpoints.targeted or ledger.paused or ledger.homes:
            return opens, pings
        for endpoint in ledger.endpoints.all:
            if now < endpoint.ask_at or endpoint.scout is not None or endpoint.failures:
                continue
            states = {session.state: session for session in endpoint.sessions}
            if IDLE in states:
                endpoint.ask_at = now + ledger.limits.role_check_interval
                ledger.attend(states[IDLE], BEGIN if ledger.limits.begin == BEGIN_AHEAD else PING)
                pings.append(states[IDLE])
            elif not states and ledger.used < ledger.limits.max - 1 and endpoint.may_open_for(key, now):
                opens.append(self._try(key, endpoint, now))
        return opens, pings

    def _try(self, key: Key, endpoint: Endpoint, now: float) -> Session:
        session = self._ledger.open(key, endpoint, now)
        session.is_trial = True
        return session

    # -- who may wait -----------------------------------------------------------------------------

    def why_not_wait(self, key: Key, getmode: int) -> BackendError | None:
        """Why a client must not wait for a session of this key: there is none, and none can be had."""
        ledger, now = self._ledger, self._clock()
        if ledger.has_key(key):
            return None
        down = ledger.endpoints.why_not(key, now)
        outage = self._begin(key, down, now) if down is not None else self.outages.get(_target(key))
        if outage is not None and getmode != NOWAIT and now < outage.until:
            return None
        return None if down is None or is_starting(down) else down

    def lacking(self, key: Key, error: BackendError | None) -> None:
        """A session of this key could not be had: tell those who must not wait for another one.

        ``error`` is what they are told; None: what is known of the servers.
        """
        if self._ledger.closed:
            return
        down = self._ledger.endpoints.why_not(key, self._clock())
        if down is not None:
            self._begin(key, down, self._clock())
        refusals: dict[int, BackendError | None] = {}
        for waiter in [waiter for waiter in self._ledger.queue if waiter.key is key]:
            if waiter.getmode not in refusals:
                refusals[waiter.getmode] = self.why_not_wait(key, waiter.getmode)
            why = refusals[waiter.getmode]
            if why is not None and self._ledger.withdraw(waiter):
                self._refuse(waiter, error or why)

    def watch(self, now: float) -> None:
        """Begin an outage where clients wait for one login that is not answered: others must be tried."""
        ledger = self._ledger
        if not ledger.queue or not ledger.endpoints.targeted:
            return
        open_keys = {session.key for session in self._opened()}
        for waiter in ledger.queue:
            key = waiter.key
            is_slow = now - waiter.since >= _SLOW_PACE and waiter.getmode != NOWAIT
            if is_slow and key.target != ANY and key not in open_keys and _target(key) not in self.outages:
                down = ledger.endpoints.why_not(key, now)
                self._begin(key, down or BackendError("no server that may suit has answered yet"), now)

    def _begin(self, key: Key, error: BackendError, now: float) -> Outage | None:
        outage = self.outages.get(_target(key))
        if outage is not None:
            outage.error = error
            return outage
        wait = self._ledger.limits.failover_wait
        # A server that has no room for more has not failed; nor has one that refuses what one client wants.
        is_ours = key.private is None and error.sqlstate[:2] != "53"
        if wait <= 0.0 or not is_ours or not is_of_the_endpoint(error):
            return None
        outage = self.outages[_target(key)] = Outage(key, now, now + wait, error)
        self._alarm.set(now, now)
        _log.warning(
            "failover_began",
            pool=self._ledger.name,
            target=TARGETS[key.target],
            held_for=wait,
            sqlstate=error.sqlstate,
            error=error.message,
        )
        return outage

    def _end(self, outage: Outage) -> None:
        del self.outages[_target(outage.key)]
        _log.info(
            "failover_ended",
            pool=self._ledger.name,
            target=TARGETS[outage.key.target],
            took=round(self._clock() - outage.since, 3),
            clients=outage.held,
        )

    def _serves(self, session: Session, outage: Outage) -> bool:
        # A session that is open shows that its target can be had.
        endpoints = self._ledger.endpoints
        return session.endpoint in endpoints.allowed(outage.key) and endpoints.suits(
            outage.key, session.endpoint
        )

    # -- while it lasts ---------------------------------------------------------------------------

    def _look(self, now: float) -> float:
        """One look at every outage; when the next is due."""
        next_look = OFF
        for outage in list(self.outages.values()):
            held = [waiter for waiter in self._ledger.queue if _target(waiter.key) == _target(outage.key)]
            open_keys = {session.key for session in self._opened()}
            lacking = [waiter for waiter in held if waiter.key not in open_keys]
            outage.held = max(outage.held, len(held))
            if not lacking and now - outage.since > _SLOW_PACE and self._is_served(outage):
                self._end(outage)
                continue
            if now >= outage.until and not is_starting(outage.error):
                for waiter in lacking:
                    if self._ledger.withdraw(waiter):
                        self._refuse(waiter, outage.error)
            if lacking or now >= outage.until:
                self._make_room()
            self._try_everywhere(held[0].key if held else outage.key, now)
            pace = now + (_PACE if held and now < outage.until else _SLOW_PACE)
            next_look = min(next_look, pace if now >= outage.until else min(pace, outage.until))
        return next_look

    def _is_served(self, outage: Outage) -> bool:
        endpoints = self._ledger.endpoints
        for endpoint in endpoints.allowed(outage.key):
            if endpoint.role != UNKNOWN and not endpoint.failures and endpoints.suits(outage.key, endpoint):
                return True
        return any(session.doom is None and self._serves(session, outage) for session in self._opened())

    def _opened(self) -> list[Session]:
        return [*self._ledger.busy, *self._ledger.care, *self._ledger.idle_sessions()]

    def _make_room(self) -> None:
        # Where idle sessions for other targets have every slot, nobody could find out who has taken over.
        ledger = self._ledger
        if ledger.used >= ledger.limits.max and ledger.limits.evict and not ledger.closing:
            idle = min(ledger.idle_sessions(), key=lambda session: session.idle_since, default=None)
            if idle is not None:
                self._drop(idle, DropReason.REPLACED)

    def _try_everywhere(self, key: Key, now: float) -> None:
        # Whatever the breakers say: somebody waits, and one login at a time does no harm.
        ledger = self._ledger
        most = ledger.limits.max_per_endpoint
        # The one that was not tried for longest first: there may be a single slot for them all.
        endpoints = sorted(ledger.endpoints.allowed(key), key=lambda endpoint: endpoint.tried_at)
        for endpoint in endpoints:
            refusal = endpoint.refusals.get(key)
            is_tried = any(session.state == OPENING for session in endpoint.sessions)
            if is_tried or (refusal is not None and refusal.until > now):
                continue
            is_full = most is not None and len(endpoint.sessions) >= most
            if ledger.used < ledger.limits.max and not is_full and not ledger.paused:
                self._opening.start(self._try(key, endpoint, now))


def _target(key: Key) -> tuple[int, Endpoint | None]:
    return key.target, key.endpoint
