"""What an operator is told, and what reaches the pools: real settings and listeners, pools of paper."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from proxy.building import Parts, build
from proxy.control.commands import CommandRefused
from proxy.errors import PoolBusy
from proxy.operator import Operator
from proxy.pool.limits import Limits
from proxy.pool.session import BUSY, CARE, IDLE
from proxy.reasons import DropReason
from proxy.relay.link import READY, WAITING
from proxy.settings import read

CONFIGURATION = """
[pools.app]
backend = "postgresql://app:hunter2@db/app"
max = 8
[pools.orders]
backend = "postgresql://orders:hunter2@db/orders"
"""


class PaperPool:
    """Writes down what it was told."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.told: list[Any] = []
        self.sessions = {1: SimpleNamespace(state=IDLE), 2: SimpleNamespace(state=BUSY)}
        self.trouble = ""
        self.busy = False

    def reconfigure(self, limits: Limits) -> None:
        if self.trouble:
            raise ValueError(self.trouble)
        self.limits = limits
        self.told.append("reconfigure")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def renew(self) -> None:
        self.told.append("renew")

    def clear(self) -> int:
        self.told.append("clear")
        return 1

    def reset_stats(self) -> None:
        self.told.append("reset_stats")

    def close(self, force: bool = False) -> None:
        if self.trouble and not force:
            raise PoolBusy(self.trouble, f'pool "{self.name}": opened=1/8 busy=1')
        self.told.append(("close", force))
        self.busy = False

    def shut(self) -> None:
        self.told.append("shut")

    async def drain(self) -> None:
        self.told.append("drain")
        while self.busy:
            await asyncio.sleep(0.01)

    @property
    def ledger(self) -> Any:
        return SimpleNamespace(busy=self.busy)

    def session(self, number: int) -> Any:
        return self.sessions.get(number)

    def expel(self, session: Any, reason: DropReason, detail: str) -> None:
        self.told.append(("expel", session, reason, detail))


class Paper:
    """An operator with a configuration file and pools of paper; ``log`` is what was logged."""

    def __init__(self, folder: Path, log: list[dict[str, Any]]) -> None:
        self.file = folder / "penstock.toml"
        self.log = log
        self.write(CONFIGURATION)
        loaded = self.read()
        self.parts: Parts = build(loaded.settings, 1000)
        self.pools = {name: PaperPool(name, pool.limits) for name, pool in loaded.settings.pools.items()}
        self.parts.pools = self.pools
        self.operator = Operator(self.parts, loaded.settings, self.snapshot, self.read)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def read(self) -> Any:
        return read(self.file, {}, {})

    def snapshot(self) -> Any:
        raise AssertionError("nobody looks")

    def reload(self, text: str) -> str:
        self.write(text)
        return asyncio.run(self.operator.reload())

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]


@pytest.fixture
def paper(tmp_path: Path) -> Iterator[Paper]:
    with structlog.testing.capture_logs() as log:
        yield Paper(tmp_path, log)
        assert "hunter" not in str(log)


def refused(paper: Paper, command: str, *words: Any) -> str:
    with pytest.raises(CommandRefused) as refusal:
        getattr(paper.operator, command)(*words)
    return str(refusal.value)


def test_a_reload_takes_limits_over_and_says_what_changed(paper: Paper) -> None:
    said = paper.reload(CONFIGURATION.replace("max = 8", 'max = 3\ngetmode = "nowait"'))
    assert paper.pools["app"].limits.max == 3
    assert paper.pools["orders"].told == []
    [event] = paper.events("configuration_reloaded")
    assert set(event["changes"]) == {'pools.app.getmode: "timedwait" -> "nowait"', "pools.app.max: 8 -> 3"}
    assert "pools.app.max: 8 -> 3" in said
    assert paper.events("restart_needed") == []
    assert paper.operator.settings.pools["app"].max == 3
    assert paper.reload(paper.file.read_text()).endswith("nothing has changed")


def test_an_invalid_file_is_refused_whole_with_every_mistake(paper: Paper) -> None:
    with pytest.raises(CommandRefused) as refusal:
        paper.reload(CONFIGURATION.replace("max = 8", 'max = 3\ngetmode = "never"') + "[nonsense]\nx = 1\n")
    assert paper.pools["app"].told == []
    assert paper.operator.settings.pools["app"].max == 8
    [event] = paper.events("configuration_refused")
    assert len(event["mistakes"]) == 2
    assert all(mistake in str(refusal.value) for mistake in event["mistakes"])


def test_where_one_pool_refuses_no_pool_has_changed(paper: Paper) -> None:
    paper.pools["orders"].trouble = "it will not have it"
    with pytest.raises(CommandRefused, match=r"pools\.orders: it will not have it"):
        paper.reload(
            CONFIGURATION.replace("max = 8", "max = 3") + "max = 3\n[users.ann]\npassword = 'hunter3'\n"
        )
    assert paper.pools["app"].limits.max == 8
    assert paper.parts.directory.find("ann") is None


def test_what_needs_a_restart_is_said_in_words(paper: Paper) -> None:
    said = paper.reload(
        CONFIGURATION.replace("@db/app", "@db2/app") + 'max = 3\n[http]\naddress = "127.0.0.1:9999"\n'
    )
    [event] = paper.events("restart_needed")
    assert len(event["settings"]) == 2
    assert any("db2" in line for line in event["settings"])
    assert "these need a restart:" in said
    assert paper.pools["orders"].limits.max == 3


def test_users_come_and_go_and_passwords_change_with_a_reload(paper: Paper) -> None:
    ann = "[users.ann]\npassword = 'hunter3'\n"
    paper.reload(CONFIGURATION + ann)
    found = paper.parts.directory.find("ann")
    assert found is not None
    assert found.password == "hunter3"
    paper.reload(CONFIGURATION.replace("app:hunter2", "app:hunter4"))
    assert paper.parts.directory.find("ann") is None
    own = paper.parts.directory.find("app")
    assert own is not None
    assert own.password == "hunter4"
    assert paper.parts.served["app"].account.password == "hunter4"


def test_a_server_that_is_not_taken_over_keeps_its_user_and_password(paper: Paper) -> None:
    paper.reload(CONFIGURATION.replace("app:hunter2@db/", "other:hunter5@db2/"))
    own = paper.parts.directory.find("app")
    assert own is not None
    assert own.password == "hunter2"
    assert paper.parts.directory.find("other") is None
    assert paper.parts.served["app"].account.password == "hunter2"


def test_connections_to_come_are_treated_by_the_new_listener(paper: Paper) -> None:
    listener = paper.parts.listeners["main"]
    paper.reload(CONFIGURATION + "[listeners.main]\nmax_clients = 3\n")
    assert listener.house.max_clients == 3


def test_set_changes_one_setting_and_no_other_and_says_that_it_passes(paper: Paper) -> None:
    before = paper.pools["app"].limits
    said = paper.operator.set("app", {"max": "3", "wait_timeout": "2s"})
    after = paper.pools["app"].limits
    assert (after.max, after.wait_timeout) == (3, 2.0)
    unchanged = [name for name in Limits.__dataclass_fields__ if name not in ("max", "wait_timeout")]
    assert all(getattr(before, name) == getattr(after, name) for name in unchanged)
    assert "until the next reload or restart" in said
    assert paper.operator.show("app")["max"] == 3
    assert paper.operator.show("app")["wait_timeout"] == "2s"
    assert set(paper.events("pool_reconfigured")[0]["changes"]) == {
        "pools.app.max: 8 -> 3",
        'pools.app.wait_timeout: "30s" -> "2s"',
    }
    # what the file says wins over it again
    assert "pools.app.max: 3 -> 8" in paper.reload(CONFIGURATION)
    assert paper.pools["app"].limits == before


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"max": "3", "getmode": "never"}, "getmode: expected"),
        ({"max": "3", "min": "4"}, "min: min (4) is above max (3)"),
        ({"max": "3", "wait_timeout": "5"}, "wait_timeout: "),
        ({"backend": "postgresql://x:hunter2@y/z"}, "backend cannot be set while Penstock runs"),
        ({"maxx": "3"}, "maxx cannot be set while Penstock runs; did you mean max?"),
        ({"pool_mode": "session"}, "pool_mode cannot be set while Penstock runs"),
        ({"preset": "psycopg2"}, "these can only change by a restart:"),
        ({}, "nothing to set"),
    ],
)
def test_set_is_refused_whole(paper: Paper, values: dict[str, str], sentence: str) -> None:
    said = refused(paper, "set", "app", values)
    assert said.startswith(sentence)
    assert "hunter" not in said
    assert paper.pools["app"].told == []
    assert paper.operator.settings.pools["app"].max == 8


def test_show_shows_what_set_takes_and_nothing_else(paper: Paper) -> None:
    shown = paper.operator.show("app")
    assert {"max", "getmode", "idle_timeout", "client_may_set"} <= shown.keys()
    assert not {"backend", "password", "pool_mode"} & shown.keys()


def test_pause_and_resume_are_for_one_pool_or_for_all(paper: Paper) -> None:
    paper.operator.pause(None)
    paper.operator.resume("app")
    assert paper.pools["app"].told == ["pause", "resume"]
    assert paper.pools["orders"].told == ["pause"]
    assert [entry["pool"] for entry in paper.events("pool_paused")] == ["app", "orders"]
    assert [entry["pool"] for entry in paper.events("pool_resumed")] == ["app"]


def test_drop_is_for_a_session_that_is_idle_or_busy(paper: Paper) -> None:
    pool = paper.pools["app"]
    assert paper.operator.drop("app", 2) == "session 2 was busy, and is closed"
    [(_, session, reason, detail)] = pool.told
    assert (session, reason) == (pool.sessions[2], DropReason.CLOSED)
    assert "operator" in detail
    assert refused(paper, "drop", "app", 9) == 'pool "app" has no session 9'
    pool.sessions[1].state = CARE
    assert refused(paper, "drop", "app", 1).startswith("session 1 is being pinged or reset")


def test_renew_and_clear_are_the_pools_own(paper: Paper) -> None:
    paper.operator.renew("app")
    assert paper.operator.clear("app") == "closed 1 idle session"
    assert paper.pools["app"].told == ["renew", "clear"]


def test_statistics_are_reset(paper: Paper) -> None:
    paper.operator.reset_stats("app")
    assert paper.pools["app"].told == ["reset_stats"]


def test_close_is_refused_with_the_picture_and_forced_where_one_insists(paper: Paper) -> None:
    pool = paper.pools["app"]
    pool.trouble = "the pool is in use"
    with pytest.raises(CommandRefused, match='the pool is in use: pool "app": opened=1/8 busy=1'):
        paper.operator.close("app", False, False)
    assert pool.told == []
    assert "until Penstock is restarted" in paper.operator.close("app", True, False)
    assert pool.told == [("close", True)]


@pytest.mark.parametrize("finish", [True, False])
def test_close_with_drain_cuts_only_those_who_do_not_finish_in_time(paper: Paper, finish: bool) -> None:
    pool = paper.pools["app"]
    paper.operator.set("app", {"drain_timeout": "50ms"})
    pool.told.clear()
    pool.busy = True

    async def close() -> None:
        assert "has 50ms to finish" in paper.operator.close("app", False, True)
        assert pool.told == ["shut"]
        pool.busy = not finish
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(close())
    assert pool.told == ["shut", "drain"] + ([] if finish else [("close", True)])


def test_an_unknown_pool_is_said_with_those_there_are(paper: Paper) -> None:
    assert refused(paper, "show", "apps") == 'there is no pool "apps"; did you mean "app"?'
    assert refused(paper, "pause", "zzz") == 'there is no pool "zzz"; the pools are: app, orders'


def test_a_daemon_without_a_configuration_says_so(paper: Paper) -> None:
    operator = Operator(paper.parts, paper.operator.settings, paper.snapshot)
    with pytest.raises(CommandRefused, match="nothing to read again"):
        asyncio.run(operator.reload())


def test_clients_follow_at_once_and_those_who_wait_with_their_next_request(paper: Paper) -> None:
    told: list[str] = []

    def client(name: str, phase: int) -> Any:
        return _Hashable(
            SimpleNamespace(
                pool=paper.pools["app"], phase=phase, codec=None, adopt_terms=lambda: told.append(name)
            )
        )

    idle, waiting, other = client("idle", READY), client("waiting", WAITING), client("other", READY)
    other._client.pool = paper.pools["orders"]
    paper.parts.listeners["main"].house.clients = dict.fromkeys((idle, waiting, other), b"")
    paper.operator.set("app", {"getmode": "nowait"})
    assert told == ["idle"]
    assert waiting.terms_changed
    assert paper.parts.served["app"].terms.shown["penstock.getmode"] == "nowait"


class _Hashable:
    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_certificates_that_cannot_be_loaded_refuse_the_reload(paper: Paper, tmp_path: Path) -> None:
    missing = tmp_path / "none.crt"
    text = (
        f"[listeners.main]\ntls_mode = 'require'\ntls_cert_file = '{missing}'\ntls_key_file = '{missing}'\n"
    )
    with pytest.raises(CommandRefused, match="tls_cert_file"):
        paper.reload(CONFIGURATION + text)
    assert paper.parts.listeners["main"].house.tls is None
    assert not os.path.exists(missing)
