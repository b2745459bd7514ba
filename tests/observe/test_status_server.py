import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import asdict, fields
from typing import Any

import httpx
import pytest

from proxy.observe.http import StatusServer
from proxy.observe.snapshot import Holders, HolderStats
from proxy.pool.figures import Figures, PoolStats


@pytest.fixture
async def server(daemon: Any) -> AsyncIterator[StatusServer]:
    server = StatusServer(("127.0.0.1", 0), daemon)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def web(server: StatusServer) -> AsyncIterator[httpx.AsyncClient]:
    host, port = server.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        yield client


async def test_metrics_are_plain_text_unless_asked_otherwise(web: httpx.AsyncClient) -> None:
    answer = await web.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'penstock_pool_opened{pool="app"} 1.0' in answer.text
    asked = {"accept": "application/openmetrics-text;version=1.0.0"}
    answer = await web.get("/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_each_scrape_sees_the_newest_numbers(web: httpx.AsyncClient, daemon: Any) -> None:
    for opened in range(5):
        daemon.change_pool(opened=opened)
        assert f'penstock_pool_opened{{pool="app"}} {opened}.0' in (await web.get("/metrics")).text


async def test_it_lives_whatever_the_daemon_says(web: httpx.AsyncClient, daemon: Any) -> None:
    daemon.change(draining=True, bound=False)
    daemon.change_pool(ready=False)
    answer = await web.get("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert daemon.asked == 0


async def test_it_has_started_once_every_listener_is_bound(web: httpx.AsyncClient, daemon: Any) -> None:
    daemon.change(bound=False)
    assert (await web.get("/startupz")).status_code == 503
    daemon.change(bound=True)
    daemon.change_pool(ready=False)
    assert (await web.get("/startupz")).status_code == 200


async def test_it_is_ready_or_names_what_is_not(web: httpx.AsyncClient, daemon: Any) -> None:
    assert (await web.get("/readyz?verbose")).text == "ok\n"
    daemon.change(draining=True)
    daemon.change_pool(ready=False, last_error="connection refused\nHTTP/1.1 200 OK")
    answer = await web.get("/readyz")
    assert answer.status_code == 503
    assert answer.text == "draining\npool app: latest open failed: connection refused\\nHTTP/1.1 200 OK\n"


async def test_the_api_gives_every_field_of_a_pool(web: httpx.AsyncClient, daemon: Any) -> None:
    daemon.change_pool(waiting=3, last_error="x", opens={"ok": 4, "failed": 1})
    answer = await web.get("/api/v1/pools")
    assert answer.headers["content-type"] == "application/json"
    (pool,) = answer.json()
    assert set(pool) == {field.name for field in fields(PoolStats)}
    assert pool["waiting"] == 3
    assert pool["opens"] == {"ok": 4, "failed": 1}
    assert pool["acquires"]["timedwait"]["granted"] == 0
    assert pool["hold"]["buckets"][0] == {"le": "0.00025", "count": 0}
    assert pool["hold"]["buckets"][-1]["le"] == "+Inf"
    assert (pool["hold"]["sum"], pool["hold"]["count"]) == (0, 0)
    assert {pool[name]["count"] for name in ("acquire", "wait", "open", "ping")} == {0}
    assert set(pool["since_reset"]) == set(pool["since_start"]) == {field.name for field in fields(Figures)}
    assert pool["endpoints"][0]["breaker"] == "closed"


async def test_the_api_says_who_holds_the_sessions_of_a_pool(daemon: Any) -> None:
    holder = HolderStats(
        session=3, endpoint="db", database="app", session_user="app", cclass="", client=9,
        peer="10.0.0.9:4711", user="ann", application_name="<b>\x1b", state="active", held=1.5,
    )  # fmt: skip
    held = {"a/b c": Holders("a/b c", 2, (holder,)), "app": Holders("app", 0, ())}
    server = StatusServer(("127.0.0.1", 0), daemon, held.get)
    await server.start()
    host, port = server.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as web:
        answer = await web.get("/api/v1/pools/a%2Fb%20c/holders")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {"pool": "a/b c", "busy": 2, "holders": [asdict(holder)]}
        assert (await web.get("/api/v1/pools/app/holders")).json()["holders"] == []
        missing = await web.get("/api/v1/pools/none%1B%3Cb%3E/holders")
        assert (missing.status_code, missing.text) == (404, "there is no pool none\\x1b<b>\n")
        assert missing.headers["content-type"].startswith("text/plain")
        assert (await web.get("/api/v1/pools/app/holders", headers={"host": "x.y"})).status_code == 421
        assert "Who holds a session" in (await web.get("/")).text
    await server.stop()


async def test_every_answer_protects_itself(web: httpx.AsyncClient) -> None:
    for path in ("/", "/metrics", "/livez", "/api/v1/pools", "/nothing"):
        headers = (await web.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "date" in headers
        assert "server" not in headers


async def test_only_reading_is_allowed(web: httpx.AsyncClient) -> None:
    for path in ("/", "/metrics", "/livez", "/api/v1/pools"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            answer = await web.request(method, path)
            assert answer.status_code == 405
            assert answer.headers["allow"] == "GET, HEAD"
        head, got = await web.head(path), await web.get(path)
        assert (head.status_code, head.content) == (200, b"")
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("path", ["/metrics/", "/nothing", "/api/v1/pools/x", "/..%2f", "/%00"])
async def test_everything_else_is_not_found(web: httpx.AsyncClient, path: str) -> None:
    assert (await web.get(path)).status_code == 404


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:9127", "[::1]", "[::1]:9127", "127.0.0.1"]
)
async def test_a_browser_may_call_it_by_its_local_names(web: httpx.AsyncClient, host: str) -> None:
    for path in ("/", "/api/v1/pools"):
        assert (await web.get(path, headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:9127", "evil@localhost", "", "[::2]"]
)
async def test_a_page_called_by_a_foreign_name_is_refused(web: httpx.AsyncClient, host: str) -> None:
    for path in ("/", "/api/v1/pools"):
        answer = await web.get(path, headers={"host": host})
        assert answer.status_code == 421
        assert "localhost" in answer.text
    for path in ("/metrics", "/livez", "/readyz", "/startupz"):
        assert (await web.get(path, headers={"host": host})).status_code == 200


async def test_behind_an_open_address_every_name_is_fine(daemon: Any) -> None:
    server = StatusServer(("0.0.0.0", 0), daemon)
    await server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as web:
            url = f"http://127.0.0.1:{server.address[1]}/"
            assert (await web.get(url, headers={"host": "status.example"})).status_code == 200
    finally:
        await server.stop()


async def test_a_taken_address_is_refused_with_a_sentence(server: StatusServer, daemon: Any) -> None:
    host, port = server.address
    second = StatusServer((host, port), daemon)
    with pytest.raises(OSError, match=f"cannot listen on {host}:{port}: Address already in use; stop what"):
        await second.start()
    await second.stop()


async def test_a_name_without_an_address_is_refused_with_a_sentence(daemon: Any) -> None:
    with pytest.raises(OSError, match=r"cannot listen on 256\.256\.256\.256:0"):
        await StatusServer(("256.256.256.256", 0), daemon).start()


async def test_it_leaves_the_signals_of_the_daemon_alone(daemon: Any) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    server = StatusServer(("127.0.0.1", 0), daemon)
    await server.start()
    assert {number: signal.getsignal(number) for number in before} == before
    await server.stop()


async def test_once_stopped_it_refuses_and_its_address_is_free_again(daemon: Any) -> None:
    server = StatusServer(("127.0.0.1", 0), daemon)
    await server.start()
    address = server.address
    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    again = StatusServer(address, daemon)
    await again.start()
    await again.stop()


async def test_a_daemon_whose_snapshot_fails_is_alive_and_says_500_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Any:
        raise RuntimeError("canary")

    server = StatusServer(("127.0.0.1", 0), broken)
    await server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as web:
            base = "http://{}:{}".format(*server.address)
            for path in ("/", "/metrics", "/readyz", "/api/v1/pools"):
                answer = await web.get(base + path)
                assert answer.status_code == 500
                assert "canary" not in answer.text
                assert answer.headers["x-content-type-options"] == "nosniff"
            assert (await web.get(base + "/livez")).status_code == 200
    finally:
        await server.stop()
    assert "canary" in caplog.text


async def test_it_answers_on_ipv6_too(daemon: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = StatusServer(("::1", 0), daemon)
    await server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as web:
            answer = await web.get(f"http://[::1]:{server.address[1]}/api/v1/pools")
            assert json.loads(answer.text)
    finally:
        await server.stop()
