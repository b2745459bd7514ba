"""The header of the PROXY protocol: what is written is read again, in any pieces; garbage is refused."""

import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import RemoteProtocolError
from proxy.relay.proxy_header import (
    MOST,
    NO_HEADER,
    SIGNATURE,
    V1,
    V2,
    HeaderReader,
    Origin,
    header,
    origin_of,
)

PORTS = st.integers(0, 65535)
V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(lambda address: str(ipaddress.IPv6Address(int(address))))
ORIGINS = st.one_of(
    st.builds(Origin, st.just(socket.AF_INET), V4, PORTS, V4, PORTS),
    st.builds(Origin, st.just(socket.AF_INET6), V6, PORTS, V6, PORTS),
)


def read(data: bytes, cuts: list[int]) -> tuple[HeaderReader, int]:
    """Feed the data in pieces, as a socket that is peeked at has it; returns how much was taken."""
    reader, taken = HeaderReader(), 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        while not reader.done and taken < end:
            count = reader.feed(data[taken:end])
            assert count > 0
            taken += count
    return reader, taken


def same(one: Origin | None, other: Origin) -> bool:
    return one is not None and vars(one) == vars(other)


@given(ORIGINS, st.sampled_from([V1, V2]), st.binary(max_size=40), st.lists(st.integers(0, 400), max_size=8))
def test_what_is_written_is_read_again_and_nothing_behind_it_is_taken(
    origin: Origin, version: int, behind: bytes, cuts: list[int]
) -> None:
    text = header(version, origin)
    reader, taken = read(text + behind, cuts)
    assert reader.done
    assert taken == len(text)
    assert same(reader.origin, origin)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=120).map(lambda rest: b"PROXY " + rest),
        st.binary(max_size=300).map(lambda rest: SIGNATURE + rest),
        st.binary(max_size=300).map(lambda rest: SIGNATURE + b"\x21\x11" + rest),
        st.text("TCPUNKOW46 0123456789.:\r\nabf", max_size=120).map(lambda text: b"PROXY " + text.encode()),
    ),
    st.lists(st.integers(0, 300), max_size=8),
)
@example(SIGNATURE + b"\x21\x11\xff\xff", [])
def test_garbage_is_refused_or_read_and_never_more_than_a_header_is_taken(
    data: bytes, cuts: list[int]
) -> None:
    try:
        reader, taken = read(data, cuts)
    except RemoteProtocolError:
        return
    assert taken <= min(len(data), MOST)
    assert reader.done or taken == len(data)


def parse(data: bytes) -> Origin | None:
    reader, taken = read(data, [])
    assert reader.done
    assert taken == len(data)
    return reader.origin


def binary(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes((0x20 | command, family)) + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN what ever 1 2\r\n",
        binary(0, 0x00, b""),
        binary(0, 0x11, b"anything at all"),
        binary(1, 0x00, b"some TLVs"),
    ],
)
def test_a_header_may_name_nobody(data: bytes) -> None:
    assert parse(data) is None


def test_what_else_a_second_version_says_is_skipped() -> None:
    origin = Origin(socket.AF_INET, "192.0.2.1", 1, "192.0.2.2", 2)
    text = header(V2, origin)
    assert same(parse(binary(1, 0x11, text[16:] + b"\x03\0\x04abcd" * 100)), origin)


def test_names_of_unix_sockets_pass_in_the_second_version_only() -> None:
    origin = Origin(socket.AF_UNIX, "/run/a", 0, "/run/b")
    assert header(V1, origin) == b"PROXY UNKNOWN\r\n"
    assert same(parse(header(V2, origin)), origin)
    assert str(origin) == "unix"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWN" + b" " * 100 + b"\r\n",
        SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x12\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x41\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\0\x23" + bytes(35),
        SIGNATURE + b"\x21\x31\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x20\0" + bytes(8192),
    ],
)
def test_what_is_not_as_the_protocol_has_it_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="PROXY"):
        read(data, [])


def test_the_ends_of_a_connection_are_as_its_sockets_say() -> None:
    assert str(origin_of(("127.0.0.1", 5), ("127.0.0.1", 6))) == "127.0.0.1:5"
    scoped = origin_of(("fe80::1%eth0", 5, 0, 2), ("fe80::2%eth0", 6, 0, 2))
    assert (scoped.family, str(scoped), scoped.target) == (socket.AF_INET6, "[fe80::1]:5", "fe80::2")
    assert str(origin_of("", "/run/penstock")) == "unix"
    assert header(NO_HEADER, scoped) == b""
