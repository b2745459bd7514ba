import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.postgres.certificate_names import FIELDS, names_in


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes((size,)) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes((tag,)) + length + content


def made(*names: tuple[int, bytes], alternatives: bytes = b"", version: bool = True) -> bytes:
    pairs = [
        element(0x31, element(0x30, element(0x06, b"\x55\x04\x03") + element(tag, text)))
        for tag, text in names
    ]
    other = element(0x31, element(0x30, element(0x06, b"\x55\x04\x0a") + element(0x0C, b"ACME")))
    empty = element(0x30, b"")
    signed = element(0xA0, element(0x02, b"\2")) if version else b""
    signed += element(0x02, b"\1") + empty + empty + empty + element(0x30, other + b"".join(pairs)) + empty
    if alternatives:
        extension = element(0x30, element(0x06, b"\x55\x1d\x11") + element(0x04, element(0x30, alternatives)))
        signed += element(0xA3, element(0x30, extension))
    return element(0x30, element(0x30, signed) + empty + element(0x03, b"\0"))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([(0x0C, b"app")], ("app",)),
        ([(0x13, b"app")], ("app",)),
        ([(0x1E, "äpp".encode("utf-16-be"))], ("äpp",)),
        ([(0x0C, "äpp".encode())], ("äpp",)),
        ([], ()),
        ([(0x0C, b"app"), (0x0C, b"root")], ()),  # which of them?
        ([(0x0C, b"root\0.evil")], ()),
        ([(0x0C, b"\xff")], ()),
        ([(0x14, b"app")], ()),  # T.61 is read in many ways
        ([(0x0C, b"")], ()),
    ],
)
def test_the_common_name(names: list[tuple[int, bytes]], found: tuple[str, ...]) -> None:
    assert names_in(made(*names), "cn") == found
    assert names_in(made(*names, version=False), "cn") == found


def test_alternative_names_of_the_kind_that_is_asked_for() -> None:
    both = element(0x82, b"app.internal") + element(0x81, b"ann@example.com") + element(0x82, b"root\0x")
    der = made((0x0C, b"app"), alternatives=both + element(0x86, b"spiffe://x/app"))
    assert names_in(der, "san-dns") == ("app.internal",)
    assert names_in(der, "san-email") == ("ann@example.com",)
    assert names_in(der, "san-uri") == ("spiffe://x/app",)
    assert names_in(made((0x0C, b"app")), "san-dns") == ()


@given(st.binary(max_size=80), st.sampled_from(FIELDS))
def test_rubbish_names_nobody(rubbish: bytes, field: str) -> None:
    assert names_in(rubbish, field) == ()


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_broken_certificate_raises_nothing(place: int, value: int) -> None:
    der = bytearray(made((0x0C, b"app"), alternatives=element(0x82, b"app.internal")))
    der[place % len(der)] = value
    for field in FIELDS:
        names_in(bytes(der), field)
        names_in(bytes(der)[:place], field)


def test_certificates_as_openssl_makes_them(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/O=ACME/CN=app", "-addext", "subjectAltName=DNS:app.internal,email:ann@example.com"]
    try:
        subprocess.run(
            [*command, *names, "-keyout", "k", "-outform", "DER", "-out", "c"],
            check=True,
            cwd=tmp_path,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no openssl command that makes certificates")
    der = (tmp_path / "c").read_bytes()
    assert names_in(der, "cn") == ("app",)
    assert names_in(der, "san-dns") == ("app.internal",)
    assert names_in(der, "san-email") == ("ann@example.com",)
