import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logins import fields, packet, startup
from proxy.postgres import messages as m
from proxy.postgres.startup import (
    PACKET_CAP,
    CancelKey,
    Request,
    Startup,
    packet_length,
    read_options,
    read_packet,
    split_options,
)
from proxy.reasons import RefusalReason
from proxy.reception import Refused


def read(**parameters: str) -> Startup:
    found = read_packet(startup(**parameters))
    assert isinstance(found, Startup)
    return found


def no(call: Any, *arguments: Any, **named: Any) -> dict[str, str]:
    with pytest.raises(Refused) as caught:
        call(*arguments, **named)
    found = fields(caught.value.reply)
    assert found["S"] == "FATAL"
    return found


# --- framing ---


@pytest.mark.parametrize("length", [0, 1, 4, 7, PACKET_CAP + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_refused_before_anything_is_gathered(length: int) -> None:
    assert no(packet_length, struct.pack("!I", length))["C"] == "08P01"


def test_a_length_within_bounds_is_taken() -> None:
    assert packet_length(struct.pack("!I", 8)) == 8
    assert packet_length(struct.pack("!I", PACKET_CAP)) == PACKET_CAP


def test_the_requests_are_told_apart() -> None:
    assert read_packet(packet(m.SSL_CODE)) is Request.TLS
    assert read_packet(packet(m.GSSENC_CODE)) is Request.GSSENC
    assert no(read_packet, packet(m.SSL_CODE, b"x"))["C"] == "08P01"


def test_a_cancel_request_gives_its_key_and_does_not_show_it() -> None:
    found = read_packet(packet(m.CANCEL_CODE, b"12345678"))
    assert found == CancelKey(b"12345678")
    assert "12345678" not in repr(found)


@pytest.mark.parametrize("key", [b"12345678", b"x" * 36, b"x" * 260])
def test_a_cancel_request_has_a_key_of_any_length_that_the_protocol_allows(key: bytes) -> None:
    assert read_packet(packet(m.CANCEL_CODE, key)) == CancelKey(key)


@pytest.mark.parametrize("key", [b"", b"1234567", b"x" * 261, b"x" * 9000])
def test_a_cancel_request_of_another_length_is_refused_without_an_answer(key: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_packet(packet(m.CANCEL_CODE, key))
    assert caught.value.reply == b""
    assert caught.value.reason is RefusalReason.PROTOCOL


@pytest.mark.parametrize("version", [0x00020000, 0x00040000, 0, 0x7FFFFFFF, 80877105, -1])
def test_other_protocols_are_refused(version: int) -> None:
    found = no(read_packet, packet(version, b"user\0ann\0\0"))
    assert found["C"] == "0A000"
    assert "3.0" in found["M"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"user\0ann\0",
        b"user\0ann",
        b"user\0\0",
        b"user\0ann\0\0\0",
        b"user\0ann\0\0x",
        b"\0user\0ann\0\0",
        b"\0x\0",
        b"user\0ann\0\0\0\0",
        b"user\0ann\0\0database\0x\0\0",
    ],
)
def test_what_is_not_pairs_with_one_terminator_at_the_end_is_refused(body: bytes) -> None:
    assert no(read_packet, packet(m.PROTOCOL_3_0, body))["C"] == "08P01"


@pytest.mark.parametrize(
    "body",
    [
        b"user\0\xff\0\0",
        b"user\0ann\0database\0\xc3\0\0",
        b"user\0ann\0\xff\0x\0\0",
        b"user\0a\0x\0\xed\xa0\x80\0\0",
    ],
)
def test_text_that_is_not_utf8_is_refused(body: bytes) -> None:
    assert no(read_packet, packet(m.PROTOCOL_3_0, body))["C"] == "22021"


# --- who, and where to ---


def test_a_plain_startup_packet() -> None:
    assert read(user="ann", database="app", application_name="x") == Startup(
        "ann", "app", {"application_name": "x"}
    )


def test_without_a_database_it_is_the_users_name() -> None:
    assert read(user="ann").database == "ann"
    assert read(user="ann", database="").database == "ann"


@pytest.mark.parametrize("parameters", [{}, {"user": ""}, {"database": "app"}])
def test_without_a_user_it_is_refused(parameters: dict[str, str]) -> None:
    assert no(read, **parameters)["C"] == "28000"


def test_long_names_are_cut_as_postgresql_cuts_them_and_never_in_a_character() -> None:
    assert read(user="u" * 100, database="d" * 64).user == "u" * 63
    assert read(user="u", database="d" * 64).database == "d" * 63
    assert read(user="u" * 62 + "ä").user == "u" * 62


@pytest.mark.parametrize("value", ["", "o", "x", "Database", "2", "t" * 500])
def test_a_kind_of_replication_that_does_not_exist_is_refused(value: str) -> None:
    found = no(read, user="ann", replication=value)
    assert found["C"] == "22023"
    assert '"database"' in found["H"]
    assert len(found["M"]) < 200


@pytest.mark.parametrize("value", ["false", "off", "no", "0", "F", "OFF"])
def test_replication_that_is_off_is_nothing(value: str) -> None:
    found = read(user="ann", replication=value)
    assert (found.settings, found.replication) == ({}, "")


@pytest.mark.parametrize("value", ["true", "on", "1", "yes", "T", "YE"])
def test_physical_replication_is_told_from_logical(value: str) -> None:
    found = read(user="ann", replication=value)
    assert (found.settings, found.replication) == ({}, "true")
    assert read(user="ann", replication="database").replication == "database"


# --- negotiation ---


def negotiated(version: int, **parameters: str) -> tuple[int, list[bytes]]:
    found = read_packet(startup(version, **parameters))
    assert isinstance(found, Startup)
    assert found.settings == {}
    kind, body = found.negotiate[:1], found.negotiate[5:]
    assert kind == b"v"
    newest, count = struct.unpack("!ii", body[:8])
    names = body[8:].split(b"\0")[:-1]
    assert len(names) == count
    return newest, names


def test_protocol_3_0_needs_no_negotiation() -> None:
    assert read(user="ann").negotiate == b""


@pytest.mark.parametrize(("version", "minor", "length"), [(0x30000, 0, 8), (0x30001, 1, 8), (0x30002, 2, 36)])
def test_versions_that_we_speak_need_no_negotiation_and_have_their_keys(
    version: int, minor: int, length: int
) -> None:
    found = read_packet(startup(version, user="ann"))
    assert isinstance(found, Startup)
    assert (found.negotiate, found.minor, found.key_length) == (b"", minor, length)


def test_a_newer_minor_is_answered_with_the_whole_version_that_we_speak() -> None:
    assert negotiated(0x00030003, user="ann") == (0x00030002, [])


def test_options_of_3_2_leave_it_3_2() -> None:
    assert negotiated(0x00030002, user="ann", **{"_pq_.x": "1"}) == (0x00030002, [b"_pq_.x"])


def test_unknown_protocol_options_are_named() -> None:
    assert negotiated(0x00030000, user="ann", **{"_pq_.x": "1", "_pq_.y": "2"}) == (
        0x00030000,
        [b"_pq_.x", b"_pq_.y"],
    )


def test_the_grease_of_new_client_libraries_is_negotiated_away() -> None:
    version = (3 << 16) | 9999
    found = negotiated(version, user="ann", **{"_pq_.test_protocol_negotiation": ""})
    assert found == (0x00030002, [b"_pq_.test_protocol_negotiation"])


# --- options ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \t\n", []),
        ("-c a=b", ["-c", "a=b"]),
        (" -c  a=b\n--c=d ", ["-c", "a=b", "--c=d"]),
        (r"-c a=b\ c", ["-c", "a=b c"]),
        (r"-c a=b\\c", ["-c", r"a=b\c"]),
        ("-c a=\\", ["-c", "a="]),
        ("\\", [""]),
        (r"\ ", [" "]),
    ],
)
def test_options_are_cut_as_postgresql_does(text: str, words: list[str]) -> None:
    assert split_options(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "-c search_path=a,b",
        "-csearch_path=a,b",
        "--search_path=a,b",
        "--search-path=a,b",
        "--SEARCH-path=a,b",
    ],
)
def test_the_three_ways_to_write_a_setting(text: str) -> None:
    assert read_options(text) == {"search_path": "a,b"}


def test_values_keep_what_they_are_made_of() -> None:
    assert read_options(r"-c a=b=c --d= -c e=-c\ f=g") == {"a": "b=c", "d": "", "e": "-c f=g"}
    assert read_options("-c a=1 -c A=2") == {"a": "2"}
    assert read_options("-c myapp.user_id=7") == {"myapp.user_id": "7"}


@pytest.mark.parametrize(
    "text", ["-c", "-c a", "-ca", "--", "--a", "-d 5", "x", "-", "-e", "-c a=b x", "-- a=b", "\\"]
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    found = no(read_options, text)
    assert found["C"] == "22023"
    assert "options" in found["M"]


@pytest.mark.parametrize(
    "text",
    [
        "-c=",
        "-c =",
        "--=",
        "-c=x",
        "-c= -c= -c=",
        "-c 1a=b",
        "-c a.=b",
        "-c .a=b",
        "-c a..b=c",
        "-c ä=b",
        "-c a;b=c",
    ],
)
def test_a_setting_without_a_proper_name_is_refused_and_the_parser_ends(text: str) -> None:
    assert no(read_options, text)["C"] == "42704"


@pytest.mark.parametrize("name", ["user", "USER", "database", "replication", "options", "_pq_.x", "_PQ_.x"])
def test_options_cannot_change_who_connects(name: str) -> None:
    assert no(read, user="ann", options=f"-c {name}=root")["C"] == "42704"
    if name != name.lower():
        assert no(read_packet, m.startup([("user", "ann"), (name, "root")]))["C"] == "42704"


def test_a_parameter_of_the_packet_wins_over_options_and_its_name_is_lower_case() -> None:
    found = read(user="ann", options="-c datestyle=German -c timezone=UTC", DateStyle="ISO")
    assert found.settings == {"datestyle": "ISO", "timezone": "UTC"}


def test_the_wishes_for_the_pool_are_taken_out() -> None:
    found = read(user="ann", options="-c penstock.getmode=nowait --penstock.wait-timeout=500ms -c a=b")
    assert found.wishes == {"penstock.getmode": "nowait", "penstock.wait_timeout": "500ms"}
    assert found.settings == {"a": "b"}
    found = read(user="ann", options="-c Penstock.GetMode=nowait", **{"penstock.getmode": "wait"})
    assert (found.wishes, found.settings) == ({"penstock.getmode": "wait"}, {})


@pytest.mark.parametrize("name", ["penstock.x", "penstock.get_mode", "PENSTOCK.max", "penstock.getmode.x"])
def test_an_unknown_setting_of_ours_is_refused_and_the_known_ones_are_listed(name: str) -> None:
    for found in (
        no(read, user="ann", options=f"-c {name}=1"),
        no(read_packet, m.startup([("user", "ann"), (name, "1")])),
    ):
        assert found["C"] == "42704"
        assert "penstock.shard_key and penstock.target" in found["H"]


def test_what_a_client_sent_is_repeated_only_in_part() -> None:
    assert len(no(read_options, "x" * 5000)["M"]) < 200
    assert len(no(read_options, f"-c {'1' * 5000}=x")["M"]) < 200


# --- anything at all ---


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("-c=\\ ab_.\t"), max_size=40))
def test_options_end_whatever_they_are(text: str) -> None:
    try:
        assert isinstance(read_options(text), dict)
    except Refused:
        pass


@given(
    st.binary(max_size=60),
    st.sampled_from([m.PROTOCOL_3_0, m.PROTOCOL_3_0 + 2, m.SSL_CODE, m.CANCEL_CODE, 7]),
)
def test_no_bytes_raise_anything_but_a_refusal(body: bytes, code: int) -> None:
    reply = b""
    try:
        read_packet(packet(code, body))
    except Refused as refusal:
        reply = refusal.reply
    assert reply == b"" or fields(reply)["C"]


NAMES = st.text(
    alphabet=st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=20
)


@given(NAMES, NAMES, NAMES)
def test_what_is_written_is_what_is_read(user: str, database: str, value: str) -> None:
    found = read(user=user, database=database, work_mem=value)
    assert found.user.encode() == user.encode()[:63] or len(user.encode()) > 63
    assert found.settings == {"work_mem": value}
