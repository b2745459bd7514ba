"""What the operator wants done to sessions, and when."""

import pytest

from proxy.postgres.upkeep import Upkeep, resets


@pytest.mark.parametrize(
    ("reset", "mode", "each_time"),
    [
        ("auto", "session", True),
        ("auto", "transaction", False),
        ("auto", "statement", False),
        ("none", "session", False),
        ("rollback", "session", False),
        ("full", "transaction", True),
        ("DISCARD TEMP", "statement", True),
    ],
)
def test_whether_a_session_is_sent_something_at_each_release(reset: str, mode: str, each_time: bool) -> None:
    assert resets(reset, mode) is each_time


def test_words_stand_for_what_needs_no_sql() -> None:
    plain = Upkeep()
    assert (plain.ping_text, plain.peeks, plain.wipes, plain.fixup) == ("", False, True, "")
    assert plain.reset_text == "DISCARD ALL"
    assert plain.after_wiping() == []
    assert Upkeep(ping_command="peek").peeks
    assert not Upkeep(reset="none").wipes
    assert Upkeep(reset="RESET ALL").wipes
    own = Upkeep("SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4", "writer")
    assert (own.ping_text, own.reset_text, own.fixup) == ("SELECT 2", "SELECT 3", "SELECT 4")
    assert own.after_wiping() == ["RESET ROLE", "SELECT 1"]


def test_what_would_be_undone_by_a_setting_s_own_default() -> None:
    changes: list[tuple[str, str | None]] = [("session_authorization", None), ("work_mem", "9MB")]
    assert Upkeep("SELECT 1").is_undone_by(changes)
    assert Upkeep(role="writer").is_undone_by(changes)
    assert not Upkeep().is_undone_by(changes)
    assert not Upkeep(role="writer").is_undone_by([("work_mem", None)])
    assert not Upkeep("SELECT 1", role="writer").is_undone_by(changes[1:])


def test_what_is_deep_needs_more_wiping() -> None:
    assert Upkeep().wiping(True) == "DISCARD ALL"
    assert "RESET ALL" in Upkeep().wiping(False)
