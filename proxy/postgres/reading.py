"""A transaction that is READ ONLY, and runs on a replica: what is sent behind its end must not.

The client has said so by BEGIN; nothing is guessed. Its session is the replica's until the server has
answered the end of the transaction, so what a pipeline has behind that waits until then. What follows in
the same segment, before a Sync, cannot wait: the server refuses it there if it writes. Cold.
"""

from proxy.postgres import asides
from proxy.postgres.begin import Begin, may_end, read_end, text_of
from proxy.postgres.state import NOT_ENDED, SEGMENT_ENDS, TRANSACTION_ENDS, ClientState


def aim(state: ClientState, begin: Begin) -> None:
    """A transaction begins: if it is READ ONLY, and its client has named no target, a replica will do."""
    if begin.reads and state.terms.reads_elsewhere and not state.target:
        state.reads, state.target, state.terms_changed = True, "replica", True
        state.read_end = NOT_ENDED
        state.set_aside()


def over(state: ClientState) -> None:
    """It has ended, or never began."""
    state.reads, state.target, state.terms_changed = False, "", True


def met(state: ClientState, kind: int, data: bytes, pos: int, stop: int) -> int:
    """The verdict on a message while such a transaction has a session; -1 hands it to the plain scan."""
    if state.read_end == TRANSACTION_ENDS:
        if state.outstanding():
            return asides.hold(state, kind == 81)
        state.read_end = NOT_ENDED  # it was not the end after all
    if kind == 83:  # S
        if state.read_end == SEGMENT_ENDS:
            state.read_end = TRANSACTION_ENDS
    elif kind == 81 and may_end(data, pos + 5) and _ends(text_of(data, pos, stop)):  # Q
        state.read_end = TRANSACTION_ENDS
    elif kind == 80 and _ends_unnamed(data, pos, stop):
        state.read_end = SEGMENT_ENDS
    return -1


def _ends_unnamed(data: bytes, pos: int, stop: int) -> bool:
    if stop - pos < 8 or data[pos + 5] != 0 or not may_end(data, pos + 6):
        return False
    return _ends(asides.parsed(data, pos, stop))


def _ends(text: bytes) -> bool:
    end = read_end(text)
    return end is not None and not end.chain
