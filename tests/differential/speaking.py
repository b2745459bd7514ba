"""The messages of a client, whole and with every field, and the scripts that are made of them.

A script is a list of units. A unit is sent in one piece, then its answer is read: until the kinds in
``awaits`` have come, in this order, whatever comes between them; by default a ReadyForQuery for each Query,
Sync and FunctionCall. What is behind the last of them must be nothing: each script ends with a question
that is answered in any state of a session, and that must be the next answer.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from integration.raw import message

END = "penstock_end"


def query(text: str | bytes) -> bytes:
    """A simple Query."""
    return message(b"Q", (text.encode() if isinstance(text, str) else text) + b"\0")


def parse(text: str, name: str = "", types: Sequence[int] = ()) -> bytes:
    """A Parse; ``types`` are OIDs."""
    packed = struct.pack("!h", len(types)) + b"".join(struct.pack("!I", oid) for oid in types)
    return message(b"P", f"{name}\0{text}\0".encode() + packed)


def bind(
    *values: bytes | None,
    name: str = "",
    portal: str = "",
    formats: Sequence[int] = (),
    results: Sequence[int] = (),
) -> bytes:
    """A Bind; None is NULL."""
    body = f"{portal}\0{name}\0".encode()
    body += struct.pack("!h", len(formats)) + b"".join(struct.pack("!h", code) for code in formats)
    body += struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message(
        b"B", body + struct.pack("!h", len(results)) + b"".join(struct.pack("!h", n) for n in results)
    )


def describe(name: str = "", kind: str = "S") -> bytes:
    """A Describe of a statement, or of a portal by "P"."""
    return message(b"D", f"{kind}{name}\0".encode())


def close(name: str = "", kind: str = "S") -> bytes:
    """A Close of a statement, or of a portal by "P"."""
    return message(b"C", f"{kind}{name}\0".encode())


def execute(portal: str = "", rows: int = 0) -> bytes:
    """An Execute; 0 rows are all."""
    return message(b"E", portal.encode() + b"\0" + struct.pack("!i", rows))


def call(function: int, *values: bytes | None, result: int = 0) -> bytes:
    """A FunctionCall by OID, with text."""
    body = struct.pack("!Ihh", function, 0, len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message(b"F", body + struct.pack("!h", result))


def copied(data: bytes | str) -> bytes:
    """CopyData."""
    return message(b"d", data.encode() if isinstance(data, str) else data)


SYNC = message(b"S")
FLUSH = message(b"H")
DONE = message(b"c")
TERMINATE = message(b"X")


def failed(text: str = "no more") -> bytes:
    """CopyFail."""
    return message(b"f", text.encode() + b"\0")


def asked(text: str, *values: bytes | None, types: Sequence[int] = ()) -> bytes:
    """A statement by the extended protocol, described, without its Sync."""
    return parse(text, types=types) + bind(*values) + describe(kind="P") + execute()


def kinds(data: bytes) -> str:
    """The types of the messages in a stream, as far as it is whole."""
    found, at = "", 0
    while at + 5 <= len(data):
        found += chr(data[at])
        at += 1 + max(4, int(struct.unpack("!i", data[at + 1 : at + 5])[0]))
    return found


@dataclass(frozen=True)
class Unit:
    """What is sent at once, and what its answer ends with."""

    data: bytes
    awaits: str


def say(*messages: bytes | str, awaits: str | None = None) -> Unit:
    """A unit; a text is a simple Query."""
    data = b"".join(query(part) if isinstance(part, str) else part for part in messages)
    return Unit(data, "Z" * sum(kind in "QSF" for kind in kinds(data)) if awaits is None else awaits)


# Its error is one of the grammar, so it is the same in a failed transaction.
THE_END = SYNC + query(END)
