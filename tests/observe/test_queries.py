"""What clients asked, as the status page and the API have it."""

import pytest

from proxy.observe.asked import queries
from proxy.observe.snapshot import PoolQueries
from proxy.pool.figures import QueryStats


def asked(number: int, text: str = "select ?") -> QueryStats:
    return QueryStats(f"f{number}", text, 3, 1, 7, 1.5, 1.0)


def test_there_is_no_table_where_no_pool_counts() -> None:
    assert queries([]) == ""


def test_what_takes_most_is_shown_and_the_rest_is_counted() -> None:
    page = queries([PoolQueries("app", 0, tuple(asked(number) for number in range(13)))])
    assert page.count("select ?") == 10
    assert "3 more" in page


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a" * 5_000, "x\n\0y"])
def test_no_text_of_a_client_reaches_the_page_as_it_came(text: str) -> None:
    page = queries([PoolQueries("app", 0, (asked(1, text),))])
    assert "<script>" not in page
    assert len(page) < 3_000
    assert "\0" not in page
