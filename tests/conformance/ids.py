"""Every behaviour that this pool has from its ancestors, by its id, and what of theirs it does otherwise.

``BEHAVIOURS`` has one line for each; a test named for it shows it (test_a01_... shows A1), and
test_completeness.py sees to it that none is left out. ``DOES_NOT_APPLY`` gives the reason for each that
has no test. ``python tests/conformance/ids.py`` prints all of it.
"""

import re

BEHAVIOURS = {
    "A1": "wait: whoever waits on a full pool is served as soon as another client releases",
    "A2": "nowait on a full pool: refused at once, and the pool works afterwards",
    "A3": "nowait with room to grow: waits for the connect, and for nothing else",
    "A4": "nowait during the initial fill: what is being opened counts as available",
    "A5": "timedwait: gives up after wait_timeout, with an error that is told apart",
    "A6": "a client's own timeout wins over the configured one",
    "A7": "wait_timeout is read back as it was set, and can be set at run time",
    "A8": "timedwait: ping and connect are within the time, however long they hang",
    "A9": "after many timeouts on a full pool, opened is still at most max",
    "A10": "a timeout in the same instant as a handoff loses no session",
    "A11": "forceget: as many sessions as are wanted, and max again after their release",
    "A12": "forceget: an extra session stays where fewer than max are open; opened is the truth",
    "A13": "waiters are served in their order; a release serves one whose connect is under way",
    "A14": "a pool with min 0 serves its first client",
    "A15": "increment: the first connect of a step is waited for, the rest comes by itself, up to max",
    "A16": "increment 0 is taken as 1 below max, and allowed where the size is fixed",
    "A17": "max below min is refused",
    "A18": "another getmode takes effect with the next acquire",
    "A19": "a failed connect is told to whoever caused it, and leaves nothing behind",
    "A20": "many clients with many acquires each: all succeed, nothing leaks",
    "O1": "lifo: the one that came back last",
    "O2": "lru: the one that came back first",
    "O3": "tiered: the core in turn, the extras last in, first out",
    "O4": "a used session before one that nobody has held",
    "H1": "idle for less than ping_interval: no ping; for longer: one",
    "H2": "always pings each reuse, off none; a new session is not pinged",
    "H3": "a failed ping: that session is closed, the next tried, then one opened; the client sees nothing",
    "H4": "all idle sessions killed: an acquire succeeds, and min comes back by itself",
    "H5": "a black hole costs ping_timeout at most, and nobody else waits for it",
    "H6": "the background pings what is overdue, the longest first, and nothing else",
    "H7": "an unexpected error of a ping loses no slot",
    "H8": "a session that the server has ended is never handed out, even without pings",
    "H9": "the socket of a dead session is closed",
    "H10": "a ping leaves the settings of the session as they were",
    "R1": "what the last client left undone is undone before the next one gets the session",
    "R2": "where that fails, the session is closed and its slot is free",
    "R3": "a second release, or a stranger's, is an error and changes nothing",
    "R4": "a drop lowers opened and busy, and min comes back",
    "R5": "a session that is found closed on its way home is not pooled",
    "R6": "max_idle: above it the returned session is closed, below it is kept",
    "R7": "to close a session that has gone already is silent",
    "R8": "a release waits for nobody else's connect",
    "R9": "an error of whoever is handed a session is reported, and costs no slot",
    "I1": "idle_timeout brings opened back to min",
    "I2": "the longest idle goes first, a recently used one stays",
    "I3": "a busy session is never reaped",
    "I4": "a pool that nobody uses is reaped as well",
    "I5": "not later than twice the timeout",
    "I6": "min_per_endpoint: each endpoint keeps its floor",
    "I7": "idle_timeout is for extras only, the core stays",
    "L1": "max_lifetime is looked at on release",
    "L2": "and on acquire",
    "L3": "and in the background",
    "L4": "a session that is too old is never handed out",
    "L5": "the core and min are no exception",
    "L6": "with jitter, sessions that were opened together do not end together",
    "D1": "without a background, a release closes no more than its batch",
    "E1": "an endpoint has a bound of its own",
    "E2": "the bound of the whole pool holds up another endpoint",
    "E3": "at that bound an idle session elsewhere makes room, and the total stays",
    "E4": "extras make room before the core, the soonest to end first",
    "E5": "where one shard is full, another one can still be opened",
    "K1": "the same class gets the same session back",
    "K2": "at max, another class replaces an idle session; opened stays",
    "K3": "a waiter of another class is served by a release, with another session",
    "K4": "where the connect of a replacement fails, its slot is not lost",
    "K5": "a waiter for a new session is served by a release, too",
    "P1": "new: nothing of an earlier user is to be seen, and opened does not grow at max",
    "P2": "self: a session that was used may be had, as it was left",
    "T1": "a tag finds its session again; who wants none gets an unchanged one",
    "T2": "a tag that is no tag is refused, and the session stays usable",
    "T3": "a session is made to fit where its tag is not the one that is wanted, and only there",
    "T4": "a new session is prepared once, however often it is reused",
    "T5": "where that fails, the acquire fails, and the next one tries again",
    "T6": "any takes a session with another tag, and knows both",
    "U1": "homogeneous: nobody runs as anybody but the pool's user",
    "U2": "heterogeneous: the right user each time; a refused login leaves nothing behind",
    "U3": "heterogeneous: what min means where users differ",
    "F1": "the same key means the same session, even at max",
    "F2": "given up, the key is free",
    "F3": "given up twice is an error",
    "F4": "affinity by client: it keeps one session until it goes",
    "C1": "a pool that nobody uses closes",
    "C2": "a pool in use refuses to, and goes on",
    "C3": "by force, who holds is cut and who waits is told",
    "C4": "an acquire after the end says so",
    "C5": "a drain waits for who holds, up to its timeout, and then cuts them",
    "C6": "nothing is opened once the end has begun",
    "C7": "a release after the end neither fails nor pools",
    "C8": "clear closes what is idle, and is not stopped by a close that fails",
    "C9": "to change one parameter leaves the others as they were",
    "C10": "an invalid value refuses the whole change",
    "B1": "after the start each session has one begun transaction",
    "B2": "after a finished transaction one is begun before the session is to be had",
    "B3": "an open transaction is rolled back and never passed on",
    "B4": "a begin that fails loses no slot",
}

# Behaviours that no test shows, each with its reason.
DOES_NOT_APPLY: dict[str, str] = {}

_SHOWS = re.compile(r"test_(?:postgres_)?([a-z])(\d\d)_")


def shown_by(test: str) -> str | None:
    """The id of the behaviour that a test is named for; None for one that is named for none."""
    found = _SHOWS.match(test)
    return None if found is None else f"{found[1].upper()}{int(found[2])}"


if __name__ == "__main__":
    for name, line in BEHAVIOURS.items():
        print(f"{name:>4}  {line}")
        if name in DOES_NOT_APPLY:
            print(f"      does not apply: {DOES_NOT_APPLY[name]}")
