import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 2s ", 2.0),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("off", math.inf),
        ("always", 0.0),
    ],
)
def test_a_duration_is_text_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "0", "1.5", "-1", "+3"])
def test_a_bare_number_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"others in milliseconds.*30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "s", "30 seconds", "-3s", "30S", "1m1h", "1s1s", "1e3s", "٣s", "1h30", "Off"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["99999999d", "9" * 60 + "s"])
def test_a_duration_without_end_is_not_taken_for_off(text: str) -> None:
    with pytest.raises(ValueError, match='"off"'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "500ms"), (90.0, "1m30s"), (0.0, "0s"), (math.inf, "off"), (0.0001, "0.1ms")]
)
def test_seconds_are_written_with_the_fewest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1.0, math.nan, -math.inf])
def test_no_duration_is_negative_or_nan(seconds: float) -> None:
    with pytest.raises(ValueError):
        format_duration(seconds)


@given(st.floats(min_value=0, max_value=3e8, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-15))
def test_what_is_written_is_read_back_exactly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(max_size=70))
def test_any_text_is_a_duration_or_a_sentence_that_does_not_repeat_it(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        sentence, seconds = str(error), 0.0
    else:
        sentence = ""
    assert len(text.strip()) < 8 or text.strip() not in sentence
    assert seconds >= 0
