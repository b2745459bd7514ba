"""When a certificate expires: the one field of its DER that Python shows of verified certificates only.

Walks to the end of the validity (RFC 5280, section 4.1) and looks at nothing else.
"""

import calendar
import time
from typing import Final

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17


def end_of(der: bytes) -> float:
    """Seconds since 1970; infinity where it cannot be read."""
    try:
        return _end_of(der)
    except (ValueError, IndexError, UnicodeDecodeError):
        return float("inf")


def _end_of(der: bytes) -> float:
    _, certificate, _ = _element(der, 0)
    _, signed, _ = _element(certificate, 0)
    at = _element(signed, 0)[2] if signed[0] == _VERSION else 0
    for _ in range(3):  # serial number, signature algorithm, issuer
        at = _element(signed, at)[2]
    tag, validity, _ = _element(signed, at)
    if tag != _SEQUENCE:
        raise ValueError
    tag, text, _ = _element(validity, _element(validity, 0)[2])
    digits = text.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return float(calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%SZ")))


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The tag and content of the DER element at ``at``, and where the next begins."""
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    if start + length > len(data):
        raise ValueError
    return data[at], data[start : start + length], start + length
