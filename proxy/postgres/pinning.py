"""State that a session would carry from one client to the next: refused, undone, or kept for its client.

Cold. A statement that may leave something is noticed by its text or its tag; when its unit of work has ended
the server is asked what is there. While something is that cannot be undone the client keeps its session
(``state.pins``); a statement that may end it has the server asked again. StateRules are the operator's words.
"""

from typing import Final

from proxy.codec import PREPARE, RELEASE
from proxy.errors import BackendError
from proxy.postgres import asides, leftovers
from proxy.postgres.effects import (
    ENDS,
    EVERY_KIND,
    LISTENED,
    LOADED,
    LOADS,
    PINNED,
    PREPARED,
    RESETS,
    SETTINGS,
    UNLISTENS,
    effects,
    statements,
)
from proxy.postgres.messages import error
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.setting_names import names_in
from proxy.postgres.state import PASS, ClientState
from proxy.postgres.state_rules import KEPT, REFUSED, WOULD_PIN, StateRules, kinds
from proxy.postgres.state_rules import PINNED as WAS_PINNED
from proxy.postgres.statements import Statement
from proxy.steps import Conversation

# What a client may name is its own choice, so there is a bound.
_MOST_PLACEHOLDERS: Final = 64
# Instead of a client's number: what is on the session suits none.
_NOBODY: Final = -1
_SAID: Final = {
    "advisory_locks": "an advisory lock of the session",
    "temp_tables": "a temporary table",
    "hold_cursors": "a cursor WITH HOLD",
    "load": "LOAD",
    "sql_prepare": "PREPARE",
    "listen": "LISTEN",
    "settings": "SET of a setting that does not follow its client",
}
_INSTEAD: Final = {
    "advisory_locks": "Use pg_advisory_xact_lock,",
    "temp_tables": "Create it ON COMMIT DROP,",
    "hold_cursors": "Use a cursor within a transaction,",
    "sql_prepare": "Prepare it by the protocol, as drivers do,",
    "settings": "Use SET LOCAL, have track_parameters name the setting,",
}


def met(state: ClientState, data: bytes, start: int, stop: int, simple: bool) -> int:
    """A text is about to be sent, as a Query (``simple``) or the unnamed Parse: the verdict."""
    found = effects(data, start, stop)
    if not simple:
        state.parse_effects, state.parse_is_plain = 0, found == 0
    rules = state.terms.rules
    if not found or rules is None:
        return PASS
    text = data[start:stop]
    found, stays = _narrowed(state, rules, found, statements(text.lower()))
    verdict = refused(state, (found & ~SETTINGS) | (SETTINGS if stays else 0), simple)
    if verdict != PASS:
        return verdict
    if found & UNLISTENS and state.listening is not None:
        state.listening.overhear(text)
    state.suspects |= found
    if not simple:
        state.parse_effects = found
    return PASS


def met_named(state: ClientState, data: bytes, start: int, stop: int) -> int:
    """The same for the Parse of a named statement, whose effects are those of each Bind."""
    found = effects(data, start, stop)
    rules = state.terms.rules
    if not found or rules is None:
        return PASS
    _, stays = _narrowed(state, rules, found, statements(data[start:stop].lower()))
    return refused(state, (found & ~SETTINGS) | (SETTINGS if stays else 0), False)


def used(state: ClientState, statement: Statement) -> None:
    """A named statement that may leave something is about to run."""
    state.suspects |= statement.effects
    if statement.effects & UNLISTENS and state.listening is not None:
        state.listening.overhear(statement.text())


def refused(state: ClientState, found: int, simple: bool) -> int:
    """The verdict on a statement with these effects, as far as it is to be refused."""
    rules = state.terms.rules
    if rules is None:
        return PASS
    said = found | (LOADED if found & LOADS else 0)
    bad = said & rules.refusing(state.listening is not None)
    if not bad:
        return PASS
    rules.count(bad, REFUSED)
    return asides.refuse_here(state, _refusal(state, rules, kinds(bad)[0]), simple)


def _refusal(state: ClientState, rules: StateRules, kind: str) -> bytes:
    pool = state.terms.pool
    if rules.by_statement:
        detail = "A session is given to another client after each statement."
        cure = f'set pools.{pool}.pool_mode = "transaction", or pools.{pool}.on_{kind} = "allow".'
    else:
        detail = "A session is given to another client at the end of each transaction."
        cure = f'set pools.{pool}.on_{kind} = "pin", so that the client keeps its session meanwhile.'
    start = _INSTEAD.get(kind, "")
    hint = f"{start} or {cure}" if start else cure[0].upper() + cure[1:]
    return error("ERROR", "0A000", f"{_SAID[kind]} is refused by this pool", detail=detail, hint=hint)


# -- settings by their names ------------------------------------------------------------------------


def _narrowed(state: ClientState, rules: StateRules, found: int, parts: list[bytes]) -> tuple[int, bool]:
    """Leave out what the names of settings show to be harmless; whether one is set that stays behind."""
    names = names_in(parts) if found & SETTINGS else None
    if names is None:
        return found, False
    for name in names:
        if leftovers.is_placeholder(name) and len(state.placeholders) < _MOST_PLACEHOLDERS:
            state.placeholders[name] = None
    unreported = [name for name in names if name not in rules.reported]
    stays = [name for name in unreported if not _follows(state, rules, name)]
    is_set = bool(stays) and not found & RESETS
    if any(b"set_config" in part for part in parts):
        # No tag will tell that it has been called.
        return found, is_set
    if not unreported and found & RESETS:
        state.saw_reset = True
    if len(unreported) == len(stays) and not (stays and rules.pins & SETTINGS):
        # The server reports it, or it is undone before another client gets the session: its tag tells.
        found &= ~(SETTINGS | RESETS)
    return found, is_set


def _follows(state: ClientState, rules: StateRules, name: str) -> bool:
    return rules.follows(name) or name in state.startup_profile.settings


def _settled(state: ClientState, rules: StateRules, settings: dict[str, str | None]) -> bool:
    """Take over what is set on the session; True where something is that does not follow the client."""
    session = state.session
    assert session is not None
    own: dict[str, str] = {}
    others = False
    for name, value in settings.items():
        if session.baseline.get(name, "") == value and name in session.baseline:
            continue
        if name == "role" and value == session.upkeep.role:
            continue
        if value is not None and _follows(state, rules, name):
            own[name] = value
        else:
            others = True
    if any(name not in settings for name in session.baseline):
        # The client's RESET has undone what the session was opened with: that is done again for whoever
        # comes next, be it the same.
        session.touched_by = _NOBODY
    authorization = session.reported.get("session_authorization")
    if authorization is not None and "session_authorization" in session.profile.settings:
        own["session_authorization"] = authorization
    session.profile = state.profiles.of(own)
    state.want(state.profiles.of({**state.startup_profile.settings, **own}))
    return others


# -- the end of a unit of work ----------------------------------------------------------------------


def tagged(state: ClientState, tag: bytes) -> None:
    """LISTEN, PREPARE or LOAD has completed."""
    if tag == b"LISTEN":
        state.suspects |= LISTENED
        if state.listening is not None:
            state.listening.listened()
    else:
        state.suspects |= PREPARED if tag == b"PREPARE" else LOADED


def unit_ended(state: ClientState) -> int:
    """The session could go home, but for what may be left on it: the flags that follow."""
    rules, session = state.terms.rules, state.session
    found, state.suspects = state.suspects, PINNED if state.pins else 0
    if rules is None or session is None:
        return RELEASE
    asked = rules.asking(state.listening is not None)
    if found & SETTINGS:
        session.touched_by = state.number
    if found & EVERY_KIND & ~(asked | LOADED):
        # Not kept for the client, and not seen by another.
        session.touched_by, session.deep = state.number, True
    state.asks = found & (asked | (LOADED & rules.pins))
    if found & ENDS:
        state.asks |= state.pins & ~LOADED
    if not state.asks:
        return 0 if state.pins else RELEASE
    # The question takes the unnamed statement from the session.
    state.note_unnamed(session)
    return PREPARE


def ask(state: ClientState) -> Conversation[bytes]:
    """Ask what is there, and keep the session for the client or let it go. Raises BackendError."""
    session, rules = state.session, state.terms.rules
    assert session is not None
    assert rules is not None
    if session.ended:
        # What the client has set on it is not known, and its other sessions would lack that.
        raise BackendError(f"the server said: {session.ended}")
    asks, state.asks = state.asks, 0
    session.littered = True  # where we do not get so far as to know better
    told: list[bytes] = []
    left = asks & LOADED
    shared = asks & LISTENED if state.listening is not None and rules.shares else 0
    if asks & ~(LOADED | shared):
        found = yield from _found(state, session, rules, asks & ~(LOADED | shared), told)
        left |= found
    pins = (state.pins & ~asks) | (left & rules.pinning(state.listening is not None))
    _keep(state, session, rules, pins)
    if session.profile is not state.profile:
        settings = yield from session.adopt(state.profile, state.number)
        told.append(settings)
    if shared and state.listening is not None:
        # Where the client has other state on the session, that cannot become the shared one.
        become = KEPT
        if not state.pins:
            become = yield from state.listening.settle()
        if become == KEPT:
            _keep(state, session, rules, state.pins | LISTENED)
    session.littered = False
    state.back_tail, session.tail = session.tail, b""
    return b"".join(told)


def _found(
    state: ClientState, session: PgSessionCodec, rules: StateRules, asks: int, told: list[bytes]
) -> Conversation[int]:
    """Which of these kinds are there; settings are taken over."""
    own = [name for name in state.profile.settings if "." in name]
    names = list(dict.fromkeys([*rules.dotted, *state.placeholders, *own]))
    answer = yield from leftovers.ask(session, asks, names, told)
    if answer is None:
        # The server does not say, so it may be there.
        return asks & ~SETTINGS
    left = answer.left
    if asks & SETTINGS and _settled(state, rules, answer.settings):
        left |= SETTINGS
    return left


def _keep(state: ClientState, session: PgSessionCodec, rules: StateRules, pins: int) -> None:
    begun = pins & ~state.pins
    if rules.dry_run:
        rules.count(begun, WOULD_PIN)
        if begun & ~(LOADED | SETTINGS):
            session.touched_by, session.deep = state.number, True
        pins = 0
    else:
        rules.count(begun, WAS_PINNED)
    rules.hold(state.pins, pins)
    state.pins = pins
    state.suspects = (state.suspects | PINNED) if pins else (state.suspects & ~PINNED)
    # As after a message in pieces: with the next look the session goes home.
    state.late = pins == 0


def parted(state: ClientState) -> None:
    """The client lets go of its session, with whatever is, or may be, on it."""
    session, rules = state.session, state.terms.rules
    if session is not None and (state.pins or state.suspects & EVERY_KIND):
        session.touched_by, session.deep = state.number, True
        session.littered = True
        if state.pins & LOADED:
            session.spoiled = "a library was loaded into it"
    if state.pins and rules is not None:
        rules.hold(state.pins, 0)
    state.pins = state.suspects = state.asks = 0
