"""What this pool does otherwise than its ancestors, on purpose: the one list of it.

The comparer (compare.py) consults it where a library and our pool part ways, test_differences.py shows
those that can be shown on the libraries themselves, and docs/ancestors.md carries it as tables, which
``python tests/conformance/differences.py`` writes.
"""

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "ancestors.md"


@dataclass(frozen=True)
class Difference:
    """``whose``: the section of the page. ``id`` is how the comparer and the tests name it."""

    id: str
    whose: str
    theirs: str
    ours: str
    why: str


DIFFERENCES = (
    # -- all of them ----------------------------------------------------------------------------
    Difference(
        "back_off",
        "all",
        "after a failed connect the next request tries at once",
        "nothing is tried for a moment (0.1 s, doubling up to `breaker_timeout`); requests that have no"
        " session to wait for get the server's error at once",
        "a server that is down, or coming up, is not stormed",
    ),
    Difference(
        "waits_on",
        "all",
        "a request whose connect fails is told so at once",
        "while others hold sessions, it goes on waiting for one of theirs, as its getmode allows (`nowait`:"
        " it is told at once)",
        "a server that takes no more connections still serves those that it has",
    ),
    Difference(
        "first_session",
        "all",
        "a pool without a minimum opens nothing before the first request",
        "one session is opened at the start, and after a failure until one works again",
        "it shows that the server can be reached, and tells the parameters that clients get at login",
    ),
    Difference(
        "hooks",
        "all",
        "an error in a hook of the application puts the session back as it is",
        "a session that could not be prepared, reset or handed over is closed, and its slot is free",
        "nobody knows what state it is in",
    ),
    # -- Oracle ---------------------------------------------------------------------------------
    Difference(
        "oracle_counts",
        "oracle",
        "a replacement whose connect fails, and a surplus session dropped at release, stay counted as open"
        " (python-oracledb thin): in the end the pool is full of nothing",
        "`opened` is the number of sessions that are there",
        "a slot is owned by a session and goes with it",
    ),
    Difference(
        "oracle_forceget",
        "oracle",
        "forceget opens without end",
        "`max_forced` more than `max`, by default as many as `max`; then it waits as timedwait does",
        "the server's limit is somebody's, too",
    ),
    Difference(
        "oracle_new",
        "oracle",
        "who waits for purity `new` is passed over when a used session comes back, and waits on",
        "that session is closed and a new one opened in its place",
        "the waiter would wait for ever beside an idle session",
    ),
    Difference(
        "oracle_own_connect",
        "oracle",
        "a request that has a connect under way waits for it, even when a session comes free",
        "it is served by whatever comes first; the connect becomes idle",
        "a client should not wait longer than it must",
    ),
    Difference(
        "oracle_serial",
        "oracle",
        "connects, pings and closes of a pool run one after the other (thin)",
        "in parallel: `max_opening` connects for each server, `io_parallel` pings and closes",
        "one black hole must not hold up everybody",
    ),
    Difference(
        "oracle_refill",
        "oracle",
        "an initial fill that fails is not tried again until somebody acquires (thin)",
        "`min` is tried again in the background, with a growing delay",
        "a pool that was started before its server should recover",
    ),
    Difference(
        "oracle_lifetime",
        "oracle",
        "max_lifetime_session is looked at on acquire and release only",
        "in the background as well, with a jitter of your choice",
        "idle sessions grow old, too",
    ),
    Difference(
        "oracle_reconfigure",
        "oracle",
        "attributes are changed one after the other; an error in the middle leaves half of them changed",
        "all, or none",
        "a pool should never have limits that nobody wrote",
    ),
    Difference(
        "oracle_users",
        "oracle",
        "a heterogeneous pool ignores min",
        "`min` is filled for the pool's own user, and users share `max`",
        "the pool has a user of its own to open for",
    ),
    Difference(
        "oracle_timeout",
        "oracle",
        "a surplus above min that is idle may be kept up to twice the timeout",
        "at most a second longer than `idle_timeout`",
        "the reaper looks every second",
    ),
    # -- Spanner --------------------------------------------------------------------------------
    Difference(
        "spanner_slot_leak",
        "spanner",
        "when a check, a ping or the creation of a replacement fails, the session that was taken out of the"
        " pool is lost: a pool of two becomes a pool of one, and then of none",
        "the session is closed, the slot is free, and the pool opens another one",
        "a slot must not be lost by any error",
    ),
    Difference(
        "spanner_create_at_max",
        "spanner",
        "for a session that does not exist any more another one is created at once, whatever is idle",
        "so it is where there is room; at `max` the slot of the dead one is taken until the server has ended"
        " it, and the client meanwhile gets the next idle session",
        "the bound is the server's truth, and a client should not wait beside an idle session",
    ),
    Difference(
        "spanner_replaced_last",
        "spanner",
        "what PingingPool creates for a session that its ping found dead takes that one's place in the order",
        "it comes last, as the one that was idle for the shortest time",
        "that is what `lru` says",
    ),
    Difference(
        "spanner_unbounded",
        "spanner",
        "BurstyPool bounds what is idle; what is open has no bound",
        "`max_forced` above `max`, then as timedwait",
        "a leak in one application must not take the server from all",
    ),
    Difference(
        "spanner_pending",
        "spanner",
        "a session that came back to TransactionPingingPool cannot be had until the application calls"
        " begin_pending_transactions(); `ping()` is the application's business as well",
        "Penstock begins, and pings, by itself",
        "a pool that is forgotten should not run empty",
    ),
    Difference(
        "spanner_open_transaction",
        "spanner",
        "a session that comes back with its transaction still open is handed on with it",
        "rolled back first; older than `begin_max_age`: rolled back and begun again",
        "nobody may see, or commit, what somebody else began",
    ),
    Difference(
        "spanner_stranger",
        "spanner",
        "put() takes any session; the rightful one then finds the pool full",
        "a release by somebody who does not hold the session is an error and changes nothing",
        "a mistake should hurt whoever makes it",
    ),
    Difference(
        "spanner_clear",
        "spanner",
        "clear() stops at the first session that the server does not know any more",
        "it goes on with the others",
        "what cannot be deleted is gone already",
    ),
    Difference(
        "spanner_labels",
        "spanner",
        "sessions that are created ahead carry no labels",
        "every session does",
        "that is what labels are for",
    ),
    # -- generic_connection_pool ----------------------------------------------------------------
    Difference(
        "generic_expired",
        "generic",
        "a connection older than max_lifetime is handed out, unless a release or the collector met it first",
        "never",
        "max_lifetime is a promise",
    ),
    Difference(
        "generic_dead_socket",
        "generic",
        "a connection that is found dead is forgotten; its socket is left to the garbage collector",
        "closed, and its slot is taken until the server has ended it",
        "the bound is the server's truth",
    ),
    Difference(
        "generic_floor",
        "generic",
        "idle extras go even where the core has died: an endpoint may end with nothing",
        "the last `min_per_endpoint` sessions of an endpoint stay, whichever they are",
        "the floor is about how many, not which",
    ),
    Difference(
        "generic_evict_core",
        "generic",
        "whatever has the soonest deadline makes room, be it of the core",
        "extras before the core, the soonest deadline first among each",
        "the core is what one wanted to keep",
    ),
    Difference(
        "generic_barging",
        "generic",
        "a release wakes one waiter, and a newcomer may be quicker",
        "the session is handed to the first waiter",
        "first come, first served",
    ),
    Difference(
        "generic_close",
        "generic",
        "close(timeout) spins until the last connection comes back, whatever the timeout; a waiter that wakes"
        " meanwhile gets a new connection from a closed pool",
        "waiters are refused, nothing is opened any more, and after `drain_timeout` those who hold a session"
        " are cut",
        "a timeout should be one",
    ),
    # -- psycopg2 -------------------------------------------------------------------------------
    Difference(
        "psycopg2_slot_leak",
        "psycopg2",
        "when the rollback in putconn fails, the connection stays counted as used for ever",
        "the session is closed and its slot is free",
        "a slot must not be lost by any error",
    ),
    Difference(
        "psycopg2_dead",
        "psycopg2",
        "getconn hands out connections that the server has closed",
        "one that the server has ended leaves the pool at once",
        "Penstock reads its sockets also while nobody uses them",
    ),
    Difference(
        "psycopg2_key",
        "psycopg2",
        "getconn(key) with a key in use returns the same connection to both",
        'the second waits for the first (`getmode` "nowait": is refused)',
        "two programs on one connection would read each other's answers",
    ),
    Difference(
        "psycopg2_min_above_max",
        "psycopg2",
        "minconn above maxconn is accepted, and more than maxconn are then in use",
        "refused by the configuration",
        "max is a bound",
    ),
    Difference(
        "psycopg2_closeall",
        "psycopg2",
        "after closeall(), putconn raises in whoever still works",
        "who comes home after the end is closed without an error",
        "it did nothing wrong",
    ),
)

# Those that no test of their own shows on the library: which behaviours or parameters show what ours does.
SHOWN_BY = {
    "back_off": ("A19",),
    "hooks": ("R2", "R9", "T5"),
    "oracle_counts": ("A12", "K4"),
    "oracle_forceget": ("A11",),
    "oracle_new": ("K5",),
    "oracle_own_connect": ("A13",),
    "oracle_serial": ("H5", "R8"),
    "oracle_refill": ("H4", "R4"),
    "oracle_lifetime": ("L3", "L6"),
    "oracle_reconfigure": ("C10",),
    "oracle_users": ("U3",),
    "oracle_timeout": ("I5",),
    "spanner_open_transaction": ("B3",),
    "spanner_replaced_last": ("O2", "H6"),
    "spanner_labels": ("labels",),
    "generic_barging": ("A13",),
}

WHOSE = tuple(dict.fromkeys(one.whose for one in DIFFERENCES))
BY_ID = {one.id: one for one in DIFFERENCES}


def table(whose: str) -> str:
    """The differences from one ancestor, as the page has them."""
    rows = [f"| {one.theirs} | {one.ours} | {one.why} |" for one in DIFFERENCES if one.whose == whose]
    return "\n".join(["| there | here | because |", "|---|---|---|", *rows])


def with_tables(page: str) -> str:
    """The page with every table of differences as it is in the list above."""
    for whose in WHOSE:
        begin, end = f"<!-- differences: {whose} -->", "<!-- end -->"
        head, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"docs/ancestors.md has no place for the differences of {whose!r}: {begin}")
        page = f"{head}{begin}\n{table(whose)}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
