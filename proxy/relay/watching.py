"""Measures what one client asks, and says so: to the log where it was slow, and to the pool's book.

Warm where a pool wants it (``log_min_duration``, ``query_stats``), and not there otherwise. The codec notes
what passes; here it gets its times. A text is looked at only when it is told. Nothing may be told that the
operator has not asked for: a statement is shown without its literals unless ``log_statements`` is raw.
"""

from collections.abc import Callable
from typing import Any

import structlog

from proxy.asked import Asked
from proxy.codec import ClientCodec, SessionCodec
from proxy.errors import PoolError
from proxy.log import Passage
from proxy.pool.limits import LOG_RAW, OFF
from proxy.pool.pool import Pool
from proxy.pool.session import Session

_log = structlog.get_logger("penstock")


class Watch:
    """What one client asks. ``clock`` is monotonic."""

    def __init__(self, number: int, pool: Pool, codec: ClientCodec, clock: Callable[[], float]) -> None:
        self.number = number
        self.pool = pool
        self.codec = codec
        self.clock = clock
        self.asked: list[Asked] = []
        self.latest = 0.0  # when something was answered last
        self.waited = 0.0  # seconds that this hold of a session was waited for
        codec.watch(self.asked)

    def stop(self) -> None:
        """Nobody wants to know any more."""
        self.codec.watch(None)

    def granted(self, since: float) -> None:
        """There is a session; it was waited for since then, negative: not at all."""
        self.waited = self.clock() - since if since >= 0.0 else 0.0
        self.sent()

    def sent(self) -> None:
        """What was asked is on its way."""
        asked = self.asked
        if asked and asked[-1].started < 0.0:
            now = self.clock()
            for one in asked:
                if one.started < 0.0:
                    one.started, one.waited = now, self.waited

    def answered(self, session: Session, user: str) -> None:
        """The session has said something: measure what that ended."""
        asked, seen = self.asked, self.codec.replied()
        if not asked or asked[0].number >= seen:
            return
        now = self.clock()
        while asked and asked[0].number < seen:
            self._ended(asked.pop(0), now, session, user)
        self.latest, self.waited = now, 0.0

    def lost(self, session: Session, user: str) -> None:
        """The session is given up in the middle of something."""
        asked = self.asked
        if asked and asked[0].started >= 0.0:
            one, now = asked[0], self.clock()
            one.failed = one.failed or "08006"
            self._ended(one, now, session, user)
        asked.clear()

    def _ended(self, one: Asked, now: float, session: Session, user: str) -> None:
        if not one.count:
            return  # no statement: a Sync alone
        # In a pipeline a statement begins when the one before it has ended.
        seconds = now - max(one.started, self.latest)
        counters, limits = self.pool.counters, self.pool.limits
        counters.query.observe(seconds)
        slow = seconds >= limits.log_min_duration
        if not slow and not limits.query_stats:
            return
        name, text, said = self.codec.fingerprint(one.text())
        if limits.query_stats:
            counters.book.note(name, text, seconds, one.rows, bool(one.failed))
        if slow:
            counters.slow_queries += 1
            fields = self._told(one, name, text, said)
            _log.info(
                "slow_query",
                pool=self.pool.name,
                user=user,
                database=session.key.database,
                client=self.number,
                application_name=self.codec.label(),
                duration=round(seconds, 6),
                waited=round(one.waited, 6),
                session=session.number,
                server_pid=_pid(session),
                rows=one.rows,
                **fields,
            )

    def refused(self, error: Exception, user: str, since: float) -> None:
        """There was no session for what was asked."""
        asked, pool, now = self.asked, self.pool, self.clock()
        if asked and pool.limits.log_min_duration != OFF and pool.counters.book.may_tell(now):
            name, text, said = self.codec.fingerprint(asked[0].text())
            _log.info(
                "client_refused_session",
                pool=pool.name,
                user=user,
                client=self.number,
                application_name=self.codec.label(),
                waited=round(max(0.0, now - since), 6),
                detail=str(error),
                picture=error.picture if isinstance(error, PoolError) else "",
                **self._told(asked[0], name, text, said),
            )
        asked.clear()

    def _told(self, one: Asked, name: str, text: str, said: dict[str, str]) -> dict[str, Any]:
        limits = self.pool.limits
        fields: dict[str, Any] = {"fingerprint": name} if name else {}
        most = limits.log_statement_bytes
        if most:
            shown = text
            if limits.log_statements == LOG_RAW:
                shown = one.text()[:most].decode("utf-8", "replace")
            fields["statement"] = Passage(shown[:most])
        if one.count > 1:
            fields["statements"] = one.count
        if one.failed:
            fields["sqlstate"] = one.failed
        if "traceparent" in said:
            fields["traceparent"] = said.pop("traceparent")
        if said:
            fields["comment"] = said
        return fields


def _pid(session: Session) -> int:
    backend: Any = session.backend
    codec: SessionCodec = backend.codec
    return codec.process()
