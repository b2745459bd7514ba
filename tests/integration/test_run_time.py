"""What an operator changes while clients are at work: by HUP, USR1, USR2 and the control socket."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import proxy
from integration.looking import (
    at_rest,
    finished_transactions,
    pool_of,
    run,
    sessions_on,
    trusting,
    until,
    wait_for,
)
from integration.raw import Raw, error_of, query, rows
from proxy.embedded import EmbeddedPostgres
from servers import Certificates, Penstock, lacking

pytestmark = pytest.mark.integration
Make = Callable[..., Penstock]
CONTROLLED = trusting(more='\n[control]\naddress = "unix:${socket}.ctl"\n')
SHOW_GETMODE = "SHOW penstock.getmode"


def reload(penstock: Penstock, text: str = CONTROLLED, **pool: object) -> dict[str, Any]:
    """Write another configuration, send HUP, and return what the log says of it."""

    def said() -> list[dict[str, Any]]:
        return penstock.events("configuration_reloaded") + penstock.events("configuration_refused")

    before = len(said())
    penstock.configure(text, **pool)
    penstock.signal(signal.SIGHUP)
    until(lambda: len(said()) > before)
    return max(said(), key=lambda entry: entry["timestamp"])


def ctl(penstock: Penstock, *words: str) -> subprocess.CompletedProcess[str]:
    """``penstock ctl`` as from a shell, with the daemon's configuration."""
    ours = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(proxy.__file__).parents[1])}
    command = ("-m", "proxy", "ctl", "--config", str(penstock.config), *words)
    return run(sys.executable, *command, env=ours)


def obeyed(penstock: Penstock, *words: str) -> str:
    """The same, and it must have been done."""
    done = ctl(penstock, *words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.rstrip("\n")


def refused(penstock: Penstock, *words: str) -> str:
    """The same, and it must have been refused: the sentence."""
    done = ctl(penstock, *words)
    assert (done.returncode, done.stdout) == (1, ""), done
    return done.stderr


def clients(penstock: Penstock, count: int) -> list[Raw]:
    return [Raw.logged_in(penstock.port) for _ in range(count)]


# -- reload ---------------------------------------------------------------------------------------


def test_getmode_changed_by_hup_holds_for_the_next_acquire_of_those_who_are_in(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=1, getmode="timedwait", wait_timeout="20s")
    holder, early, chooser = clients(penstock, 3)
    chooser.ask("SET penstock.getmode = 'timedwait'")
    holder.ask("BEGIN")
    early.send(query("SELECT 'early'"))
    wait_for(penstock, waiting=1)
    entry = reload(penstock, max=1, getmode="nowait", wait_timeout="20s")
    assert entry["changes"] == ['pools.app.getmode: "timedwait" -> "nowait"']
    with Raw.logged_in(penstock.port) as late:
        # who is in and who comes now is refused at once; whoever waited already goes on waiting
        assert late.error("SELECT 1")["C"] == "53300"
        assert late.value(SHOW_GETMODE) == "nowait"
        assert pool_of(penstock)["waiting"] == 1
        # a client's own choice stays its own
        assert chooser.value(SHOW_GETMODE) == "timedwait"
        holder.ask("COMMIT")
        assert len(rows(early.until_ready())) == 1
        holder.ask("BEGIN")
        assert early.value(SHOW_GETMODE) == "nowait"
        assert early.error("SELECT 1")["C"] == "53300"
        holder.ask("COMMIT")
        assert early.value("SELECT 'still in'") == "still in"
    for client in (holder, early, chooser):
        client.close()
    at_rest(penstock)


def test_wait_timeout_changed_by_hup_is_read_back_and_bounds_what_clients_chose(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=1, wait_timeout="30s")
    with Raw.logged_in(penstock.port) as client, Raw.logged_in(penstock.port) as holder:
        client.ask("SET penstock.wait_timeout = '20s'")
        holder.ask("SET penstock.wait_timeout = '100ms'")
        reload(penstock, max=1, wait_timeout="300ms")
        assert client.value("SHOW penstock.wait_timeout") == "300ms"
        assert holder.value("SHOW penstock.wait_timeout") == "100ms"
        holder.ask("BEGIN")
        begun = time.monotonic()
        assert "300ms" in str(client.error("SELECT 1")) or time.monotonic() - begun < 10
        holder.ask("COMMIT")


def test_a_smaller_max_takes_effect_as_sessions_come_home_and_interrupts_nobody(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(CONTROLLED, max=8)
    inside = clients(penstock, 8)
    for client in inside:
        client.ask("BEGIN")
    wait_for(penstock, busy=8, opened=8)
    reload(penstock, max=2)
    shrunk = pool_of(penstock)
    assert (shrunk["max"], shrunk["busy"], shrunk["opened"]) == (2, 8, 8)
    for done, client in enumerate(inside, start=1):
        assert client.value("SELECT 'not interrupted'") == "not interrupted"
        client.ask("COMMIT")
        wait_for(penstock, opened=max(2, 8 - done), busy=8 - done)
    until(lambda: len(sessions_on(server)) == 2)
    reload(penstock, max=5)
    for client in inside[:5]:
        client.ask("BEGIN")
    wait_for(penstock, busy=5, opened=5)
    for client in inside[:5]:
        client.ask("COMMIT")
    for client in inside:
        client.close()
    at_rest(penstock)


def test_a_larger_max_serves_at_once_those_who_wait(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=1, getmode="wait")
    holder, *waiting = clients(penstock, 4)
    holder.ask("BEGIN")
    for client in waiting:
        client.send(query("SELECT pg_sleep(0.1)"))
    wait_for(penstock, waiting=3)
    reload(penstock, max=4, getmode="wait")
    for client in waiting:
        assert len(rows(client.until_ready())) == 1
    assert pool_of(penstock)["busy"] == 1
    holder.ask("COMMIT")
    for client in (holder, *waiting):
        client.close()


def test_an_invalid_file_is_refused_whole_and_says_every_mistake(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=3)
    entry = reload(penstock, max=0, getmode="never", min=1)
    assert entry["event"] == "configuration_refused"
    assert len(entry["mistakes"]) == 2
    assert "old configuration" in entry["detail"]
    assert pool_of(penstock)["max"] == 3
    with Raw.logged_in(penstock.port) as client:
        assert client.value(SHOW_GETMODE) == "timedwait"
    # mended, it is taken
    assert reload(penstock, max=4)["changes"] == ["pools.app.max: 3 -> 4"]


def test_what_needs_a_restart_is_said_and_left_as_it_is(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=2)
    moved = CONTROLLED.replace("127.0.0.1:$http", "127.0.0.1:1").replace(
        "$pool", 'pool_mode = "session"\n$pool'
    )
    reload(penstock, moved, max=3)
    [entry] = penstock.events("restart_needed")
    assert {line.partition(":")[0] for line in entry["settings"]} == {"http.address", "pools.app.pool_mode"}
    assert pool_of(penstock)["max"] == 3
    assert pool_of(penstock)["pool_mode"] == "transaction"


def test_users_and_passwords_change_by_hup_and_nobody_who_is_in_notices(
    make_proxy: Make, postgres: EmbeddedPostgres
) -> None:
    text = CONTROLLED.replace('auth = "trust"', "") + "[users.ann]\npassword = '$ann'\nrun_as = 'pool'\n"
    penstock = make_proxy(text.replace("$ann", "one"), max=2)
    with psycopg.connect(penstock.dsn("ann", "app", "one"), autocommit=True) as inside:
        inside.execute("SELECT 1")
        reload(penstock, text.replace("$ann", "two"), max=2)
        inside.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(penstock.dsn("ann", "app", "one"))
        psycopg.connect(penstock.dsn("ann", "app", "two")).close()
        reload(penstock, text.partition("[users.ann]")[0], max=2)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(penstock.dsn("ann", "app", "two"))
        inside.execute("SELECT 1")
        psycopg.connect(penstock.dsn("app", "app")).close()
    for line in penstock.log:
        assert postgres.password not in line


def test_a_certificate_is_loaded_anew_and_who_is_in_keeps_the_old_one(
    make_proxy: Make, certificates: Certificates, folder: Path
) -> None:
    cert, key = folder / "tls.crt", folder / "tls.key"

    def install(pair: tuple[Path, Path]) -> None:
        shutil.copy(pair[0], cert)
        shutil.copy(pair[1], key)

    install(certificates.server)
    tls = f'tls_mode = "require"\ntls_cert_file = "{cert}"\ntls_key_file = "{key}"'
    text = CONTROLLED.replace('auth = "trust"', f'auth = "trust"\n{tls}')
    penstock = make_proxy(text, max=2)
    with Raw.logged_in(penstock.port, tls=True) as early:
        install(certificates.client)
        reload(penstock, text, max=2)
        with Raw.logged_in(penstock.port, tls=True) as late:
            assert isinstance(early.sock, ssl.SSLSocket)
            assert isinstance(late.sock, ssl.SSLSocket)
            assert early.sock.getpeercert(True) != late.sock.getpeercert(True)
            assert early.value("SELECT 'both'") == late.value("SELECT 'both'") == "both"
        # half a file, as somebody writes it: refused, and the old one goes on
        cert.write_text("-----BEGIN CERTIFICATE-----\n")
        assert reload(penstock, text, max=1)["event"] == "configuration_refused"
        assert pool_of(penstock)["max"] == 2
        Raw.logged_in(penstock.port, tls=True).close()


def test_pgbench_notices_nothing_of_a_pool_that_breathes(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    pgbench = shutil.which("pgbench") or lacking("there is no pgbench (apt-get install postgresql-contrib)")
    penstock = make_proxy(CONTROLLED, max=8)
    script = penstock.folder / "script.sql"
    script.write_text("BEGIN;\nSELECT 1;\nCOMMIT;\n")
    words = ("-n", "-f", str(script), "-c", "16", "-T", "5", penstock.dsn())
    outcome: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: outcome.append(run(pgbench, *words)))
    thread.start()
    wait_for(penstock, opened=8)
    turn = 0
    while thread.is_alive():
        turn += 1
        most = (2, 8, 1, 5)[turn % 4]
        mode = ("timedwait", "wait", "forceget")[turn % 3]
        reload(penstock, max=most, getmode=mode, max_forced=0, idle_timeout=f"{turn}m")
        if mode != "forceget" and thread.is_alive():
            until(lambda most=most: len(sessions_on(server)) <= most)
    thread.join()
    assert outcome[0].returncode == 0, outcome[0].stderr
    assert finished_transactions(outcome[0].stdout) > 0
    assert turn > 3
    assert at_rest(penstock)["opened"] <= 8


# -- pause and resume -----------------------------------------------------------------------------


def test_usr1_holds_those_who_ask_and_usr2_lets_them_through(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=2)
    running, refused_one, *waiting = clients(penstock, 7)
    running.ask("BEGIN")
    refused_one.ask("SET penstock.getmode = 'nowait'")
    penstock.signal(signal.SIGUSR1)
    until(lambda: penstock.events("pool_paused"))
    assert running.value("SELECT 'goes on'") == "goes on"
    for client in waiting:
        client.send(query("SELECT 'served'"))
    wait_for(penstock, waiting=5, busy=1)
    said = refused_one.error("SELECT 1")
    assert "paused" in said["M"]
    assert "resumed" in said["H"]
    running.ask("COMMIT")
    wait_for(penstock, waiting=5, busy=0)
    penstock.signal(signal.SIGUSR2)
    for client in waiting:
        assert len(rows(client.until_ready())) == 1
    assert refused_one.value("SELECT 'again'") == "again"
    for client in (running, refused_one, *waiting):
        client.close()
    at_rest(penstock)


def test_whoever_waits_in_a_pause_waits_no_longer_than_its_wait_timeout(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=2, wait_timeout="300ms")
    with Raw.logged_in(penstock.port) as client:
        assert obeyed(penstock, "pause", "app").startswith("paused: app")
        assert obeyed(penstock, "pools").splitlines()[1].split()[1] == "paused"
        said = client.error("SELECT 1")
        assert said["C"] == "53300"
        assert "paused" in said["M"]
        assert obeyed(penstock, "resume") == "resumed: app."
        assert client.value("SELECT 1") == "1"


# -- the control socket ---------------------------------------------------------------------------


def test_ctl_shows_pools_and_settings_and_sets_them(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=4)
    path = Path(f"{penstock.socket_dir}/.s.PGSQL.{penstock.port}.ctl")
    assert path.stat().st_mode & 0o777 == 0o600
    with Raw.logged_in(penstock.port) as client:
        client.ask("BEGIN")
        assert obeyed(penstock, "pools").splitlines()[1].split()[:4] == ["app", "open", "timedwait", "1"]
        [holder] = json.loads(obeyed(penstock, "--json", "holders", "app"))
        assert (holder["user"], holder["state"]) == ("app", "idle_in_transaction")
        assert str(holder["session"]) in obeyed(penstock, "holders", "app").splitlines()[1].split()
        [shown] = json.loads(obeyed(penstock, "--json", "pools"))
        assert (shown["pool"], shown["busy"], shown["max"]) == ("app", 1, 4)
        said = obeyed(penstock, "set", "app", "max=6", "getmode=nowait")
        assert 'pools.app.getmode: "timedwait" -> "nowait"' in said
        assert "until the next reload or restart" in said
        assert "max = 6" in obeyed(penstock, "show", "app").splitlines()
        client.ask("COMMIT")
        assert client.value(SHOW_GETMODE) == "nowait"
    assert "did you mean max" in refused(penstock, "set", "app", "maxx=3")
    assert "min (9) is above max (6)" in refused(penstock, "set", "app", "idle_timeout=1h", "min=9")
    assert json.loads(obeyed(penstock, "--json", "show", "app"))["idle_timeout"] == "10m"
    assert 'there is no pool "ap"; did you mean "app"?' in refused(penstock, "show", "ap")
    assert "pools.app.max: 6 -> 4" in obeyed(penstock, "reload")
    assert "metrics go on" in obeyed(penstock, "reset-stats", "app")
    assert obeyed(penstock, "holders", "app") == "none"
    penstock.stop()
    assert not path.exists()
    assert "no daemon listens on" in refused(penstock, "pools")


def test_drop_closes_a_session_and_tells_the_client_that_holds_it(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(CONTROLLED, max=2)
    with Raw.logged_in(penstock.port) as client, Raw.logged_in(penstock.port) as other:
        client.ask("BEGIN")
        client.send(query("SELECT pg_sleep(60)"))
        until(lambda: any("pg_sleep" in text for _, _, text in sessions_on(server)))
        number = penstock.events("session_opened")[-1]["session"]
        assert "was busy, and is closed" in obeyed(penstock, "drop", "app", str(number))
        said = error_of(client.to_the_end())
        assert "operator" in said["M"] + said.get("D", "")
        # what it ran is stopped as well, and the slot comes free
        until(lambda: not any("pg_sleep" in text for _, _, text in sessions_on(server)))
        assert other.value("SELECT 1") == "1"
        wait_for(penstock, busy=0, closing=0)
        assert f"has no session {number}" in refused(penstock, "drop", "app", str(number))
        idle = penstock.events("session_opened")[-1]["session"]
        assert "was idle, and is closed" in obeyed(penstock, "drop", "app", str(idle))
    reasons = {entry["session"]: entry["reason"] for entry in penstock.events("session_dropped")}
    assert (reasons[number], reasons[idle]) == ("closed", "closed")
    at_rest(penstock)


def test_renew_replaces_every_session_and_pgbench_notices_nothing(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    pgbench = shutil.which("pgbench") or lacking("there is no pgbench (apt-get install postgresql-contrib)")
    penstock = make_proxy(CONTROLLED, max=4)
    script = penstock.folder / "script.sql"
    script.write_text("SELECT 1;\n")
    outcome: list[subprocess.CompletedProcess[str]] = []

    def bench() -> None:
        words = ("-n", "-f", str(script), "-c", "8", "-T", "4", penstock.dsn())
        outcome.append(run(pgbench, *words))

    thread = threading.Thread(target=bench)
    thread.start()
    wait_for(penstock, opened=4)
    for _ in range(3):
        before = {pid for pid, _, _ in sessions_on(server)}
        obeyed(penstock, "renew", "app")
        until(lambda before=before: not before & {pid for pid, _, _ in sessions_on(server)})
    thread.join()
    assert outcome[0].returncode == 0, outcome[0].stderr
    assert finished_transactions(outcome[0].stdout) > 0
    assert any(entry["reason"] == "generation" for entry in penstock.events("session_dropped"))
    assert at_rest(penstock)["opened"] <= 4


def test_clear_closes_idle_sessions_and_no_busy_one(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=3)
    inside = clients(penstock, 3)
    for client in inside:
        client.ask("BEGIN")
    for client in inside[1:]:
        client.ask("COMMIT")
    wait_for(penstock, busy=1, idle=2)
    assert obeyed(penstock, "clear", "app") == "closed 2 idle sessions"
    wait_for(penstock, busy=1, idle=0)
    assert inside[0].value("SELECT 'untouched'") == "untouched"
    inside[0].ask("COMMIT")
    for client in inside:
        client.close()


def test_close_is_refused_while_the_pool_is_in_use_and_final_when_forced(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(CONTROLLED, max=1)
    holder, waiting, idle = clients(penstock, 3)
    holder.ask("BEGIN")
    said = refused(penstock, "close", "app")
    assert "the pool is in use" in said
    assert "busy=1" in said
    assert holder.value("SELECT 'still served'") == "still served"
    waiting.send(query("SELECT 1"))
    wait_for(penstock, waiting=1)
    assert "until Penstock is restarted" in obeyed(penstock, "close", "app", "--force")
    assert error_of(waiting.until_ready())["C"] == "57P01"
    assert error_of(holder.to_the_end())["C"]
    until(lambda: not sessions_on(server))
    said = idle.error("SELECT 1")
    assert said["C"] == "57P01"
    assert "closed" in said["M"]
    assert penstock.http("/livez").status == 200
    for client in (holder, waiting, idle):
        client.close()


def test_close_of_a_pool_that_nobody_uses_needs_no_force(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=2)
    with Raw.logged_in(penstock.port) as client:
        client.ask("SELECT 1")
        obeyed(penstock, "close", "app")
        assert client.error("SELECT 1")["C"] == "57P01"
        # once more is no mistake
        obeyed(penstock, "close", "app")


def test_close_with_drain_lets_those_who_hold_a_session_finish(make_proxy: Make) -> None:
    penstock = make_proxy(CONTROLLED, max=2, drain_timeout="2s")
    with Raw.logged_in(penstock.port) as quick, Raw.logged_in(penstock.port) as slow:
        quick.ask("BEGIN")
        slow.ask("BEGIN")
        assert "has 2s to finish" in obeyed(penstock, "close", "app", "--drain")
        assert quick.value("SELECT 'still served'") == "still served"
        assert quick.ask("COMMIT")[-1] == (b"Z", b"I")
        assert quick.error("SELECT 1")["C"] == "57P01"
        assert error_of(slow.to_the_end())["C"]
    wait_for(penstock, opened=0, closing=0)


# -- the start ------------------------------------------------------------------------------------


def test_an_eager_pool_is_full_before_anybody_is_let_in(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    penstock = make_proxy(CONTROLLED, max=4, min=3, prefill="eager")
    assert pool_of(penstock)["opened"] == 3
    assert len(sessions_on(server)) == 3


def test_while_an_eager_pool_waits_for_its_server_startupz_says_so(make_proxy: Make, folder: Path) -> None:
    with EmbeddedPostgres() as own:
        text = CONTROLLED.replace("$backend", own.dsn())
    # it has ended by now: nothing answers there
    penstock = make_proxy(text, wait=False, max=4, min=3, prefill="eager")
    answer = until(lambda: _startup(penstock))
    assert answer == "pool app: 0 of 3 sessions are open, and prefill is eager\n"
    with pytest.raises(OSError, match="refused"):
        Raw(penstock.port)
    assert obeyed(penstock, "pools")
    assert penstock.stop() == 0


def test_a_listener_that_cannot_be_had_once_the_pool_is_full_ends_everything(
    make_proxy: Make, server: psycopg.Connection[Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = CONTROLLED.replace("127.0.0.1:$port", f"127.0.0.1:{taken.getsockname()[1]}")
        penstock = make_proxy(text, wait=False, max=4, min=2, prefill="eager")
        penstock.checked = False
        assert penstock.wait() == 1
    assert "listeners.main.address" in penstock.events("start_failed")[0]["error"]
    assert not [line for line in penstock.log if "Traceback" in line or "never" in line]
    until(lambda: not sessions_on(server))


def _startup(penstock: Penstock) -> str:
    try:
        answer = penstock.http("/startupz")
    except OSError:
        return ""
    assert answer.status == 503
    return answer.text


def test_no_secret_is_in_the_log_of_all_this(make_proxy: Make, postgres: EmbeddedPostgres) -> None:
    penstock = make_proxy(CONTROLLED, max=2, env={"PENSTOCK_LOG__LEVEL": "debug"})
    user = "[users.ann]\npassword = 'hunter2-and-more'\n"
    reload(penstock, CONTROLLED + user, max=3)
    reload(penstock, CONTROLLED + user.replace("more", "less"), max=3)
    reload(penstock, CONTROLLED + user.replace("password =", "pasword ="), max=3)
    refused(penstock, "set", "app", "password=hunter2-too")
    refused(penstock, "set", "app", "max=hunter2")
    penstock.stop()
    for line in penstock.log:
        assert "hunter2" not in line
        assert postgres.password not in line
    assert os.path.exists(penstock.config)
