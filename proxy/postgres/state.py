"""What is known about one client while its messages pass: the fields that the codec's rooms share.

The warm path (relaying.py) and the cold rooms beside it (asides.py, answers.py, recovery.py) all work
on this one record, because outstanding work is one fact, not two.
"""

from typing import Final

from proxy.codec import ClientCodec
from proxy.postgres.begin import Begin
from proxy.postgres.messages import message
from proxy.postgres.own import OwnStatement
from proxy.postgres.profile import Profile, Profiles
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state_rules import Sharing
from proxy.postgres.statements import Mark, Statement, Statements
from proxy.postgres.terms import Terms

# Transaction status bytes: I, T, E.
IDLE: Final = 73
IN_TRANSACTION: Final = 84
FAILED: Final = 69

# How far a BEGIN is that the client was answered and the server has not seen: see deferring.py.
NOT_DEFERRED: Final = 0
DEFERRED: Final = 1
SENT: Final = 2
REFUSED: Final = 3

# How far the end of a transaction has been sent that runs on a replica: see reading.py.
NOT_ENDED: Final = 0
SEGMENT_ENDS: Final = 1
TRANSACTION_ENDS: Final = 2

# What is owed a ReadyForQuery, in the order in which it was sent. From ENDED on: a CopyDone or CopyFail
# that was sent before the server said that it wants data, behind one of these or inside a segment.
QUERY: Final = 1
SYNC: Final = 2
CALL: Final = 3
ENDED: Final = 4
ENDED_INSIDE: Final = 5

# What becomes of one message of a client.
PASS: Final = 0
CUT: Final = 1  # it is not forwarded
REPLACE: Final = 2  # `piece` is forwarded instead
INSERT: Final = 3  # `piece` is forwarded before it
HOLD: Final = 4  # it and what follows wait until nothing is outstanding
STOP: Final = 5  # it and what follows are never looked at: the connection ends
AWAIT: Final = 6  # it and what follows wait until a session is held
HEAD: Final = 7  # `piece` is forwarded instead of its beginning, up to `resume_at`
INSERT_HOLD: Final = 8  # `piece` is forwarded; it and what follows wait for the answer to that
WHOLE: Final = 9  # `piece` is forwarded instead of all that was read

# What the held session's unnamed statement is.
UNTOUCHED: Final = 0  # what the session's record says: this client has sent nothing that changes it
OURS: Final = 1  # this client's, or none: Bind may use it without a look
PENDING: Final = 2  # this client's, if its Parse, in an earlier segment, is not refused or skipped
UNCLEAR: Final = 3  # perhaps another client's: it must not be used

SESSION_MODE: Final = 0
TRANSACTION_MODE: Final = 1
STATEMENT_MODE: Final = 2
POOL_MODES: Final = ("session", "transaction", "statement")


class ClientState(ClientCodec):
    """The fields. Abstract: ``relaying.PgClientCodec`` is what is made."""

    def __init__(  # noqa: PLR0915  (a record: every field, once)
        self,
        number: int,
        pool_mode: int,
        terms: Terms,
        profiles: Profiles,
        profile: Profile,
        cap: int,
        statements: Statements | None = None,
    ) -> None:
        super().__init__()
        self.number = number  # not 0: whose left-overs a session holds is told by it
        self.pool_mode = pool_mode
        self.terms = terms
        self.profiles = profiles
        self.login_profile = profile  # what it asked for at its login
        self.startup_profile = profile  # what RESET goes back to: the same, and its tag
        self.profile = profile  # what must hold for the next statement
        self.tag = None if profile is profiles.empty else profile
        self.cap = cap  # bytes: the longest message that a client may send
        self.statements = Statements() if statements is None else statements
        # Named statements are the session's own where it is the client's, and ours where it changes hands.
        self.renames = pool_mode != SESSION_MODE
        self.home_target = ""  # the target of one that has set none, by the database that it asked for
        self.reads = False  # its transaction is READ ONLY, so it goes to a replica
        self.read_end = NOT_ENDED  # ... and its end has been sent
        self.chosen: dict[str, str] = {}  # settings of ours: what it has set, as it is shown
        self.session: PgSessionCodec | None = None

        # Outstanding work.
        self.owed: list[int] = []
        self.segment = False  # extended messages were sent, and no Sync after them yet
        self.status: int = IDLE
        self.copy_in = False  # the server wants copy data
        self.copy_extended = False  # ... for an Execute, so that a Sync must follow the end
        self.copy_synced = False  # a Sync was taken for one that is read inside the copy, and not answered
        self.intruded = False  # whether a Query that was sent where a Sync was due is answered is not certain
        self.intruder = 0  # ... and so many ReadyForQuery come before its own; -1: there are several
        self.begun_at = -1  # ReadyForQuery count when a BEGIN of its segment had succeeded
        self.failed_at = -1  # ReadyForQuery count when the server's latest error came
        self.doubt = False  # we can no longer tell exactly what is owed: the session must not be reused
        self.violated = False  # statement mode: the client opened a transaction
        self.saw_reset = False  # the client's RESET or DISCARD took its settings from the session
        self.saw_fatal = False  # the server's last words were FATAL and have been forwarded
        self.leaving = False  # the client said Terminate

        # The stream from the client.
        self.tail = b""  # a message that is not whole yet, or held back
        self.need = 0  # bytes of a message that is forwarded in pieces, still to come
        self.discard = False  # ... which is cut
        self.gathered: bytearray | None = None  # ... which is a Parse to be remembered
        self.held = bytearray()  # what came after `tail` while that is held back
        self.piece = b""  # what a verdict inserts or replaces
        self.resume_at = 0  # where the rest begins of a message whose beginning is replaced
        self.start = 0  # of what has not been collected yet, in the bytes being read
        self.chunks: list[bytes] = []  # what has been
        self.flags = 0  # found so far
        self.late = False  # the session can go once the message in pieces has passed

        # The stream from the server.
        self.back_tail = b""
        self.back_need = 0
        self.back_start = 0
        self.back_chunks: list[bytes] = []
        self.unread = False  # what follows from the last ReadyForQuery waits for the rest of a message

        # The unnamed statement.
        self.parse: bytes | None = None  # the client's Parse, as it sent it
        self.large: bytes | None = None  # it was too large to remember: an object that stands for it
        self.holds = UNTOUCHED
        self.wanted: bytes | None = None  # the Parse that the bytes waiting to be forwarded build on
        self.pending = False  # the latest Parse of it has not been confirmed ...
        self.resent = False  # ... which was sent on behalf of the client, and confirmed to it before
        self.parse_at = 0  # ... and this is its place: ReadyForQuery count, step in that
        self.parse_no = 0

        # The named statements, where the names on the session are ours: see naming.py.
        self.named: dict[bytes, Statement] = {}
        self.named_size = 0  # bytes
        self.used: Statement | None = None  # what waits to be forwarded is one execution of this
        self.unsent = b""  # ... and this is how the client sent it

        # State that the session would carry on to other clients: see pinning.py. All bits of effects.py.
        self.watches = pool_mode != SESSION_MODE and terms.rules is not None
        self.suspects = 0  # what has been sent may leave this; PINNED while `pins` is set
        self.parse_is_plain = False  # the text of the latest Parse of that says nothing of it
        self.parse_effects = 0  # ... by whoever binds the unnamed statement
        self.asks = 0  # what the server is asked about next
        self.pins = 0  # what is there: the client keeps its session
        self.placeholders: dict[str, None] = {}  # settings with a dot in their names, which no view lists
        self.listening: Sharing | None = None  # the client's part in the session that listens for all
        self.unlistens = False  # the client has sent UNLISTEN for channels of that

        # Parses, Closes and Describes whose replies mean something to us, in their order.
        self.marks: list[Mark] = []
        self.sent = 0  # messages sent that earn a ReadyForQuery, since the session was joined
        self.steps = 0  # Parses, Closes and Describes of statements sent after the last of them
        self.seen = 0  # ReadyForQuery seen
        self.steps_seen = 0  # ... and their answers seen after the last of them
        self.checking = False  # `tail` waits for the description of a statement
        self.misfit: Statement | None = None  # a statement that is not what the client was told
        self.losing = b""  # the name that its DEALLOCATE takes from it when that has succeeded
        self.clearing = 0  # DEALLOCATE ALL and DISCARD ALL that were noticed when they were sent
        self.altered = False  # the transaction has changed what tables are like

        # Refusals and statements of our own; `aside` sends every message through the cold room.
        self.aside = False
        self.skipping = False  # answered with an error by us: discard up to Sync
        self.answering = False  # this segment is answered by us
        self.blocked = False  # `tail` waits until nothing is outstanding
        self.holds_names = False  # ... or only until no ReadyForQuery is owed
        self.own: OwnStatement | None = None  # the client's unnamed statement is one of ours
        self.texts: dict[bytes, bytes] = {}  # where they are the session's: see noting.py
        self.own_named: dict[bytes, OwnStatement] = {}  # ... and those of its named ones that are
        self.own_bound: OwnStatement | None = None  # what its portal runs
        self.faults: dict[bytes, bytes] = {}  # marker -> the error that replaces the server's
        self.faults_made = 0
        self.terms_changed = False

        # A transaction that the server knows nothing of.
        self.deferred = NOT_DEFERRED
        self.begin: Begin | None = None  # the client's
        self.answered = 0  # messages to come, in the bytes being read, that have been answered already
        self.bound: bytes | None = None  # in a failed one: the statement of the client's portal
        self.opening = False  # the answer to the BEGIN that we have sent is due
        self.resume = 0  # flags to return, though an answer is owed
        self.set_aside()

    def want(self, profile: Profile) -> None:
        """These settings must hold for the next statement."""
        if profile is not self.profile:
            self.profile = profile
            self.tag = None if profile is self.profiles.empty else profile
            self.terms_changed = True

    def outstanding(self) -> bool:
        """The server owes an answer, or has messages without their Sync."""
        return bool(self.owed) or self.segment or self.copy_in or self.deferred == SENT

    def set_aside(self) -> None:
        """Keep ``aside`` true to its meaning."""
        self.aside = (
            self.skipping
            or self.answering
            or self.blocked
            or self.own is not None
            or self.deferred != NOT_DEFERRED
            or self.answered != 0
            or self.asked is not None
            or self.reads
            or (self.session is None and self.terms.begin != 0 and self.pool_mode == TRANSACTION_MODE)
        )

    def earns(self, kind: int) -> None:
        """A message is sent that earns a ReadyForQuery."""
        self.owed.append(kind)
        self.sent += 1
        self.steps = 0

    def step(self, counts: bool = True) -> None:
        """A message of the extended protocol is sent; ``counts``: one of those that are counted."""
        if counts:
            self.steps += 1
        self.segment = True

    def querying(self) -> None:
        """A simple Query is sent: it ends the unnamed statement."""
        self.queries += 1
        self.parse = self.large = None
        self.pending = False
        self.holds = OURS
        if self.segment:
            self.intrude(0)
        self.earns(QUERY)

    def intrude(self, itself: int) -> None:
        """A Query or FunctionCall is sent where a Sync is due; ``itself``: 1 if it is in ``owed`` already.

        After an error in the segment the server skips it, so whether it is answered is not certain until
        its ReadyForQuery has come without an error before it, or one while nothing else is owed one.
        (asyncpg's COPY sends such a Query, and so does pgjdbc's autosave, behind its BEGIN.)
        """
        self.intruder = -1 if self.intruded else len([kind for kind in self.owed if kind < ENDED]) - itself
        self.intruded = True
        self.segment = False
        self.holds = UNCLEAR

    def unnamed_lost(self) -> None:
        """The latest Parse was refused or skipped, or never sent: what the session holds is not certain."""
        self.pending = False
        self.holds = UNCLEAR
        if not self.resent:
            self.parse = self.large = None

    def note_unnamed(self, session: PgSessionCodec) -> None:
        """Leave word with the session whose unnamed statement it holds."""
        if self.holds == OURS and self.seen:
            session.unnamed = self.parse if self.large is None else self.large
        elif self.holds != UNTOUCHED:
            session.unnamed = session  # nobody's
        self.holds = UNTOUCHED


def missing_statement(marker: bytes) -> bytes:
    """A Bind that the server must refuse: it leaves the order of answers and the skipping to the server."""
    return message(b"B", b"\0" + marker + b"\0\0\0\0\0\0\0")
