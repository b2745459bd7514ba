"""One Penstock for each pool_mode, shared by all tests here; none of them leaves anything behind."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from differential.differences import ALL
from differential.playing import Straight
from differential.scripts import SETTING_UP
from integration.looking import at_rest, trusting
from proxy.embedded import EmbeddedPostgres
from servers import Penstock


@pytest.fixture(scope="module")
def upkeep(postgres: EmbeddedPostgres) -> Iterator[Straight]:
    """A connection that puts the tables back as they were."""
    with Straight.to(postgres.dsn()) as client:
        client.ask(SETTING_UP)
        yield client
        client.ask("DROP TABLE IF EXISTS kept, made")


@pytest.fixture(scope="module")
def proxies(postgres: EmbeddedPostgres, upkeep: Straight) -> Iterator[dict[str, Penstock]]:
    """A Penstock by the pool_mode of its pool, which has two sessions."""
    with ExitStack() as stack:
        found = {}
        for mode in ALL:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-test-", dir="/tmp"))
            )
            found[mode] = Penstock(folder, postgres)
            found[mode].configure(trusting(), max=2, pool_mode=mode, wait_timeout="20s")
            found[mode].start(wait=False)
            stack.callback(found[mode].stop)
        for penstock in found.values():
            penstock.wait_until_started()
        yield found
        for penstock in found.values():
            at_rest(penstock)
        for penstock in found.values():
            penstock.stop()
            penstock.check()
