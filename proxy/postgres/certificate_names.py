"""Whom a certificate names: the common name of its subject, and its alternative names.

The TLS library has verified the certificate; this only reads it, strictly: what is not built as X.509 says
names nobody, and neither does a name with a zero byte or one that could be read in two ways.
"""

from collections.abc import Iterator
from typing import Final

FIELDS: Final = ("cn", "san-dns", "san-email", "san-uri")

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_OCTETS: Final = 0x04
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_COMMON_NAME: Final = b"\x55\x04\x03"
_ALTERNATIVE: Final = b"\x55\x1d\x11"
# How the strings of a subject are written: UTF8String, PrintableString, IA5String, BMPString.
_CODECS: Final = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x1E: "utf-16-be"}
_TAGS: Final = {"san-email": 0x81, "san-dns": 0x82, "san-uri": 0x86}

Element = tuple[int, bytes]


def names_in(der: bytes, field: str) -> tuple[str, ...]:
    """The names in ``field`` (one of FIELDS); of common names there is one or none."""
    try:
        parts = list(_signed_part(der))
        found = _common_names(parts) if field == "cn" else _alternatives(parts, _TAGS[field])
        names = tuple(found)
    except (ValueError, IndexError):
        return ()
    if field == "cn" and len(names) != 1:
        return ()
    return tuple(name for name in names if name and "\0" not in name)


def _signed_part(der: bytes) -> list[Element]:
    """The elements of the TBSCertificate, without its version."""
    [(tag, certificate)] = _elements(der)
    first = list(_elements(certificate))[0]  # noqa: RUF015  (where there is none, that is an IndexError)
    if tag != _SEQUENCE or first[0] != _SEQUENCE:
        raise ValueError("no certificate")
    parts = list(_elements(first[1]))
    return parts[1:] if parts[0][0] == _VERSION else parts


def _common_names(parts: list[Element]) -> Iterator[str]:
    # serial number, signature, issuer, validity, subject
    tag, subject = parts[4]
    if tag != _SEQUENCE:
        raise ValueError("no subject")
    for kind, group in _elements(subject):
        if kind != _SET:
            raise ValueError("no relative name")
        for _, pair in _elements(group):
            (oid_tag, oid), (codec, text) = _elements(pair)
            if oid_tag == _OID and oid == _COMMON_NAME:
                if codec not in _CODECS:
                    raise ValueError("the name is in an encoding that is not read")
                yield text.decode(_CODECS[codec])


def _alternatives(parts: list[Element], wanted: int) -> Iterator[str]:
    wrapped = [content for tag, content in parts if tag == _EXTENSIONS]
    for content in wrapped:
        [(_, extensions)] = _elements(content)
        for _, extension in _elements(extensions):
            (tag, oid), *others = _elements(extension)
            if tag == _OID and oid == _ALTERNATIVE and others[-1][0] == _OCTETS:
                [(_, general)] = _elements(others[-1][1])
                for kind, name in _elements(general):
                    if kind == wanted:
                        yield name.decode("ascii")


def _elements(data: bytes) -> Iterator[Element]:
    """The DER elements side by side in ``data``, as tag and content. Raises ValueError, IndexError."""
    at = 0
    while at < len(data):
        tag, length, start = data[at], data[at + 1], at + 2
        if tag & 0x1F == 0x1F:
            raise ValueError("a tag that no certificate has")
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or start + count > len(data):
                raise ValueError("a length in the certificate is out of bounds")
            length, start = int.from_bytes(data[start : start + count], "big"), start + count
        if length > len(data) - start:
            raise ValueError("the certificate is cut short")
        yield tag, data[start : start + length]
        at = start + length
