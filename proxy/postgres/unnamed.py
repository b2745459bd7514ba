"""The unnamed statement of a client, on whichever session serves it: another client's is never used for it.

Cold. It is the client's own as long as the session has seen nothing else; where that is not certain the
client's Parse is sent once more, and its reply swallowed.
"""

from proxy.postgres import asides, deallocating, pinning
from proxy.postgres.own import concerns
from proxy.postgres.state import INSERT, OURS, PASS, PENDING, UNTOUCHED, ClientState
from proxy.postgres.statements import UNNAMED, Mark


def parse(state: ClientState, data: bytes, pos: int, stop: int) -> int:
    """A Parse of it."""
    plain = not deallocating.may_concern(data, pos + 6, stop)
    if stop - pos > 6 and concerns(data, pos + 6, stop):
        plain = False
        verdict = asides.own_parse(state, data, pos, stop)
        if verdict != PASS:
            return verdict
    if state.watches:
        verdict = pinning.met(state, data, pos + 6, stop, False)
        if verdict != PASS:
            return verdict
        plain = plain and state.parse_is_plain
    text = data[pos:stop]
    if plain:
        state.statements.note_plain(text)
    effects = state.parse_effects
    parsed(state, text)
    state.parse_effects = effects
    return PASS


def parsed(state: ClientState, text: bytes) -> None:
    """A Parse of it is sent, and nothing else has to be done about it."""
    state.parse_effects = 0
    if state.own is not None:
        state.own = None
        state.set_aside()
    state.parse, state.large = text, None
    state.holds = OURS
    state.pending, state.resent = True, False
    state.parse_at, state.parse_no = state.sent, state.steps
    state.step()


def bring(state: ClientState) -> int:
    """Make sure that the session has it, for a Bind or Describe."""
    if not state.renames and state.holds != UNTOUCHED:
        return PASS  # the session is the client's own, so what it holds is what the client has made of it
    own, session = state.parse, state.session
    state.suspects |= state.parse_effects
    if state.holds == UNTOUCHED:
        if session is not None:
            stands_for = state.large if own is None else own
            if stands_for is not None and session.unnamed is stands_for:
                state.holds = OURS
                return PASS
        elif own is not None:
            state.wanted = own
            state.holds = OURS
            return PASS
    if state.holds == PENDING and not state.segment:
        # Were its Parse skipped, then to send it again would run what must not run.
        return asides.hold(state)
    if own is None or state.doubt or state.intruded:
        # Where replies cannot be counted any more, none can be swallowed.
        return asides.refuse_unnamed(state)
    state.marks.append(Mark(state.sent, state.steps, UNNAMED, None, b""))
    state.parse_at, state.parse_no = state.sent, state.steps
    state.resent = state.resent or state.holds != PENDING
    state.pending = True
    state.holds = OURS
    state.step()
    state.piece = own
    return INSERT
