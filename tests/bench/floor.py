"""The least that a relay in Python costs: a COPY of 100 MB through one that looks at nothing.

    .venv-compiled/bin/python tests/bench/floor.py

It reads into one buffer and sends from it, with buffers of several sizes; beside it Penstock and a PgBouncer
with pkt_buf=65536. Medians of five alternating rounds (BENCH_ROUNDS), ms of proxy CPU for each COPY.
"""

import os
import select
import socket
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # its neighbours, wherever this is started from

import copying
import peers
from measuring import Bench
from rows import TUNED
from running import Peer, Place, free_port

from proxy.embedded import EmbeddedPostgres, binaries

SIZES = (65_536, 262_144, 1_048_576)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def relay(port: int, server: int, size: int) -> None:
    """Serve one connection at a time, for ever."""
    buffer = memoryview(bytearray(size))
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", server)) as backend, select.epoll() as poll:
                _pass_on(
                    poll, {client.fileno(): (client, backend), backend.fileno(): (backend, client)}, buffer
                )


def _pass_on(
    poll: select.epoll, ways: dict[int, tuple[socket.socket, socket.socket]], buffer: memoryview
) -> None:
    for number, (source, _) in ways.items():
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(number, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            source, target = ways[number]
            count = source.recv_into(buffer)
            if not count:
                return
            target.sendall(buffer[:count])


def plain(place: Place, size: int) -> Peer:
    """A relay with a buffer of so many bytes."""
    port = free_port()
    command = (sys.executable, __file__, str(port), str(place.server.port), str(size))
    return Peer("relay", f"relay, {size} bytes", "", port, "", place.room("relay"), command, as_root=True)


def main() -> None:
    """Compare."""
    if len(sys.argv) == 4:
        relay(*map(int, sys.argv[1:]))
    with (
        EmbeddedPostgres() as server,
        tempfile.TemporaryDirectory(prefix="penstock-floor-", dir="/tmp") as temp,
        ExitStack() as running,
    ):
        Path(temp).chmod(0o755)
        place = Place(server, Path(temp))
        bench = Bench(place, binaries.find_programs() / "pgbench", None, ROUNDS, 1, "")
        source = place.folder / "copied"
        copying.psql(
            bench,
            server.port,
            "CREATE UNLOGGED TABLE landing (line text)",
            copying.OUT.format(file=source),
        )
        makers = [peers.penstock(place), *(plain(place, size) for size in SIZES)]
        makers += [
            peers.pgbouncer(place, program=path, more=TUNED, label="pkt_buf=65536")
            for path in peers.pgbouncers()
        ]
        everybody = [running.enter_context(peer) for peer in makers]
        for name, words in (
            ("out", copying.OUT.format(file="/dev/null")),
            ("in", copying.IN.format(file=source)),
        ):
            runs: dict[str, list[float]] = {peer.label: [] for peer in everybody}
            for number in range(ROUNDS):
                for peer in everybody if number % 2 == 0 else reversed(everybody):
                    done = copying.copied(bench, peer, words)
                    runs[peer.label].append(done.user + done.system)
            for label, costs in runs.items():
                print(f"COPY {name:3} {label:24} {statistics.median(costs):6.1f} ms", flush=True)


if __name__ == "__main__":
    main()
