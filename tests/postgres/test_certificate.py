import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logins import certificate
from proxy.postgres.certificate import endpoint_hash


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("ecdsa-sha256", "sha256"),
        ("ecdsa-sha384", "sha384"),
        ("ecdsa-sha512", "sha512"),
        ("rsa-sha256", "sha256"),
        ("rsa-sha512", "sha512"),
        ("pss-sha256", "sha256"),
        ("pss-sha384", "sha384"),
    ],
)
def test_the_hash_is_that_of_the_signature(name: str, digest: str) -> None:
    der = certificate(name)
    assert endpoint_hash(der) == hashlib.new(digest, der).digest()


@pytest.mark.parametrize("name", ["ecdsa-sha1", "rsa-sha1", "rsa-md5", "pss-sha1"])
def test_md5_and_sha1_give_way_to_sha256(name: str) -> None:
    der = certificate(name)
    assert endpoint_hash(der) == hashlib.sha256(der).digest()


def test_a_signature_without_a_hash_of_its_own_gives_no_binding() -> None:
    assert endpoint_hash(certificate("ed25519")) is None


@given(st.binary(max_size=200))
def test_what_is_no_certificate_gives_no_binding(data: bytes) -> None:
    assert endpoint_hash(data) is None


@given(st.integers(min_value=0, max_value=2000))
def test_a_certificate_that_is_cut_short_gives_no_binding_or_the_hash_of_what_is_there(cut: int) -> None:
    der = certificate("pss-sha384")[:cut]
    assert endpoint_hash(der) in (None, hashlib.sha384(der).digest())


def test_lengths_that_lie_are_refused() -> None:
    assert endpoint_hash(b"\x30\x84\xff\xff\xff\xff") is None
    assert endpoint_hash(b"\x30\x80\x30\x00") is None
    assert endpoint_hash(b"\x30\x89" + b"\x01" * 9) is None
