import pytest

from proxy.postgres.mapping import OUTER_CAP, Entry, Mapping, may_be


@pytest.mark.parametrize(
    ("outer", "users", "who", "user", "lets"),
    [
        ("web", ["app"], "web", "app", True),
        ("web", ["app"], "Web", "app", False),
        ("web", ["app"], "web", "web", False),
        ("web", ["app", "web"], "web", "web", True),
        ("web", ["all"], "web", "anybody", True),
        ("/^(.*)@example\\.com$", ["\\1"], "ann@example.com", "ann", True),
        ("/^(.*)@example\\.com$", ["\\1"], "ann@example.com", "bob", False),
        ("/^(.*)@example\\.com$", ["\\1"], "ann@example.com.evil", "ann", False),
        ("/^(.*)@example\\.com$", ["guest"], "ann@example.com", "guest", True),
        ("/eb", ["app"], "web", "app", True),  # searched for, as in PostgreSQL
        ("/^(x)?y$", ["\\1ann"], "y", "ann", True),
        ("web", ["/^app_[0-9]+$"], "web", "app_12", True),
        ("web", ["/^app_[0-9]+$"], "web", "app_x", False),
        ("/^(.*)$", ["\\1"], "", "", False),
    ],
)
def test_who_may_be_whom(outer: str, users: list[str], who: str, user: str, lets: bool) -> None:
    assert may_be(Mapping("ours", [Entry(outer, users)]), who, user) is lets


def test_without_a_map_names_are_the_same() -> None:
    assert may_be(None, "app", "app")
    assert not may_be(None, "app", "App")
    assert not may_be(None, "", "")
    assert not may_be(None, "app\0x", "app\0x")


def test_the_first_entry_that_fits_lets_in_and_long_names_fit_none() -> None:
    both = Mapping("ours", [Entry("a", ["x"]), Entry("/^a", ["y"])])
    assert both.lets("a", "x")
    assert both.lets("a", "y")
    assert not both.lets("a", "z")
    assert not both.lets("a" * (OUTER_CAP + 1), "y")


@pytest.mark.parametrize(
    ("outer", "users"),
    [
        ("", ["x"]),
        ("a", []),
        ("a", [""]),
        ("a", ["+role"]),
        ("a", ["\\1"]),
        ("/(", ["x"]),
        ("/", ["x"]),
        ("/a", ["\\1"]),
    ],
)
def test_entries_that_mean_nothing(outer: str, users: list[str]) -> None:
    with pytest.raises(ValueError):
        Entry(outer, users)
