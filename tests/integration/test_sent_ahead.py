"""What a client sent ahead while its first request waits, is refused or cancelled: all is answered."""

import threading
from collections.abc import Callable

import pytest

from integration.looking import trusting, until
from integration.raw import Raw, error_of, query, rows
from servers import Penstock

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
AHEAD = 200


def test_settings_sent_ahead_of_a_refusal_are_answered_in_their_order(make_proxy: Make) -> None:
    """Each setting waits for what is before it, and a refusal is an end of that, too."""
    penstock = make_proxy(trusting(), max=1, getmode="nowait")
    with (
        Raw.logged_in(penstock.port, user="app") as holder,
        Raw.logged_in(penstock.port, user="app") as client,
    ):
        holder.ask("BEGIN")
        batch = query("SELECT 1") + query("SET penstock.getmode = 'timedwait'")
        batch += query("SET penstock.getmode = 'nowait'")
        client.send(batch * AHEAD + query("SHOW penstock.getmode"))
        for _ in range(AHEAD):
            assert error_of(client.until_ready())["C"] == "53300"
            assert client.until_ready()[0] == (b"C", b"SET\0")
            assert client.until_ready()[0] == (b"C", b"SET\0")
        assert rows(client.until_ready()) == [b"\0\1\0\0\0\6nowait"]
        holder.ask("COMMIT")
        assert client.value("SELECT 7") == "7"


def test_settings_sent_ahead_of_a_cancelled_wait_are_answered(make_proxy: Make) -> None:
    penstock = make_proxy(trusting(), max=1)
    with (
        Raw.logged_in(penstock.port, user="app") as holder,
        Raw.logged_in(penstock.port, user="app") as client,
    ):
        holder.ask("BEGIN")
        client.send(query("SELECT 1") + query("SHOW penstock.getmode"))
        until(lambda: penstock.pools()[0]["waiting"] == 1)
        canceller = threading.Thread(target=client.cancel, args=(penstock.port,))
        canceller.start()
        assert error_of(client.until_ready())["C"] == "57014"
        assert rows(client.until_ready()) == [b"\0\1\0\0\0\x09timedwait"]
        canceller.join()
        holder.ask("COMMIT")
