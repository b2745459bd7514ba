"""What the scenarios make of their numbers, and the client made by hand. Nothing is timed here."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import connected
import copying
import idling
import pytest
from copying import Copied
from measuring import Run
from wire import Client, Crowd

READY = b"Z\0\0\0\5I"


def one(tps: float) -> Run:
    return Run(tps, 5.0, 5.0, 0.3, 0.2, 0.5, 1.0)


def test_a_share_is_that_of_the_same_round() -> None:
    runs = {64: [one(100), one(300), one(200)], 5000: [one(90), one(285), one(200)]}
    assert connected._shares(runs) == {64: 1.0, 5000: 0.95}


def test_a_copy_is_compared_in_throughput_and_cpu() -> None:
    ours, theirs = [Copied(400, 20, 80)] * 3, [Copied(200, 100, 300)] * 3
    line, met = copying._against("pgbouncer", ours, theirs, (1.25, 0.50))
    assert line == ["pgbouncer", "200 (200 to 200)", "2.00 (≥ 1.25)", "100 + 300", "0.25 (≤ 0.50)", "met"]
    assert met
    assert not copying._against("pgbouncer", ours, theirs, (1.25, 0.20))[1]
    assert not copying._against("pgbouncer", ours, theirs, (2.50, 0.50))[1]


def test_psql_tells_the_time_of_each_copy() -> None:
    assert copying.CLOCK.findall("Time: 134.567 ms\nTime: 1034.567 ms (00:01.035)\n") == [
        "134.567",
        "1034.567",
    ]


def test_memory_is_read_until_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peer:
        looks = iter([5, 7, 7, 9])

        def resident(self) -> int:
            return next(self.looks)

    monkeypatch.setattr(idling, "REST", 0.0)
    assert idling.at_rest(Peer()) == 7


@pytest.fixture
def port() -> Iterator[int]:
    """Something that answers each message: by ReadyForQuery, or by an error to whoever asks for it."""

    def answer(client: socket.socket) -> None:
        with client, suppress(ConnectionError):  # who has heard enough leaves
            while data := client.recv(4096):
                client.sendall(b"E\0\0\0\4" if b"fail" in data else b"R\0\0\0\x08\0\0\0\0" + READY)

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_client_logs_in_and_asks(port: int) -> None:
    with Client(port, "app", "app") as client:
        assert client.ask("SELECT 1").endswith(READY)
        with pytest.raises(RuntimeError, match="an error"):
            client.ask("fail")


def test_a_client_that_is_refused_says_so(port: int) -> None:
    with pytest.raises(RuntimeError, match="an error"):
        Client(port, "fail", "app")


def test_a_crowd_grows_and_shrinks(port: int) -> None:
    with Crowd(port, "app", "app") as crowd:
        crowd.grow(5)
        crowd.grow(2)
        crowd.ask("SELECT 1")
        assert len(crowd._clients) == 2
    assert crowd._clients == []
