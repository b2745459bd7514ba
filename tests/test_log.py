import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from proxy import log as penstock_log
from proxy.log import Passage, clean, configure
from proxy.reasons import DropReason
from proxy.tasks import spawn

CANARY = "c4n4ry"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    if penstock_log._bridge is not None:
        root.removeHandler(penstock_log._bridge)
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_of_json_has_time_level_event_and_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    structlog.get_logger("penstock").info(
        "session_dropped", reason=DropReason.IDLE_TIMEOUT, age=1.5, pool="app"
    )
    (line,) = lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "event": "session_dropped",
        "reason": "idle_timeout",
        "age": 1.5,
        "pool": "app",
    }


def test_a_line_for_people_reads_from_left_to_right(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "console")
    structlog.get_logger().warning("client_refused", reason="auth", detail="two words", port=5432)
    line = capsys.readouterr().err
    assert re.fullmatch(r"\S+Z warning  client_refused  reason=auth  detail=\"two words\"  port=5432\n", line)


def test_auto_means_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "auto")
    structlog.get_logger().info("daemon_started")
    assert lines(capsys)[0]["event"] == "daemon_started"


def test_auto_means_console_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    configure("info", "auto")
    structlog.get_logger().error("daemon_failed")
    assert "\x1b[31merror   \x1b[0m daemon_failed" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_lines_below_the_level_are_not_written_and_a_reload_may_change_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = structlog.get_logger()
    configure("warning", "json")
    log.info("one")
    configure("debug", "json")
    log.debug("two")
    assert [line["event"] for line in lines(capsys)] == ["two"]


@pytest.mark.parametrize(("level", "format"), [("loud", "json"), ("info", "xml"), ("", ""), ("INFO", "json")])
def test_a_wrong_word_is_refused_with_a_sentence(level: str, format: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        configure(level, format)


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_reaches_the_log(capsys: pytest.CaptureFixture[str], format: str) -> None:
    configure("debug", format)
    log = structlog.get_logger()
    url = f"postgresql://app:{CANARY}@db.internal:5432/app"
    log.info(
        "told", password=CANARY, db_password=CANARY, Secret=CANARY, api_token=CANARY, dsn=url,
        Authorization=CANARY, verifier=CANARY, secrets=[CANARY],
        nested={"users": [{"password": CANARY, "name": "ann"}]},
    )  # fmt: skip
    log.info(
        "urls", a=url, b=[url, {"c": f"redis://:{CANARY}@r"}], d=f"postgresql://u:{CANARY}@{CANARY}/x@h/db"
    )
    log.info("pairs", a=f"host=h password={CANARY} user=u", b=f"postgresql://h/db?password={CANARY}&x=1")
    log.info("quoted", a=f"password = '{CANARY} {CANARY}'", b=f'PASSWORD="{CANARY}"')
    log.info(f"event with {url}")
    log.info("cut", a="x" * 230 + url)
    logging.getLogger("uvicorn.error").warning("cannot reach %s", url)
    try:
        raise ValueError(f"cannot open {url}")
    except ValueError:
        log.exception("open_failed")
    written = capsys.readouterr().err
    assert CANARY not in written
    assert "postgresql://app:***@db.internal:5432/app" in written
    assert "ann" in written


def test_a_secret_in_a_local_variable_stays_there(capsys: pytest.CaptureFixture[str]) -> None:
    def login() -> None:
        password = "".join(["c4n", "4ry"])
        raise RuntimeError(f"{len(password)} characters were wrong")

    for format in ("json", "console"):
        configure("info", format)
        try:
            login()
        except RuntimeError:
            structlog.get_logger().exception("login_failed")
    assert CANARY not in capsys.readouterr().err


def test_words_that_only_sound_like_secrets_are_shown() -> None:
    told = {"password_file": "/run/secrets/db", "tokenizer": "x", "reason": "password authentication failed"}
    assert clean(told) == told
    assert clean("postgresql://app@db:5432/app") == "postgresql://app@db:5432/app"


def test_an_exception_is_a_structure_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        try:
            raise OSError("no route")
        except OSError as cause:
            raise RuntimeError("cannot open") from cause
    except RuntimeError as failure:
        structlog.get_logger().error("task_crashed", task="opener", exc_info=failure)
    (line,) = lines(capsys)
    assert [part["exc_type"] for part in line["exception"]] == ["RuntimeError", "OSError"]
    assert line["exception"][0]["exc_value"] == "cannot open"
    assert line["exception"][0]["frames"][-1]["name"] == "test_an_exception_is_a_structure_in_json"
    assert "exc_info" not in line


@pytest.mark.parametrize("format", ["json", "console"])
def test_nobody_on_the_wire_can_write_a_line_of_the_log(
    capsys: pytest.CaptureFixture[str], format: str
) -> None:
    configure("info", format)
    forged = 'x\n2026-01-01T00:00:00Z info  forged\r\x1b[2K\x00\x85\u2028\u202e\ud800"'
    log = structlog.get_logger()
    log.info("client_connected", database=forged, nested=[{forged: forged}])
    log.info(forged)
    logging.getLogger("asyncio").warning("told %s", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        log.exception("failed")
    written = capsys.readouterr().err
    assert written.count("\n") == len(written.splitlines())
    for line in written.splitlines():
        assert not line.startswith("2026-01-01T00:00:00Z info  forged")
        assert line.isprintable()


def test_a_value_cannot_pass_for_two(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "console")
    structlog.get_logger().info("login", user='a" admin=true', plain="a=b")
    assert capsys.readouterr().err.endswith('login  user="a\\" admin=true"  plain="a=b"\n')


def test_long_values_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    structlog.get_logger().info("x" * 10_000, a="y" * 10_000, b=b"z" * 10_000, c=["w"] * 10_000)
    (line,) = lines(capsys)
    assert line["event"] == "x" * 256 + "…"
    assert line["a"] == "y" * 256 + "…"
    assert len(line["b"]) == 257
    assert len(line["c"]) == 64


def test_logging_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    class BrokenKey(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("no")

    endless: list[Any] = []
    endless.append(endless)
    log = structlog.get_logger()
    for format in ("json", "console"):
        configure("info", format)
        log.info("odd", a=Broken(), b={Broken: Broken()}, c=endless, d=float("inf"), e={1, 2}, f=object)
        log.info("worse", a=BrokenKey(), b=10**5000)
        log.info("worst", timestamp="mine", level="mine", logger=1, exc_info=True, stack_info=True)
        log.info(None)
        log.error("odd_info", exc_info=(None, None, None))
        record = logging.LogRecord("x", logging.WARNING, "", 0, "%d %d", ("too few",), None)
        assert penstock_log._bridge is not None
        penstock_log._bridge.handle(record)
    written = capsys.readouterr().err
    assert "log_line_lost" in written
    assert "<Broken>" in written


def test_a_closed_stderr_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("info", "json")
    closed = io.StringIO()
    closed.close()
    for stderr in (closed, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        structlog.get_logger().error("unheard")
        logging.getLogger("uvicorn").error("unheard")


def test_libraries_are_heard_from_warning_upward_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", "json")
    configure("debug", "json")
    library = logging.getLogger("asyncio")
    library.debug("quiet")
    library.info("quiet")
    library.warning("slow callback took %.1f s", 2.5)
    (line,) = lines(capsys)
    assert (line["level"], line["event"], line["logger"]) == (
        "warning",
        "slow callback took 2.5 s",
        "asyncio",
    )


async def test_a_crash_in_the_background_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")

    async def crash() -> None:
        raise RuntimeError("out of order")

    await asyncio.wait([spawn(crash(), "worker")])
    await asyncio.sleep(0)
    (line,) = lines(capsys)
    assert (line["event"], line["task"]) == ("task_crashed", "worker")
    assert line["exception"][0]["exc_value"] == "out of order"


def test_hostile_text_is_cleaned_quickly() -> None:
    loop_time = asyncio.new_event_loop()
    try:
        for text in ("://a:" * 100_000, "@" + "://a:b" * 100_000, "password=" * 100_000, "\n" * 100_000):
            begin = loop_time.time()
            clean(text)
            assert loop_time.time() - begin < 0.05
    finally:
        loop_time.close()


def test_a_passage_is_shown_in_full_and_masked_and_escaped_like_any_text() -> None:
    text = "x" * 1_000 + "\n password='secret'"
    shown = clean(Passage(text))
    assert shown == "x" * 1_000 + "\\n password=***"
    assert len(clean(text)) < 300
    assert len(clean(Passage("y" * 100_000))) < 17_000
