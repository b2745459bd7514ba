import hmac

import pytest
import scramp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.postgres.verifier import Verifier, decode64, encode64, keys_of, mock_verifier, prepare

VERIFIER = Verifier.make("pencil", decode64("W22ZaJ0SNY7soEsUEjb6gQ==") or b"", 4096)

# --- verifiers ---


def test_a_verifier_reads_and_writes_the_form_of_pg_authid() -> None:
    text = VERIFIER.text()
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert Verifier.parse(text) == VERIFIER
    assert VERIFIER.stored_key.hex() not in repr(VERIFIER)
    assert repr(VERIFIER) == "Verifier(iterations=4096)"


KEYS = f"{encode64(b'a' * 32)}:{encode64(b'b' * 32)}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "md5" + "0" * 32,
        f"SCRAM-SHA-1$4096:c2FsdA==${KEYS}",
        f"SCRAM-SHA-256$c2FsdA==${KEYS}",
        f"SCRAM-SHA-256$0:c2FsdA==${KEYS}",
        f"SCRAM-SHA-256$-1:c2FsdA==${KEYS}",
        f"SCRAM-SHA-256$4096:${KEYS}",
        f"SCRAM-SHA-256$4096:***${KEYS}",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEYS}$",
        "SCRAM-SHA-256$4096:c2FsdA==$YWJj:YWJj",
        f"SCRAM-SHA-256$4096:c2FsdA==${encode64(b'a' * 32)}",
    ],
)
def test_what_is_no_verifier_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        Verifier.parse(text)
    assert "c2FsdA" not in str(caught.value)
    assert "YWJj" not in str(caught.value)


def test_made_verifiers_have_their_own_salt() -> None:
    one, other = Verifier.make("x", iterations=1), Verifier.make("x", iterations=1)
    assert one.salt != other.salt
    assert len(one.salt) == 16


def test_a_mock_verifier_is_the_same_each_time_and_another_for_each_user_and_process() -> None:
    assert mock_verifier("ann", b"s") == mock_verifier("ann", b"s")
    assert mock_verifier("ann", b"s").salt != mock_verifier("bob", b"s").salt
    assert mock_verifier("ann", b"s").salt != mock_verifier("ann", b"t").salt
    shaped = mock_verifier("ann", b"s", 9000, 40)
    assert (shaped.iterations, len(shaped.salt)) == (9000, 40)


# --- SASLprep ---


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("pencil", b"pencil"),
        ("pw\x07", b"pw\x07"),
        ("I\u00adX", b"IX"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        ("a\u00a0b", b"a b"),
        ("a\u200bb", b"a b"),
        ("p\u00e4ss", "p\u00e4ss".encode()),
        ("pa\u0308ss", "p\u00e4ss".encode()),
        ("\u00e4\x07", "\u00e4\x07".encode()),  # prohibited: as it is
        ("\u0627\u0031", "\u0627\u0031".encode()),  # right-to-left that does not end so
        ("\u0627a\u0628", "\u0627a\u0628".encode()),
        ("\u0627\u0628", "\u0627\u0628".encode()),
        ("\u00ad", "\u00ad".encode()),  # nothing would be left
        ("\U000e0001\u00e4", "\U000e0001\u00e4".encode()),
        ("\u0221", "\u0221".encode()),  # unassigned in Unicode 3.2
    ],
)
def test_passwords_are_prepared_as_postgresql_does(password: str, prepared: bytes) -> None:
    assert prepare(password) == prepared
    assert prepare(password.encode()) == prepared


def test_bytes_that_are_not_utf8_stay_as_they_are() -> None:
    assert prepare(b"p\xe4ss") == b"p\xe4ss"


@settings(max_examples=200)
@given(st.text(min_size=1, max_size=8))
def test_preparing_agrees_with_another_implementation_where_that_one_accepts(password: str) -> None:
    assume(not password.isascii())
    assume("\u200b" not in password)  # PostgreSQL takes it for a space, RFC 4013 allows both
    try:
        theirs = scramp.core.saslprep(password)
    except scramp.ScramException:
        assert prepare(password)
        return
    # PostgreSQL looks at the text before its normalization, so it may leave alone what others prepare.
    assert prepare(password) in (theirs.encode("utf-8", "surrogatepass"), password.encode("utf-8"))


def test_hmac_is_plain_hmac() -> None:
    client_key, server_key = keys_of(b"salted")
    assert client_key == hmac.new(b"salted", b"Client Key", "sha256").digest()
    assert server_key == hmac.new(b"salted", b"Server Key", "sha256").digest()
