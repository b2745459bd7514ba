"""What a completed command says of the session: settings, statements and channels that are others now.

Cold, beside the scan in responses.py.
"""

from proxy.codec import PREPARE
from proxy.postgres import marking, naming, overheard, pinning
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.state import SESSION_MODE, ClientState


def tagged(state: ClientState, tag: bytes) -> None:
    """A command has completed that may change what the session is like for others."""
    session = state.session
    if session is None:
        return
    if state.listening is not None:
        overheard.tagged(state, tag)
    if tag == b"SET" or tag == b"RESET" or tag == b"DISCARD ALL":
        _set(state, session, tag)
    elif state.watches and (tag == b"LISTEN" or tag == b"PREPARE" or tag == b"LOAD"):
        pinning.tagged(state, tag)
    elif tag == b"LISTEN" or tag == b"PREPARE":
        session.touched_by = state.number
        session.deep = True
    elif tag == b"DEALLOCATE ALL":
        _cleared(state, session)
    elif tag == b"DEALLOCATE" and state.losing:
        naming.lose(state, state.losing)
    elif tag[:5] == b"ALTER" or tag[:4] == b"DROP":
        state.altered = True


def _set(state: ClientState, session: PgSessionCodec, tag: bytes) -> None:
    session.touched_by = state.number
    if tag != b"SET":
        state.saw_reset = True
    if tag == b"DISCARD ALL":
        _cleared(state, session)


def _cleared(state: ClientState, session: PgSessionCodec) -> None:
    """The server has forgotten all named statements, and the client knows."""
    if state.clearing:
        # It was seen when it was sent, and what came behind it is prepared already.
        state.clearing -= 1
    elif state.renames:
        marking.cleared(state, session)


def settings_reset(state: ClientState) -> int:
    """RESET goes back to what the client asked for at its login; the session has only its defaults.

    RESET of one setting and RESET ALL look alike from here, so what is reported decides.
    """
    state.saw_reset = False
    session = state.session
    if session is None:
        return 0
    kept: dict[str, str] = {}
    for name, value in session.reported.items():
        if name.lower() in state.profiles.tracked and session.defaults.get(name) != value:
            kept[name.lower()] = value
    if state.watches:
        # What the server does not report it is asked about, where it may have been reset.
        reported = state.terms.reported()
        own = session.profile.settings
        kept.update({name: value for name, value in own.items() if name not in reported})
    if kept:
        session.profile = state.profiles.of(kept)
        state.want(state.profiles.of({**state.startup_profile.settings, **kept}))
    else:
        session.profile = state.profiles.empty
        state.want(state.startup_profile)
    if state.pool_mode != SESSION_MODE or session.profile is state.profile:
        return 0
    # To prepare the session again may take its unnamed statement from it.
    state.note_unnamed(session)
    return PREPARE
