import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6432", Address("127.0.0.1", 6432)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:6432", Address("::1", 6432)),
        ("unix:/run/p/.s.PGSQL.6432", Address(None, 0, "/run/p/.s.PGSQL.6432")),
    ],
)
def test_an_address_is_taken_apart_and_put_together(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6432",
        ":6432",
        "*:6432",
        "::1:6432",
        "[::1]",
        "[x]:1",
        "h:65536",
        "h:-1",
        "h:x",
        "a b:1",
        "u@h:1",
        "unix:",
        "unix:x",
        "unix:/run/",
        "unix:/" + "x" * 200,
        "h:٣",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"6432|107"):
        parse_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x"])
def test_loopback_and_sockets_are_local(text: str) -> None:
    assert parse_address(text).local


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example.com:1"])
def test_everything_else_is_not_local(text: str) -> None:
    assert not parse_address(text).local


@given(st.text(max_size=50))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
