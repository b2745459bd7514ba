"""The codec of one PostgreSQL client: how it joins and parts from sessions, and what it is told by us.

The scans over what passes are in requests.py and responses.py, the rare cases in asides.py, answers.py
and recovery.py, a BEGIN that waits for its first statement in deferring.py and starting.py; all of them
share the record in state.py.
"""

from typing import Final

from proxy.asked import Asked
from proxy.codec import SessionCodec
from proxy.errors import PoolError
from proxy.postgres import answers, asides, executing, marking, naming, pinning, starting
from proxy.postgres.effects import LOADED
from proxy.postgres.fingerprint import fingerprint
from proxy.postgres.recovery import drain
from proxy.postgres.responses import Responses
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import IDLE, UNTOUCHED
from proxy.postgres.state_rules import kinds
from proxy.postgres.statements import UNNAMED, Mark
from proxy.reasons import CloseReason
from proxy.steps import Conversation

# What the server's answer to a statement that was cancelled has in it.
_CANCELED: Final = b"\0C57014\0"
_QUIET: Final = frozenset({"warning", "error", "fatal", "panic"})


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
        if self.used is not None:
            executing.join(self, session, due)
        wanted = self.wanted
        if wanted is not None:
            self.wanted = None
            if due or session.unnamed is not wanted:
                # It goes in front of everything that waits, so it is the first step of all.
                self.marks.insert(0, Mark(0, 0, UNNAMED, None, b""))
                if self.sent == 0:
                    self.steps += 1
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
        if self.asks:
            told = yield from pinning.ask(self)
            if self.listening is not None:
                self.listening.asked(session)
            return told
        yield from session.end_begun()
        told = yield from session.adopt(self.profile, self.number)
        self.back_tail, session.tail = session.tail, b""
        return told

    def part(self) -> None:
        """Let go of the session."""
        if self.asked:
            self.asked.clear()
        if self.marks:
            marking.abandoned(self)
        if self.suspects:
            pinning.parted(self)
        if self.listening is not None:
            self.listening.kept(self.session)
        self._leave_word()
        self._alone()
        if self.need:
            # The rest of a message whose beginning went to this session, or nowhere.
            self.discard = True
            self.gathered = None
        if self.terms.begin or self.deferred:
            starting.parted(self)

    def _leave_word(self) -> None:
        # The session remembers what it holds, whoever gets it next.
        if self.pending:
            self.unnamed_lost()
        session = self.session
        if session is not None:
            self.note_unnamed(session)
            if self.back_tail:
                session.tail = self.back_tail

    def _alone(self) -> None:
        # No session is held, and nothing is known of one.
        self.back_need, self.back_tail = 0, b""
        self.session = None
        self.wanted = self.used = None
        self.holds = UNTOUCHED
        self.status = IDLE
        self.copy_in = self.copy_synced = False
        self.intruded = self.doubt = self.violated = self.saw_fatal = self.saw_reset = False
        self.late = self.unread = False
        self.sent = self.steps = self.seen = self.steps_seen = self.clearing = 0
        self.failed_at = self.begun_at = -1
        self.losing = b""
        self.misfit = None
        self.altered = False

    def watch(self, asked: list[Asked] | None) -> None:
        """From now on note here what is asked; None: no longer."""
        self.asked = asked
        self.texts.clear()
        self.set_aside()

    def leave(self) -> None:
        """The client is over: its names are nobody's."""
        naming.lose_all(self)
        if self.listening is not None:
            self.listening.leave()

    def take_news(self) -> bytes:
        """Notifications."""
        return b"" if self.listening is None else self.listening.take()

    def gift(self) -> object | None:
        """The hub that gets the held session."""
        return None if self.listening is None else self.listening.gift()

    def is_clean(self) -> bool:
        """The session can serve somebody else as it is."""
        return not self.pins and self.is_at_rest()

    def is_at_rest(self) -> bool:
        """Nothing is on its way, and no transaction is open."""
        return not self.doubt and asides.is_resting(self)

    def pinned(self) -> str:
        """The kinds of state for which the client keeps its session."""
        return ", ".join(kinds(self.pins)) if self.pins else ""

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

    def in_transaction(self) -> bool:
        """From its first statement to its end."""
        if self.session is None:
            return False
        return self.status != IDLE or self.segment or self.copy_in or bool(self.owed)

    def running(self) -> int:
        """The number of what is owed an answer, or takes copy data; negative: nothing."""
        if self.session is None or not (self.owed or self.copy_in):
            return -1
        return self.seen

    def replied(self) -> int:
        """So many ReadyForQuery."""
        return self.seen

    def timed_out(self) -> None:
        """The server's word on a cancelled statement is replaced by ours, which names the setting."""
        self.faults[_CANCELED] = answers.timed_out()

    def notice(self, text: str, detail: str) -> bytes:
        """A NOTICE, unless the client has said that it wants none."""
        level = self.profile.settings.get("client_min_messages", "notice")
        return b"" if level.lower() in _QUIET else answers.notice(text, detail)

    def fingerprint(self, text: bytes) -> tuple[str, str, dict[str, str]]:
        """A statement without its literals, and what its comments say."""
        return fingerprint(text)

    def is_running(self) -> bool:
        """Something is owed an answer."""
        return self.outstanding()

    def recovery(self) -> Conversation[None] | None:
        """How to end what was left running; None where that is not certain, or cannot be undone."""
        return None if self.pins & LOADED else drain(self)

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
        """The last words; none in the middle of a message of the server, which they would seem to end, and
        none behind the server's own.
        """
        heard = self.saw_fatal and reason is CloseReason.SESSION_LOST
        return b"" if self.back_need or heard else answers.fatal(reason, detail)
