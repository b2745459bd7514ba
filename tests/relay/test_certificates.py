"""Files of certificates that change, and contexts made of them."""

import asyncio
import os
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from certificate_shop import Mounted, issue
from proxy.reasons import TlsFailure
from proxy.relay.certificates import Kept, watch
from proxy.relay.tls import ListenerFiles, ServerFiles
from proxy.relay.tls_dates import end_of
from proxy.relay.tls_failures import explain
from proxy.relay.tls_files import mistakes
from servers import Certificates


@pytest.fixture
def secret(tmp_path: Path, certificates: Certificates) -> Mounted:
    (tmp_path / "secret").mkdir()
    return Mounted(tmp_path / "secret", certificates.server)


@pytest.fixture
def kept(secret: Mounted) -> Kept:
    return Kept("listener", "main", ListenerFiles(*map(str, secret.pair)))


def test_files_that_stay_are_not_read_again(kept: Kept) -> None:
    assert kept.look() is None
    assert (kept.loaded, kept.failed) == (0, 0)


def test_an_exchanged_folder_gives_a_new_context_once(
    kept: Kept, secret: Mounted, certificates: Certificates
) -> None:
    before = kept.context
    secret.exchange(certificates.client)
    made = kept.look()
    assert made is not None
    assert kept.context is before  # until it is taken, on the loop
    assert kept.take(made)
    assert kept.context.served == ssl.PEM_cert_to_DER_cert(certificates.client[0].read_text())
    assert kept.look() is None
    assert (kept.loaded, kept.failed) == (1, 0)


def test_the_same_content_in_new_files_changes_nothing(
    kept: Kept, secret: Mounted, certificates: Certificates
) -> None:
    before = kept.context
    secret.exchange(certificates.server)
    made = kept.look()
    assert made is not None
    assert not kept.take(made)
    assert (kept.context, kept.loaded) == (before, 0)


def test_a_pair_that_does_not_fit_is_told_once_and_tried_again(
    kept: Kept, secret: Mounted, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    secret.exchange((certificates.server[0], certificates.client[1]))
    for _ in range(3):
        assert kept.look() is None
    assert kept.failed == 1
    assert capsys.readouterr().out.count("is not the key of the certificate") == 1
    secret.exchange(certificates.client)
    made = kept.look()
    assert made is not None
    assert kept.take(made)


def test_a_file_that_is_gone_for_a_moment_leaves_the_old_context(kept: Kept, secret: Mounted) -> None:
    os.rename(secret.pair[1], secret.folder / "away")
    assert kept.look() is None
    os.rename(secret.folder / "away", secret.pair[1])
    assert kept.look() is None
    assert kept.failed == 1


async def test_watching_tells_what_is_new_and_heeds_what_was_replaced(
    kept: Kept, secret: Mounted, certificates: Certificates
) -> None:
    told: list[Kept] = []
    of = [kept]
    task = asyncio.create_task(watch(lambda: of, lambda: 0.001, told.append))
    secret.exchange(certificates.client)
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.001)
    of.clear()
    secret.exchange(certificates.server)
    await asyncio.sleep(0.02)
    task.cancel()
    assert told == [kept]


def test_a_context_says_when_the_first_of_its_certificates_expires(
    tmp_path: Path, certificates: Certificates
) -> None:
    cert, key = map(str, issue(tmp_path, certificates, "short", "DNS:short"))
    files = ListenerFiles(*map(str, certificates.server))
    usual, both = files.load(), replace(files, names=(("short", cert, key),)).load()
    assert 0 < both.ends < usual.ends
    expected = ssl.cert_time_to_seconds(
        ssl._ssl._test_decode_cert(str(certificates.server[0]))["notAfter"]  # type: ignore[attr-defined]
    )
    assert usual.ends == expected
    assert ServerFiles("require").load().ends == float("inf")


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x03\x30\x01\x00", b"\xff" * 40])
def test_what_is_no_certificate_never_expires(der: bytes) -> None:
    assert end_of(der) == float("inf")


def test_each_file_that_does_not_load_is_named_and_no_key_is_shown(
    tmp_path: Path, certificates: Certificates
) -> None:
    cert, key = map(str, certificates.server)
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")
    found = mistakes(cert, str(nonsense), str(nonsense), cert, "no such cipher")
    assert [which for which, _ in found] == ["ca", "crl", "cert", "ciphers"]
    assert not any("secret" in sentence for _, sentence in found)
    assert mistakes(cert, str(certificates.client[1])) == [("key", "is not the key of the certificate")]
    assert mistakes(cert, key, str(certificates.ca), None, "ECDHE+AESGCM") == []


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        ("HTTP_REQUEST", TlsFailure.NOT_TLS, "speaks HTTP"),
        ("WRONG_VERSION_NUMBER", TlsFailure.NOT_TLS, "is not TLS"),
        ("UNSUPPORTED_PROTOCOL", TlsFailure.VERSION, "no version of TLS"),
        ("NO_SHARED_CIPHER", TlsFailure.CIPHER, "no cipher"),
        ("TLSV1_ALERT_UNKNOWN_CA", TlsFailure.REJECTED, "does not know who signed it"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", TlsFailure.REJECTED, "it has expired"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", TlsFailure.NO_CERTIFICATE, "showed no certificate"),
        ("UNEXPECTED_EOF_WHILE_READING", TlsFailure.GONE, "closed the connection"),
        ("SOMETHING_NEW", TlsFailure.OTHER, "something new"),
    ],
)
def test_a_reason_of_openssl_is_put_into_words(reason: str, kind: TlsFailure, words: str) -> None:
    error = ssl.SSLError(1, "")
    error.reason = reason
    assert explain(error, "client")[0] is kind
    assert words in explain(error, "client")[1]


def test_a_connection_that_ends_is_told_from_one_that_takes_too_long() -> None:
    assert explain(ConnectionResetError(), "client")[0] is TlsFailure.GONE
    assert explain(ConnectionAbortedError("too long"), "client")[0] is TlsFailure.TIMEOUT
