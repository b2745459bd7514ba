"""Shard keys lead where the rules say, and a key that no rule knows leads nowhere."""

import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool.routes import Routes, Span, whole_number


def test_a_listed_key_leads_to_its_endpoint() -> None:
    routes = Routes("app", lists={"eu": 0, "us": 1, "ca": 1})
    assert [routes.endpoint_for(key) for key in ("eu", "us", "ca")] == [0, 1, 1]


@pytest.mark.parametrize("key", ["EU", " eu", "eu ", "asia"])
def test_a_key_that_no_rule_knows_is_refused_by_a_sentence(key: str) -> None:
    routes = Routes("app", lists={"eu": 0, "us": 1})
    with pytest.raises(
        ValueError, match=r"leads to no endpoint of pool \"app\": .*pools\.app\.route"
    ) as caught:
        routes.endpoint_for(key)
    assert repr(key) in str(caught.value)


def test_what_a_client_wrote_is_repeated_in_part_and_escaped() -> None:
    with pytest.raises(ValueError, match="leads to no endpoint") as caught:
        Routes("app", lists={"eu": 0}).endpoint_for("\x1b[2J" + "x" * 5000)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 250


def test_a_range_begins_with_its_first_key_and_ends_before_its_last() -> None:
    routes = Routes("app", spans=(Span("0", "1000", 0), Span("1000", "2000", 1), Span("2000", None, 2)))
    wanted = {"0": 0, "999": 0, "1000": 1, "1999": 1, "2000": 2, "99999999999": 2, "007": 0}
    assert {key: routes.endpoint_for(key) for key in wanted} == wanted
    for stranger in ("-1", "ten", "1000.0", "1_0", "٣", "", " 5"):
        if stranger:
            with pytest.raises(ValueError, match="leads to no endpoint"):
                routes.endpoint_for(stranger)


def test_a_range_without_a_beginning_takes_every_number_below() -> None:
    routes = Routes("app", spans=(Span(None, "0", 0), Span("0", None, 1)))
    assert [routes.endpoint_for(key) for key in ("-5", "-0", "0", "5")] == [0, 1, 1, 1]


def test_a_range_of_text_is_compared_by_code_point() -> None:
    routes = Routes("app", spans=(Span(None, "m", 0), Span("m", None, 1)))
    wanted = {"a": 0, "lz": 0, "m": 1, "z": 1, "Z": 0, "10": 0, "é": 1}
    assert {key: routes.endpoint_for(key) for key in wanted} == wanted


@pytest.mark.parametrize(("first", "last"), [("5", "5"), ("10", "9"), ("b", "a"), ("a", "a")])
def test_an_empty_range_is_a_mistake(first: str, last: str) -> None:
    with pytest.raises(ValueError, match="no key lies between"):
        Span(first, last, 0)


def test_bounds_of_digits_are_numbers() -> None:
    """As text, "10" would come before "9"."""
    assert "9" in Span("1", "10", 0)
    assert "10" not in Span("1", "10", 0)


def test_a_hash_is_crc32_modulo_the_number_of_endpoints() -> None:
    routes = Routes("app", hashed=(0, 1, 2))
    # Fixed for ever: other programs compute the same, and data lies where it lies.
    wanted = {"tenant-1": 0, "tenant-2": 0, "tenant-3": 1, "zürich": 1}
    found = {key: routes.endpoint_for(key) for key in wanted}
    assert found == {key: zlib.crc32(key.encode()) % 3 for key in wanted}
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the check value of the CRC that is documented


@given(st.text(min_size=1), st.integers(1, 7))
def test_every_key_has_a_place_by_hash(key: str, count: int) -> None:
    found = Routes("app", hashed=tuple(range(count))).endpoint_for(key)
    assert found is not None
    assert 0 <= found < count


@given(st.text(min_size=1, alphabet=st.characters(codec="utf-8", exclude_categories=())))
def test_no_key_breaks_the_rules(key: str) -> None:
    """Whatever a client sends is routed, or refused by a sentence."""
    routes = Routes("app", lists={"a": 0}, spans=(Span("0", "10", 0), Span("x", None, 1)))
    try:
        assert routes.endpoint_for(key) in (0, 1)
    except ValueError as refusal:
        assert "leads to no endpoint" in str(refusal)  # noqa: PT017


def test_a_key_in_bytes_that_are_no_text_is_hashed_too() -> None:
    assert Routes("app", hashed=(0,)).endpoint_for(b"\xff".decode(errors="surrogateescape")) == 0


@pytest.mark.parametrize("key", [None, ""])
@pytest.mark.parametrize("default", [None, 1])
def test_a_client_without_a_key_goes_to_the_default(key: str | None, default: int | None) -> None:
    assert Routes("app", lists={"eu": 0}, default=default).endpoint_for(key) == default


def test_a_client_without_a_key_may_be_refused() -> None:
    routes = Routes("app", lists={"eu": 0}, demands_key=True)
    with pytest.raises(
        ValueError, match=r"needs a shard key: .*penstock\.shard_key.*pools\.app\.route\.default"
    ):
        routes.endpoint_for(None)
    assert routes.endpoint_for("eu") == 0


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=6, unique=True), st.integers(-1100, 1100))
def test_adjacent_ranges_leave_no_gap_and_no_overlap(bounds: list[int], key: int) -> None:
    bounds.sort()
    spans = [Span(None, str(bounds[0]), 0)]
    for number, (first, last) in enumerate(itertools.pairwise(bounds), 1):
        spans.append(Span(str(first), str(last), number))
    spans.append(Span(str(bounds[-1]), None, len(bounds)))
    assert sum(str(key) in span for span in spans) == 1


def test_numbers_are_what_people_write() -> None:
    assert [whole_number(text) for text in ("0", "-7", "007")] == [0, -7, 7]
    for text in ("", "-", "--1", "+1", "1.0", "1e3", "²", "٣", "0x10", "9" * 5000):
        assert whole_number(text) is None
