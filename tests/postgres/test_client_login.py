from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrance import GSSENC, HELLO, TLS, admitted, door, md5, refused, scram
from logins import Pump, answer, fields, messages, packet, run, sasl_data, startup
from proxy.postgres import messages as m
from proxy.postgres.client_login import Admitted, log_in, welcome
from proxy.postgres.startup import CancelKey
from proxy.reasons import RefusalReason
from proxy.reception import Refused
from proxy.steps import StartTls

# --- before the startup packet ---


def test_tls_that_is_disabled_is_declined_and_the_login_goes_on() -> None:
    pump = Pump(log_in(door("trust", "disable")))
    assert pump.feed(TLS) == b"N"
    pump.feed(HELLO)
    assert pump.result.tls is False


def test_gss_encryption_is_declined_and_tls_may_follow() -> None:
    pump = Pump(log_in(door("trust", "require")))
    assert pump.feed(GSSENC) == b"N"
    assert pump.feed(TLS) == b"S"
    pump.feed(HELLO)
    assert pump.result.tls is True


def test_tls_is_not_offered_and_not_required_on_a_unix_socket() -> None:
    pump = Pump(log_in(door("trust", "require", is_local=True)))
    assert pump.feed(TLS) == b"N"
    pump.feed(HELLO)
    assert pump.result.tls is False


def test_tls_is_accepted_by_a_step_that_carries_the_answer() -> None:
    conversation = log_in(door())
    assert next(conversation) == b""
    step = conversation.send(TLS)
    assert isinstance(step, StartTls)
    assert step.send == b"S"


@pytest.mark.parametrize("request_", [TLS, GSSENC])
@pytest.mark.parametrize("mode", ["disable", "allow", "require"])
@pytest.mark.parametrize("behind", [b"x", HELLO, TLS, GSSENC, b"\x16\x03\x01"])
def test_bytes_stuffed_behind_a_request_are_refused(request_: bytes, mode: str, behind: bytes) -> None:
    pump = Pump(log_in(door("trust", mode)))
    with pytest.raises(Refused, match="unencrypted data") as caught:
        pump.feed(request_ + behind)
    assert caught.value.reason is RefusalReason.PROTOCOL
    assert not pump.tls
    assert pump.out == b""


@pytest.mark.parametrize(
    "script", [[GSSENC, GSSENC], [TLS, TLS], [TLS, GSSENC], [GSSENC, TLS, GSSENC], [GSSENC, TLS, TLS]]
)
@pytest.mark.parametrize("mode", ["disable", "allow"])
def test_each_request_may_come_once_and_none_inside_tls(script: list[bytes], mode: str) -> None:
    if mode == "disable" and script == [TLS, GSSENC]:
        assert run(log_in(door("trust", mode)), [*script, HELLO]).out == b"NN"
        return
    assert fields(refused(door("trust", mode), script).reply)["C"] == "08P01"


def test_tls_that_is_required_and_not_used_is_refused_with_a_hint() -> None:
    no = refused(door(tls="require"), [HELLO])
    assert fields(no.reply)["C"] == "28000"
    assert "sslmode=require" in fields(no.reply)["H"]
    assert no.reason is RefusalReason.TLS


HELLO_OF_TLS = b"\x16\x03\x01\x00\xa5..."


@pytest.mark.parametrize("mode", ["allow", "require"])
def test_tls_may_begin_at_once_and_then_goes_on_with_the_startup_packet(mode: str) -> None:
    pump = Pump(log_in(door(tls=mode)), alpn="postgresql")
    assert pump.feed(HELLO_OF_TLS) == b""
    assert pump.tls
    assert pump.ahead == HELLO_OF_TLS
    assert sasl_data(pump.feed(HELLO)) == b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"


@pytest.mark.parametrize("alpn", ["", "http/1.1"])
def test_tls_that_begins_at_once_demands_alpn(alpn: str) -> None:
    no = refused(door(), [HELLO_OF_TLS], alpn=alpn)
    assert (no.reply, no.reason) == (b"", RefusalReason.TLS)
    assert "postgresql" in str(no)


@pytest.mark.parametrize(("mode", "is_local"), [("disable", False), ("require", True)])
def test_tls_that_begins_at_once_is_refused_without_an_answer_where_there_is_none(
    mode: str, is_local: bool
) -> None:
    no = refused(door(tls=mode, is_local=is_local), [b"\x16"])
    assert (no.reply, no.reason) == (b"", RefusalReason.TLS)
    assert "sslnegotiation=direct" in str(no)


@pytest.mark.parametrize("before", [[GSSENC], [TLS], [HELLO_OF_TLS]])
def test_tls_does_not_begin_twice_nor_behind_a_request(before: list[bytes]) -> None:
    no = refused(door(), [*before, HELLO_OF_TLS], alpn="postgresql")
    assert (no.reply, no.reason) == (b"", RefusalReason.PROTOCOL)


def test_a_cancel_request_may_come_in_tls_that_began_at_once() -> None:
    key = run(log_in(door()), [HELLO_OF_TLS, packet(m.CANCEL_CODE, b"12345678")], alpn="postgresql").result
    assert key == CancelKey(b"12345678")


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_cancel_request_ends_at_once(chunk: int) -> None:
    assert run(log_in(door()), [packet(m.CANCEL_CODE, b"12345678")], chunk=chunk).result == CancelKey(
        b"12345678"
    )
    assert run(log_in(door()), [TLS, packet(m.CANCEL_CODE, b"12345678")]).result == CancelKey(b"12345678")


def test_http_and_other_strangers_are_refused() -> None:
    assert refused(door(), [b"GET / HTTP/1.1\r\n\r\n"]).reason is RefusalReason.PROTOCOL


def test_a_full_house_is_said_when_the_startup_packet_is_there_and_not_to_a_cancel_request() -> None:
    gate = door(refusal=lambda: ("53300", "it is full", "Raise max_clients.", RefusalReason.MAX_CLIENTS))
    no = refused(gate, [HELLO])
    assert (fields(no.reply)["C"], fields(no.reply)["H"]) == ("53300", "Raise max_clients.")
    assert no.reason is RefusalReason.MAX_CLIENTS
    assert run(log_in(gate), [packet(m.CANCEL_CODE, b"12345678")]).done


# --- negotiation and the welcome ---


@pytest.mark.parametrize(
    ("auth", "script"), [("password", [answer(b"secret\0")]), ("scram-sha-256", scram())]
)
def test_negotiation_goes_out_once_and_before_the_question(auth: str, script: list[Any]) -> None:
    pump = Pump(log_in(door(auth)))
    asked = pump.feed(
        startup((3 << 16) | 9999, user="ann", database="app", **{"_pq_.test_protocol_negotiation": ""})
    )
    assert [kind for kind, _ in messages(asked)] == [b"v", b"R"]
    for item in script:
        asked = pump.feed(item if isinstance(item, bytes) else item(asked))
    assert b"v" not in [kind for kind, _ in messages(asked + pump.result.reply)]


def test_negotiation_is_not_forgotten_where_nothing_is_asked() -> None:
    found = admitted(door("trust"), [startup(0x00030003, user="ann", database="app")])
    assert [kind for kind, _ in messages(found.reply)] == [b"v"]


def test_the_welcome() -> None:
    sent = messages(welcome({"server_version": "15.0", "TimeZone": "UTC"}, b"12345678"))
    assert sent == [
        (b"R", b"\0\0\0\0"),
        (b"S", b"server_version\x0015.0\0"),
        (b"S", b"TimeZone\0UTC\0"),
        (b"K", b"12345678"),
        (b"Z", b"I"),
    ]


# --- the ways out, all after the proof ---


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password", "trust"])
def test_a_database_without_a_pool_is_reported_after_the_proof_only(auth: str) -> None:
    hello = startup(user="pat", database="nosuch")
    proof: dict[str, list[Any]] = {
        "scram-sha-256": scram(),
        "md5": [md5("pat", "secret")],
        "password": [answer(b"secret\0")],
        "trust": [],
    }
    no = refused(door(auth), [hello, *proof[auth]])
    assert fields(no.reply)["C"] == "3D000"
    assert fields(no.reply)["M"] == 'database "nosuch" does not exist'
    assert "[pools.nosuch]" in fields(no.reply)["H"]
    assert no.reason is RefusalReason.DATABASE
    if auth != "trust":
        wrong = {"scram-sha-256": scram("x"), "md5": [md5("pat", "x")], "password": [answer(b"x\0")]}
        assert fields(refused(door(auth), [hello, *wrong[auth]]).reply)["C"] == "28P01"


def test_the_servers_signature_goes_out_before_a_refusal_that_follows_it() -> None:
    no = refused(door(), [startup(user="ann", database="nosuch"), *scram()])
    assert [kind for kind, _ in messages(no.reply)] == [b"R", b"E"]


def test_an_account_is_kept_out_of_pools_that_are_not_its_own() -> None:
    no = refused(door("password"), [startup(user="lim", database="app"), answer(b"secret\0")])
    assert fields(no.reply)["C"] == "42501"


def test_terms_that_a_client_may_not_choose_are_refused_in_words() -> None:
    hello = startup(user="ann", database="app", options="-c penstock.getmode=wait")
    no = refused(door("password"), [hello, answer(b"secret\0")])
    assert (fields(no.reply)["C"], fields(no.reply)["M"]) == (
        "22023",
        'a client may not choose getmode "wait" here',
    )
    hello = startup(user="ann", database="app", options="-c penstock.getmode=nowait")
    assert admitted(door("password"), [hello, answer(b"secret\0")]).startup.wishes == {
        "penstock.getmode": "nowait"
    }


# --- anything at all ---


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_any_split_gives_the_same(sizes: list[int]) -> None:
    pump = Pump(log_in(door()))
    written = b""
    for item in [HELLO, *scram()]:
        data = item if isinstance(item, bytes) else item(written)
        written, at = b"", 0
        while at < len(data):
            size = sizes[at % len(sizes)]
            written += pump.feed(data[at : at + size])
            at += size
    assert pump.result.account.name == "ann"


SEEDS = st.sampled_from(
    [TLS, GSSENC, HELLO, answer(b"secret\0"), startup(user="bob"), packet(m.CANCEL_CODE, b"12345678"), m.SYNC]
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["scram-sha-256", "md5", "password", "trust"]),
    st.lists(SEEDS | st.binary(min_size=1, max_size=40), max_size=8),
)
def test_no_bytes_raise_anything_but_a_refusal_and_each_read_takes_few_steps(
    auth: str, script: list[bytes]
) -> None:
    pump = Pump(log_in(door(auth)))
    reply = b""
    try:
        for item in script:
            before = pump.steps
            pump.feed(item)
            assert pump.steps - before < 5
    except Refused as no:
        reply = no.reply
    assert reply == b"" or fields(reply)["S"] == "FATAL"
    if isinstance(pump.result, Admitted):
        assert auth != "scram-sha-256"
        assert pump.result.account.name == "ann"
