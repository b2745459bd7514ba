"""The channel binding `tls-server-end-point` of a certificate (RFC 5929 section 4.1).

It is the hash of the certificate by the hash function of its own signature, with SHA-256 in the place of
MD5 and SHA-1. That needs one field of the DER, so this walks to it and looks at nothing else; it never
judges a certificate, which is the TLS library's work.
"""

import hashlib
from typing import Final

_SEQUENCE: Final = 0x30
_OID: Final = 0x06
_PSS: Final = "1.2.840.113549.1.1.10"
_NIST: Final = "2.16.840.1.101.3.4"

# Signature algorithms, and hash algorithms as RSASSA-PSS names them, by the hash they use.
_HASHES: Final = {
    "1.2.840.113549.1.1.4": "md5",
    "1.2.840.113549.1.1.5": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.113549.1.1.14": "sha224",
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
    "1.2.840.10040.4.3": "sha1",
    f"{_NIST}.3.1": "sha224",
    f"{_NIST}.3.2": "sha256",
    f"{_NIST}.3.3": "sha384",
    f"{_NIST}.3.4": "sha512",
    "1.3.14.3.2.26": "sha1",
    f"{_NIST}.2.1": "sha256",
    f"{_NIST}.2.2": "sha384",
    f"{_NIST}.2.3": "sha512",
    f"{_NIST}.2.4": "sha224",
}


def endpoint_hash(der: bytes) -> bytes | None:
    """The tls-server-end-point data of a certificate, or None where RFC 5929 defines none for it.

    None is also what a signature without a hash of its own (Ed25519) or an unreadable certificate gives:
    channel binding is then not offered.
    """
    try:
        name = _HASHES.get(_signature_hash(der))
    except (ValueError, IndexError):
        return None
    if name is None:
        return None
    return hashlib.new("sha256" if name in ("md5", "sha1") else name, der).digest()


def _signature_hash(der: bytes) -> str:
    """The object identifier in _HASHES that says which hash signed this certificate."""
    certificate, _ = _element(der, 0, _SEQUENCE)
    _, after = _element(certificate, 0, _SEQUENCE)  # the part that is signed
    algorithm, _ = _element(certificate, after, _SEQUENCE)
    oid, after = _element(algorithm, 0, _OID)
    if _dotted(oid) != _PSS:
        return _dotted(oid)
    # RSASSA-PSS names its hash among its parameters (RFC 4055); the default is SHA-1
    parameters, _ = _element(algorithm, after, _SEQUENCE)
    if parameters[:1] != b"\xa0":
        return "1.3.14.3.2.26"
    tagged, _ = _element(parameters, 0, 0xA0)
    inner, _ = _element(tagged, 0, _SEQUENCE)
    return _dotted(_element(inner, 0, _OID)[0])


def _element(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """The content of the DER element at ``at``, and where the next begins. Raises ValueError, IndexError."""
    if data[at] != tag:
        raise ValueError("the certificate is not built as X.509 says")
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            raise ValueError("a length in the certificate is out of bounds")
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    if length > len(data) - start:
        raise ValueError("the certificate is cut short")
    return data[start : start + length], start + length


def _dotted(oid: bytes) -> str:
    """An object identifier's content as dotted text."""
    numbers = [0]
    for byte in oid:
        numbers[-1] = (numbers[-1] << 7) | (byte & 0x7F)
        if byte < 0x80:
            numbers.append(0)
    first = numbers[0]
    root = min(first // 40, 2)
    return ".".join(str(number) for number in (root, first - 40 * root, *numbers[1:-1]))
