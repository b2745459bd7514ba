"""Framing, and the few messages that are read as a whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.playbook import converse, cut
from proxy.errors import RemoteProtocolError
from proxy.postgres import messages as m


@given(
    st.lists(st.tuples(st.sampled_from("ENSZ"), st.binary(max_size=30)), min_size=1, max_size=5), st.data()
)
def test_an_inbox_gives_back_what_was_framed_however_it_is_cut(
    said: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(m.message(kind.encode(), body) for kind, body in said)
    assert cut(stream) == said
    size = data.draw(st.integers(1, len(stream)))
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    inbox = m.Inbox()
    for kind, body in said:
        assert converse(inbox.next(), lambda sent: pieces.pop(0)) == (ord(kind), body)


@pytest.mark.parametrize("head", [b"E\0\0\0\3", b"E\xff\xff\xff\xff", b"E\0\1\0\1"])
def test_an_inbox_takes_no_length_that_it_would_not_allow(head: bytes) -> None:
    inbox = m.Inbox(cap=65_536, rest=head)
    with pytest.raises(RemoteProtocolError, match="claims"):
        inbox.take()


def test_an_error_has_its_fields_and_no_zero_gets_in() -> None:
    framed = m.error("ERROR", "42601", "no\0way", detail="d", hint="h", fields={"M": "other", "P": "7"})
    [(kind, body)] = cut(framed)
    assert kind == "E"
    assert m.read_fields(body) == {
        "S": "ERROR", "V": "ERROR", "C": "42601", "M": "other", "D": "d", "H": "h", "P": "7",
    }  # fmt: skip
    assert m.read_fields(cut(m.error("ERROR", "1", "no\0way"))[0][1])["M"] == "noway"


def test_fields_that_are_missing_or_odd_are_not_there() -> None:
    assert m.read_fields(b"\0") == m.read_fields(b"") == {}
    assert m.read_fields(b"M\xff\0\0C1\0") == {"M": "\ufffd"}


@pytest.mark.parametrize("body", [b"", b"a\0", b"a\0b", b"a\0b\0c\0", b"a\0b\0c"])
def test_a_parameter_is_two_strings(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        m.read_parameter(body)
    assert m.read_parameter(b"a\0b\0") == ("a", "b")


def test_a_startup_packet_has_no_type() -> None:
    packet = m.startup([("user", "me")])
    assert packet == b"\0\0\0\x11\0\3\0\0user\0me\0\0"[:3] + bytes([len(packet)]) + packet[4:]
    assert packet[4:] == b"\0\3\0\0user\0me\0\0"
