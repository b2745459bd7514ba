"""Six clients at once, where a login to the server takes a second: how long until the last one is served.

The server has been told to wait a second after every login (`post_auth_delay`), and a proxy has one
session open when the six come. Each begins a transaction and keeps its session until all six
are served: so five more have to be opened, and what shows is whether they are opened side by side.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import peers
from measuring import Bench, Curves, Scenario
from running import Peer, Place
from wire import Client

from proxy.embedded import EmbeddedPostgres

NAME = "Logins of 1 s, 6 clients at once"
CLIENTS = 6
LIMIT = 2.5
ROUNDS = 3
PATIENCE = 60.0
COLUMNS = ["peer", "the last was served after (fastest to slowest)", "each of them, in seconds"]
NOTE = (
    "A server with `post_auth_delay = 1`. One session is open when the six come; each keeps its session "
    f"until all are served. {ROUNDS} rounds, each with a proxy that was started anew."
)


def run(bench: Bench) -> Iterator[tuple[Scenario, Curves]]:
    """Penstock, and every PgBouncer."""
    if not bench.wants(NAME):
        return
    lines, met = [], False
    with EmbeddedPostgres(options={"post_auth_delay": "1"}) as server:
        place = Place(server, bench.place.folder)
        makers: list[Callable[[Place], Peer]] = [peers.penstock]
        makers += [partial(peers.pgbouncer, program=path) for path in peers.pgbouncers()]
        for make in makers:
            label, rounds = _rounds(bench, place, make)
            lasts = [max(each) for each in rounds]
            middle = statistics.median(lasts)
            spread = f"{middle:.2f} s ({min(lasts):.2f} to {max(lasts):.2f})"
            lines.append([label, spread, ", ".join(f"{value:.2f}" for value in rounds[0])])
            if make is makers[0]:
                met = middle <= LIMIT
    yield Scenario(NAME, COLUMNS, lines, f"the last served within {LIMIT:g} s", met, NOTE), {}


def _rounds(bench: Bench, place: Place, make: Callable[[Place], Peer]) -> tuple[str, list[list[float]]]:
    found, label = [], ""
    for _ in range(ROUNDS):
        with bench.note(make(place)) as peer:
            label = peer.label
            found.append(served(peer.port, place.server.user, place.server.database))
    return label, found


def served(port: int, user: str, database: str) -> list[float]:
    """Seconds until each of the clients had the answer to its first query, the earliest first."""
    with Client(port, user, database) as first:
        first.ask("SELECT 1")
    start, everybody = threading.Barrier(CLIENTS), threading.Barrier(CLIENTS)
    took: list[float] = []

    def come() -> None:
        start.wait(PATIENCE)
        began = time.monotonic()
        try:
            with Client(port, user, database) as client:
                client.ask("BEGIN")
                client.ask("SELECT 1")
                took.append(time.monotonic() - began)
                everybody.wait(PATIENCE)
                client.ask("COMMIT")
        except BaseException:
            everybody.abort()  # the others need not wait for one who will not come
            raise

    threads = [threading.Thread(target=come) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(took) != CLIENTS:
        raise SystemExit(f"only {len(took)} of {CLIENTS} clients were served")
    return sorted(took)
