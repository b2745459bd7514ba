"""The codec of one PostgreSQL client: how it joins and parts from sessions, and what it is told by us.

The scans over what passes are in requests.py and responses.py, the rare cases in asides.py, answers.py
and recovery.py, a BEGIN that waits for its first statement in deferring.py and starting.py; all of them
share the record in state.py.
"""

from proxy.codec import Conversation, SessionCodec
from proxy.errors import PoolError
from proxy.postgres import answers, asides, starting
from proxy.postgres.recovery import drain
from proxy.postgres.responses import Responses
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import IDLE, UNTOUCHED
from proxy.reasons import CloseReason


class PgClientCodec(Responses):
    """One client of the PostgreSQL protocol 3.0, after its login."""

    def join(self, session: SessionCodec) -> bool:
        """Hold a session; True when the client's settings must be put on it first."""
        assert isinstance(session, PgSessionCodec)
        self.session = session
        due = session.profile is not self.profile or (
            session.touched_by != 0 and session.touched_by != self.number and session.wipes
        )
        if self.aside or session.begun:
            due = starting.joined(self, session, due)
        if not due and session.tail:
            self.back_tail, session.tail = session.tail, b""
        wanted = self.wanted
        if wanted is not None:
            self.wanted = None
            if due or session.unnamed is not wanted:
                # It goes in front of everything that waits, so it is the first Parse of all.
                self.swallow[:0] = [0, 0]
                if self.sent == 0:
                    self.parses += 1
                if self.parse_at == 0:
                    self.parse_no += 1
                self.out = wanted + self.out
        if self.opening:
            self.out = starting.ahead(self) + self.out
        return due

    def prepare(self) -> Conversation[bytes]:
        """Put the client's settings on the held session. Raises BackendError."""
        session = self.session
        assert session is not None
        yield from session.end_begun()
        told = yield from session.adopt(self.profile, self.number)
        self.back_tail, session.tail = session.tail, b""
        return told

    def part(self) -> None:
        """Let go of the session."""
        if self.pending:
            self.unnamed_lost()
        if self.session is not None:
            self.note_unnamed(self.session)
            if self.back_tail:
                self.session.tail = self.back_tail
        self.session = None
        self.wanted = None
        self.holds = UNTOUCHED
        self.status = IDLE
        self.copy_in = self.copy_synced = False
        self.intruded = self.doubt = self.violated = self.saw_fatal = self.saw_reset = False
        self.late = self.unread = False
        self.sent = self.parses = self.seen = self.parses_seen = 0
        if self.swallow:
            self.swallow.clear()
        if self.need:
            # The rest of a message whose beginning went to this session, or nowhere.
            self.discard = True
            self.gathered = None
        if self.back_need or self.back_tail:
            self.back_need, self.back_tail = 0, b""
        if self.terms.begin or self.deferred:
            starting.parted(self)

    def is_clean(self) -> bool:
        """The session can serve somebody else as it is."""
        return not self.doubt and asides.is_resting(self)

    def is_holding_idle(self) -> bool:
        """A session waits for this client: in a transaction, in a copy, or before a Sync."""
        if self.session is None:
            return False
        if self.copy_in or self.doubt or self.intruded:
            return True
        return not self.owed and (self.status != IDLE or self.segment or self.need > 0)

    def label(self) -> str:
        """Its application_name, as it is for the next statement."""
        return self.profile.settings.get("application_name", "")

    def is_running(self) -> bool:
        """Something is owed an answer."""
        return self.outstanding()

    def recovery(self) -> Conversation[None] | None:
        """How to end what was left running; None where that is not certain."""
        return drain(self)

    # -- the answers of our own -----------------------------------------------------------------

    def refuse(self, error: PoolError) -> bytes:
        """The pool has no session."""
        return answers.forget(self, answers.refusal(self.terms.pool, error))

    def backend_refused(self, sqlstate: str, message: str, fields: dict[str, str]) -> bytes:
        """The server cannot be had."""
        return answers.forget(self, answers.unavailable(self.terms.pool, sqlstate, message, fields))

    def canceled(self) -> bytes:
        """The client cancelled what waits."""
        return answers.forget(self, answers.canceled())

    def session_lost(self) -> bytes | None:
        """The session died under the client."""
        return answers.session_lost(self)

    def fatal(self, reason: CloseReason, detail: str) -> bytes:
        """The last words."""
        return answers.fatal(reason, detail)
