import hashlib
import struct
from dataclasses import replace
from typing import Any

import pytest

from entrance import BINDING, HELLO, TLS, admitted, door, md5, refused, scram
from logins import Pump, answer, fields, messages, run, sasl_data, startup
from proxy.postgres import messages as m
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.client_login import log_in
from proxy.postgres.scram import SCRAM, SCRAM_PLUS, ScramClient
from proxy.reception import Refused

# --- the ways in ---


@pytest.mark.parametrize("user", ["", "ann", "someone else"])
@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_scram_as_libpq_and_as_asyncpg_speak_it(user: str, chunk: int) -> None:
    found = admitted(door(), [HELLO, *scram(user=user)], chunk=chunk)
    assert (found.startup.user, found.startup.database) == ("ann", "app")
    assert (found.mechanism, found.tls, found.pool.name, found.rest) == ("scram-sha-256", False, "app", b"")
    assert found.account.name == "ann"
    [(kind, body)] = messages(found.reply)
    assert kind == b"R"
    assert body[:4] == struct.pack("!i", 12)
    assert body[4:6] == b"v="


def test_the_servers_signature_satisfies_the_client() -> None:
    client = ScramClient()
    found = admitted(door(), [HELLO, *scram(client=client)])
    client.finish(sasl_data(found.reply))


def test_scram_learns_the_key_for_the_server() -> None:
    gate = door()
    admitted(gate, [HELLO, *scram()])
    ann = gate.directory.find("ann")
    assert ann is not None
    assert ann.client_key is not None
    assert ann.verifier is not None
    assert ann.verifier.matches(ann.client_key)


def test_a_password_in_the_configuration_is_derived_off_the_loop_and_once() -> None:
    gate = door()
    hello = startup(user="pat", database="app")
    assert run(log_in(gate), [hello, *scram()]).works == 1
    assert run(log_in(gate), [hello, *scram()]).works == 0


def test_plus_is_offered_first_on_tls_and_only_there() -> None:
    pump = Pump(log_in(door()))
    pump.feed(TLS)
    assert pump.tls
    assert pump.sent == [b"S"]
    assert sasl_data(pump.feed(HELLO)) == b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
    pump = Pump(log_in(door()))
    assert sasl_data(pump.feed(HELLO)) == b"SCRAM-SHA-256\0\0"
    pump = Pump(log_in(door()), served="ed25519")
    pump.feed(TLS)
    assert sasl_data(pump.feed(HELLO)) == b"SCRAM-SHA-256\0\0"


def test_channel_binding_over_tls() -> None:
    found = admitted(door(tls="require"), [TLS, HELLO, *scram(client=ScramClient(BINDING))])
    assert (found.mechanism, found.tls) == ("scram-sha-256-plus", True)


def test_channel_binding_to_another_certificate_is_refused() -> None:
    other = ScramClient(hashlib.sha256(b"of someone between").digest())
    assert fields(refused(door(), [TLS, HELLO, *scram(client=other)]).reply)["C"] == "28000"


def test_a_removed_offer_of_channel_binding_is_noticed() -> None:
    no = refused(door(), [TLS, HELLO, *scram(client=ScramClient(can_bind=True))])
    assert fields(no.reply)["C"] == "28000"
    assert admitted(door(), [HELLO, *scram(client=ScramClient(can_bind=True))])


def test_an_initial_response_may_come_after_an_empty_challenge() -> None:
    first, final = scram()

    def nothing_yet(offer: bytes) -> bytes:
        return answer(m.cstring(SCRAM) + b"\xff\xff\xff\xff")

    def late(challenge: bytes) -> bytes:
        assert sasl_data(challenge) == b""
        return answer(first(b"")[5 + len(SCRAM) + 1 + 4 :])

    assert admitted(door(), [HELLO, nothing_yet, late, final])


@pytest.mark.parametrize("user", ["pat", "max"])
def test_md5(user: str) -> None:
    found = admitted(door("md5"), [startup(user=user, database="app"), md5(user, "secret")])
    assert (found.mechanism, found.reply) == ("md5", b"")


def test_an_md5_listener_speaks_scram_where_only_a_verifier_is_known() -> None:
    assert admitted(door("md5"), [HELLO, *scram()]).mechanism == "scram-sha-256"


def test_md5_salts_are_fresh() -> None:
    salts = {sasl_data(Pump(log_in(door("md5"))).feed(startup(user="pat"))) for _ in range(20)}
    assert len(salts) == 20


@pytest.mark.parametrize("user", ["ann", "pat", "max"])
def test_a_password_in_clear_text_is_checked_off_the_loop(user: str) -> None:
    pump = run(log_in(door("password")), [startup(user=user, database="app"), answer(b"secret\0")])
    assert (pump.result.mechanism, pump.works) == ("password", 1)


def test_long_passwords_are_taken() -> None:
    gate = door("password", directory=Directory([Account("ann", password="t" * 60_000)]))
    assert admitted(gate, [HELLO, answer(b"t" * 60_000 + b"\0")], chunk=4096)


def test_trust_asks_nothing() -> None:
    found = admitted(door("trust"), [HELLO])
    assert (found.mechanism, found.reply) == ("trust", b"")


def test_what_comes_behind_the_login_is_handed_on() -> None:
    pump = Pump(log_in(door("password")))
    pump.feed(HELLO)
    pump.feed(answer(b"secret\0") + m.query("select 1"))
    assert pump.result.rest == m.query("select 1")
    assert admitted(door("trust"), [HELLO + m.SYNC]).rest == m.SYNC


# --- nobody learns who exists ---


def shape(data: bytes) -> list[tuple[bytes, int]]:
    return [(kind, len(body)) for kind, body in messages(data)]


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password"])
@pytest.mark.parametrize("known", ["ann", "pat", "max"])
def test_an_unknown_user_sees_what_a_known_one_with_a_wrong_password_sees(auth: str, known: str) -> None:
    gate = door(auth)
    account = gate.directory.find(known)
    assert account is not None
    alone = replace(gate, directory=Directory([account]))
    scripts: dict[str, list[Any]] = {
        "scram-sha-256": scram("no"),
        "password": [answer(b"no\0")],
        "md5": scram("no"),
    }
    script = [md5("bob", "no")] if auth == "md5" and known != "ann" else scripts[auth]
    seen = []
    for user in (known, "bob"):
        pump = Pump(log_in(alone))
        written = pump.feed(startup(user=user, database="app"))
        shapes = [shape(written)]
        if auth != "md5":
            script = scram("no") if auth == "scram-sha-256" else script
        elif known == "ann":
            script = scram("no")
        for item in script[:-1]:
            written = pump.feed(item if isinstance(item, bytes) else item(written))
            shapes.append(shape(written))
        last = script[-1] if isinstance(script[-1], bytes) else script[-1](written)
        with pytest.raises(Refused) as caught:
            pump.feed(last)
        told = fields(caught.value.reply)
        seen.append((shapes, told["C"], told["M"].replace(user, "?"), caught.value.reason))
    assert seen[0] == seen[1]
    assert seen[0][1:3] == ("28P01", 'password authentication failed for user "?"')


def test_an_unknown_user_is_shown_the_same_salt_each_time() -> None:
    gate = door()

    def salt(user: str) -> bytes:
        pump = Pump(log_in(gate))
        pump.feed(startup(user=user))
        return sasl_data(pump.feed(scram()[0](b""))).split(b",")[1]

    assert salt("bob") == salt("bob")
    assert salt("bob") != salt("eve")


def test_a_wrong_password_in_clear_text_costs_one_derivation_whoever_it_is_for() -> None:
    for user in ("ann", "pat", "max", "bob"):
        pump = Pump(log_in(door("password")))
        pump.feed(startup(user=user, database="app"))
        with pytest.raises(Refused):
            pump.feed(answer(b"wrong\0"))
        assert pump.works == 1


def test_no_proof_whatever_lets_a_stand_in_pass() -> None:
    gate = door("password")
    gate.directory.stand_in = lambda user: Account(user, password="secret", is_mock=True)  # type: ignore[method-assign]
    hello = startup(user="bob", database="app")
    for auth, script in (
        ("password", [answer(b"secret\0")]),
        ("scram-sha-256", scram()),
        ("md5", [md5("bob", "secret")]),
    ):
        assert fields(refused(replace(gate, auth=auth), [hello, *script]).reply)["C"] == "28P01"


def test_an_md5_hash_on_a_scram_listener_looks_like_a_wrong_password_and_the_log_says_why() -> None:
    no = refused(door(), [startup(user="max", database="app"), *scram()])
    assert fields(no.reply)["C"] == "28P01"
    assert "MD5" in str(no)


def test_trust_is_for_known_users_only() -> None:
    assert fields(refused(door("trust"), [startup(user="bob", database="app")]).reply)["C"] == "28000"


def test_secrets_are_in_no_refusal() -> None:
    for script in (scram("canary"), [answer(b"canary\0")]):
        no = refused(door("password" if len(script) == 1 else "scram-sha-256"), [HELLO, *script])
        assert "canary" not in str(no)
        assert b"canary" not in no.reply


# --- what is legal when: everything else is a protocol error ---


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password"])
def test_a_second_startup_packet_never_changes_who_logs_in(auth: str) -> None:
    for steps in (1, 2) if auth == "scram-sha-256" else (1,):
        script: list[Any] = [startup(user="pat", database="app"), *scram()][:steps]
        no = refused(door(auth), [*script, startup(user="ann", database="app")])
        assert fields(no.reply)["C"] == "08P01"


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password"])
@pytest.mark.parametrize(
    "unexpected",
    [
        m.query("select 1"),
        m.SYNC,
        m.TERMINATE,
        m.message(b"P", b"\0\0\0\0"),
        TLS,
        m.message(b"R", b"\0\0\0\0"),
    ],
)
def test_nothing_but_an_answer_is_legal_during_the_proof(auth: str, unexpected: bytes) -> None:
    no = refused(door(auth), [startup(user="pat", database="app"), unexpected])
    assert fields(no.reply)["C"] == "08P01"


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password"])
@pytest.mark.parametrize("ahead", [answer(b"secret\0"), startup(user="ann"), b"p"])
def test_an_answer_ahead_of_its_question_is_refused(auth: str, ahead: bytes) -> None:
    no = refused(door(auth), [startup(user="pat", database="app") + ahead])
    assert fields(no.reply)["C"] == "08P01"


def test_a_password_before_the_startup_packet_is_refused() -> None:
    no = refused(door("password"), [answer(b"secret\0")])
    assert fields(no.reply)["C"] == "08P01"


@pytest.mark.parametrize(
    "length", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0", b"\0\0\0\x0b"]
)
def test_a_length_inside_a_sasl_message_that_lies_is_refused(length: bytes) -> None:
    no = refused(door(), [HELLO, answer(b"SCRAM-SHA-256\0" + length + b"n,,n=,r=ab")])
    assert fields(no.reply)["C"] == "08P01"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\0\0\0",
        b"SCRAM-SHA-1\0\0\0\0\0",
        b"\xff\0\0\0\0\0",
    ],
)
def test_a_sasl_message_that_is_cut_short_or_of_another_mechanism_is_refused(body: bytes) -> None:
    assert fields(refused(door(), [HELLO, answer(body)]).reply)["C"] == "08P01"


def test_plus_without_tls_is_refused() -> None:
    assert refused(door(), [HELLO, *scram(client=ScramClient(BINDING))])
    assert SCRAM_PLUS != SCRAM


@pytest.mark.parametrize("final", [b"", b"c=biws", b"c=biws,r=x", b"c=biws,r=x,p=", b"p=AAAA"])
def test_a_final_message_with_a_missing_attribute_is_never_a_login(final: bytes) -> None:
    no = refused(door(), [HELLO, scram()[0], answer(final)])
    assert fields(no.reply)["C"] == "08P01"


@pytest.mark.parametrize(("auth", "cap"), [("scram-sha-256", 2048), ("password", 65_536), ("md5", 65_536)])
def test_a_message_beyond_its_cap_is_refused_at_its_header(auth: str, cap: int) -> None:
    hello = startup(user="pat", database="app")
    for length in (cap + 1, 0x7FFFFFFF, 0xFFFFFFFF, 3, 0):
        assert fields(refused(door(auth), [hello, b"p" + struct.pack("!I", length)]).reply)["C"] == "08P01"
    pump = Pump(log_in(door(auth)))
    pump.feed(hello)
    pump.feed(b"p" + struct.pack("!I", cap))
    assert not pump.done


@pytest.mark.parametrize("body", [b"", b"secret", b"sec\0ret\0", b"secret\0\0", b"\0\0"])
def test_a_password_message_that_is_not_one_string_is_refused(body: bytes) -> None:
    assert fields(refused(door("password"), [HELLO, answer(body)]).reply)["C"] == "08P01"


def test_an_empty_password_is_no_password() -> None:
    assert fields(refused(door("password"), [HELLO, answer(b"\0")]).reply)["C"] == "28P01"
    assert fields(refused(door("md5"), [startup(user="pat"), answer(b"\0")]).reply)["C"] == "28P01"


def test_a_door_with_a_word_that_means_nothing_is_not_built() -> None:
    for words in ({"auth": "any"}, {"tls": "requires"}, {"auth": ""}):
        with pytest.raises(ValueError):
            door(**words)
