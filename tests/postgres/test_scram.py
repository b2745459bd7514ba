import hashlib

import pytest
import scramp
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.postgres.scram import MESSAGE_CAP, SCRAM, SCRAM_PLUS, ScramClient, ScramError, ScramServer
from proxy.postgres.verifier import (
    Verifier,
    decode64,
    encode64,
    keys_of,
    prepare,
    salt_password,
)

# RFC 7677 section 3
PASSWORD = "pencil"
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = decode64("W22ZaJ0SNY7soEsUEjb6gQ==") or b""
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

VERIFIER = Verifier.make(PASSWORD, SALT, 4096)
QUICK = Verifier.make("secret", b"0123456789abcdef", 2)
BINDING = hashlib.sha256(b"certificate").digest()


def client_keys(client: ScramClient, password: str | bytes = "secret") -> tuple[bytes, bytes]:
    return keys_of(salt_password(password, client.salt, client.iterations))


def exchange(server: ScramServer, client: ScramClient, password: str | bytes = "secret") -> bool:
    client.challenge(server.first(client.mechanism, client.first()))
    final = server.final(client.final(*client_keys(client, password)))
    if final is None:
        return False
    client.finish(final)
    return True


# --- vectors and oracles ---


def test_the_server_speaks_as_rfc_7677_does() -> None:
    server = ScramServer(VERIFIER, nonce=SERVER_NONCE)
    assert server.first(SCRAM, CLIENT_FIRST) == SERVER_FIRST
    assert server.final(CLIENT_FINAL) == SERVER_FINAL
    assert hashlib.sha256(server.client_key).digest() == VERIFIER.stored_key


def test_the_client_speaks_as_rfc_7677_does() -> None:
    client = ScramClient(nonce=CLIENT_NONCE)
    assert client.first("user") == CLIENT_FIRST
    client.challenge(SERVER_FIRST)
    assert (client.salt, client.iterations) == (SALT, 4096)
    assert client.final(*client_keys(client, PASSWORD)) == CLIENT_FINAL
    client.finish(SERVER_FINAL)


@pytest.mark.parametrize("mechanism", [SCRAM, SCRAM_PLUS])
@pytest.mark.parametrize(("given", "is_let_in"), [("pencil", True), ("pencils", False)])
def test_another_implementation_can_log_in_to_us(mechanism: str, given: str, is_let_in: bool) -> None:
    binding = BINDING if mechanism == SCRAM_PLUS else None
    channel = ("tls-server-end-point", BINDING) if mechanism == SCRAM_PLUS else None
    theirs = scramp.ScramClient([mechanism], "user", given, channel_binding=channel)
    ours = ScramServer(VERIFIER, binding)
    theirs.set_server_first(ours.first(mechanism, theirs.get_client_first().encode()).decode())
    final = ours.final(theirs.get_client_final().encode())
    assert (final is not None) == is_let_in
    if final is not None:
        theirs.set_server_final(final.decode())


@pytest.mark.parametrize("mechanism", [SCRAM, SCRAM_PLUS])
def test_we_can_log_in_to_another_implementation(mechanism: str) -> None:
    channel = ("tls-server-end-point", BINDING) if mechanism == SCRAM_PLUS else None
    theirs = scramp.ScramMechanism(mechanism).make_server(
        lambda user: (VERIFIER.salt, VERIFIER.stored_key, VERIFIER.server_key, 4096), channel_binding=channel
    )
    ours = ScramClient(BINDING if channel else None)
    theirs.set_client_first(ours.first("user").decode())
    ours.challenge(theirs.get_server_first().encode())
    theirs.set_client_final(ours.final(*client_keys(ours, PASSWORD)).decode())
    ours.finish(theirs.get_server_final().encode())


def test_both_sides_agree_with_every_flag() -> None:
    assert exchange(ScramServer(QUICK), ScramClient())
    assert exchange(ScramServer(QUICK), ScramClient(can_bind=True))
    assert exchange(ScramServer(QUICK, BINDING), ScramClient())
    assert exchange(ScramServer(QUICK, BINDING), ScramClient(BINDING))
    assert not exchange(ScramServer(QUICK), ScramClient(), "wrong")


def test_the_client_key_opens_the_same_verifier_elsewhere() -> None:
    server = ScramServer(QUICK)
    assert exchange(server, ScramClient())
    client = ScramClient()
    second = ScramServer(QUICK)
    client.challenge(second.first(SCRAM, client.first()))
    final = second.final(client.final(server.client_key, QUICK.server_key))
    assert final is not None
    client.finish(final)


def test_a_wrong_proof_leaves_no_client_key() -> None:
    server = ScramServer(QUICK)
    assert not exchange(server, ScramClient(), "wrong")
    assert server.client_key == b""


# --- channel binding ---


def test_a_client_that_was_robbed_of_the_offer_is_refused() -> None:
    with pytest.raises(ScramError, match="removed the offer") as caught:
        ScramServer(QUICK, BINDING).first(SCRAM, b"y,,n=,r=abc")
    assert caught.value.sqlstate == "28000"


def test_plus_with_another_certificate_is_refused() -> None:
    with pytest.raises(ScramError, match="channel binding is not that of this connection"):
        exchange(ScramServer(QUICK, BINDING), ScramClient(hashlib.sha256(b"another").digest()))


@pytest.mark.parametrize(
    ("mechanism", "first"),
    [
        (SCRAM, b"p=tls-server-end-point,,n=,r=abc"),
        (SCRAM_PLUS, b"n,,n=,r=abc"),
        (SCRAM_PLUS, b"y,,n=,r=abc"),
        (SCRAM_PLUS, b"p=tls-unique,,n=,r=abc"),
        (SCRAM_PLUS, b"p=tls-exporter,,n=,r=abc"),
    ],
)
def test_flag_and_mechanism_must_fit(mechanism: str, first: bytes) -> None:
    with pytest.raises(ScramError):
        ScramServer(QUICK, BINDING).first(mechanism, first)


def test_plus_is_refused_where_it_was_not_offered() -> None:
    with pytest.raises(ScramError):
        ScramServer(QUICK).first(SCRAM_PLUS, b"p=tls-server-end-point,,n=,r=abc")


@pytest.mark.parametrize("bound", ["", "eSws", "biw", "biws=", "bixh", encode64(b"n,,x")])
def test_the_final_message_repeats_the_header_exactly(bound: str) -> None:
    server, client = ScramServer(QUICK), ScramClient()
    client.challenge(server.first(SCRAM, client.first()))
    final = client.final(*client_keys(client)).replace(b"c=biws", f"c={bound}".encode())
    with pytest.raises(ScramError):
        server.final(final)


# --- the server's parser: a whole message, or an error ---


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n",
        b"n,",
        b"n,,",
        b"n,,n=",
        b"n,,n=,",
        b"n,,n=,r",
        b"n,,n=,r=",
        b"n,,r=abc",
        b"n,,r=abc,n=",
        b"n,,m=ext,n=,r=abc",
        b"n,a=other,n=,r=abc",
        b"x,,n=,r=abc",
        b"nn,,n=,r=abc",
        b",,n=,r=abc",
        b"n,,n=,r=a\x01c",
        b"n,,n=,r=a c",
        b"n,,n=,r=abc,",
        b"n,,n=,r=abc,junk",
        b"n,,n=,r=abc\0",
        b"n,,n=\xff,r=abc",
        "n,,n=,r=äbc".encode(),
        b"n,,n=,r=" + b"a" * MESSAGE_CAP,
    ],
)
def test_a_first_message_with_something_missing_or_too_much_is_refused(first: bytes) -> None:
    with pytest.raises(ScramError):
        ScramServer(QUICK).first(SCRAM, first)


@pytest.mark.parametrize(
    "first", [b"n,,n=,r=abc", b"n,,n=user,r=abc", b"n,,n=a=2Cb,r=abc,x=1", b"y,,n=,r=abc"]
)
def test_the_user_name_in_the_exchange_does_not_matter(first: bytes) -> None:
    assert ScramServer(QUICK, nonce="XYZ").first(SCRAM, first).startswith(b"r=abcXYZ,s=")


@pytest.mark.parametrize("left_out", ["c", "r", "p"])
def test_a_final_message_without_a_mandatory_attribute_is_never_success(left_out: str) -> None:
    server = ScramServer(VERIFIER, nonce=SERVER_NONCE)
    server.first(SCRAM, CLIENT_FIRST)
    kept = [part for part in CLIENT_FINAL.decode().split(",") if not part.startswith(left_out)]
    with pytest.raises(ScramError):
        server.final(",".join(kept).encode())
    assert server.client_key == b""


@pytest.mark.parametrize(
    "final",
    [
        b"",
        CLIENT_FINAL + b",",
        CLIENT_FINAL + b",x=1",
        CLIENT_FINAL + b"\0",
        CLIENT_FINAL + b"A",
        CLIENT_FINAL[:-4],
        CLIENT_FINAL.replace(b"%hvY", b"%hvX"),
        CLIENT_FINAL.replace(b"c=biws,", b"c=biws,c=biws,"),
        CLIENT_FINAL.replace(b",p=", b",p=,p="),
        b"p" + CLIENT_FINAL[1:],
    ],
)
def test_a_final_message_that_is_not_exactly_right_is_refused(final: bytes) -> None:
    server = ScramServer(VERIFIER, nonce=SERVER_NONCE)
    server.first(SCRAM, CLIENT_FIRST)
    with pytest.raises(ScramError):
        server.final(final)


@given(st.binary(max_size=80), st.binary(max_size=120))
def test_no_bytes_make_the_server_raise_anything_else(first: bytes, final: bytes) -> None:
    server = ScramServer(QUICK)
    try:
        server.first(SCRAM, first)
    except ScramError:
        server.first(SCRAM, CLIENT_FIRST)
    try:
        assert server.final(final) is None
    except ScramError:
        pass


@given(st.binary(min_size=1, max_size=40))
def test_only_the_right_proof_is_let_in(other: bytes) -> None:
    assume(prepare(other) != b"secret")
    assert not exchange(ScramServer(QUICK), ScramClient(), other)


# --- the client does not trust the server ---


@pytest.mark.parametrize("length", [1, 4, 12, 16, 32, 100])
def test_any_salt_length_will_do(length: int) -> None:
    verifier = Verifier.make("secret", b"s" * length, 2)
    assert exchange(ScramServer(verifier), ScramClient())


@pytest.mark.parametrize(
    "count", ["0", "100001", "4294967295", "99999999999999999999", "-1", "", "1e3", "1_0", "٤"]
)
def test_an_iteration_count_out_of_bounds_is_refused_before_anything_is_computed(count: str) -> None:
    client = ScramClient(nonce="abc")
    client.first()
    with pytest.raises(ScramError, match="iteration count"):
        client.challenge(f"r=abcd,s=c2FsdA==,i={count}".encode())


@pytest.mark.parametrize("count", [1, 100_000])
def test_an_iteration_count_within_bounds_is_taken(count: int) -> None:
    client = ScramClient(nonce="abc")
    client.first()
    client.challenge(f"r=abcd,s=c2FsdA==,i={count}".encode())
    assert client.iterations == count


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"r=abc,s=c2FsdA==,i=4096",
        b"r=xabcd,s=c2FsdA==,i=4096",
        b"r=abcd,s=,i=4096",
        b"r=abcd,s=*,i=4096",
        b"r=abcd,i=4096,s=c2FsdA==",
        b"r=abcd,s=c2FsdA==",
        b"s=c2FsdA==,i=4096",
        b"m=x,r=abcd,s=c2FsdA==,i=4096",
        b"r=abcd\x7f,s=c2FsdA==,i=4096",
        b"e=other-error",
        b"\xff",
        b"r=abc" + b"d" * MESSAGE_CAP + b",s=c2FsdA==,i=4096",
    ],
)
def test_a_challenge_that_is_not_exactly_right_is_refused(challenge: bytes) -> None:
    client = ScramClient(nonce="abc")
    client.first()
    with pytest.raises(ScramError):
        client.challenge(challenge)


@pytest.mark.parametrize("final", [b"", b"v=", b"v=AAAA", b"x=1", b"v", b"v=" + b"A" * 3000])
def test_a_server_that_does_not_prove_itself_is_refused(final: bytes) -> None:
    client = ScramClient(nonce=CLIENT_NONCE)
    client.first("user")
    client.challenge(SERVER_FIRST)
    client.final(*client_keys(client, PASSWORD))
    with pytest.raises(ScramError):
        client.finish(final)


def test_an_empty_signature_does_not_match_a_proof_that_was_never_made() -> None:
    with pytest.raises(ScramError):
        ScramClient().finish(b"v=")


def test_the_servers_own_error_is_reported() -> None:
    with pytest.raises(ScramError, match="invalid-proof"):
        ScramClient().finish(b"e=invalid-proof")


@given(st.binary(max_size=120))
def test_no_bytes_make_the_client_raise_anything_else(data: bytes) -> None:
    client = ScramClient(nonce="abc")
    client.first()
    for read in (client.challenge, client.finish):
        with pytest.raises(ScramError):
            read(data)
