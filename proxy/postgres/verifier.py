"""What a server keeps instead of a password (RFC 5802, RFC 7677), and how it is derived from one.

`salt_password` is the one slow call: a conversation runs it through Work, never on the event loop. No
repr and no error text ever holds a key or a password.
"""

import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass
from typing import Final

ITERATIONS: Final = 4096  # what PostgreSQL uses unless scram_iterations says otherwise
SALT_LENGTH: Final = 16  # bytes, as PostgreSQL
KEY_LENGTH: Final = 32  # bytes: a SHA-256 digest

_SCHEME: Final = "SCRAM-SHA-256"
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # unassigned
)


@dataclass(frozen=True, repr=False)
class Verifier:
    """What a server stores instead of a password: enough to check a proof, too little to make one."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Verifier(iterations={self.iterations})"

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read the form that pg_authid holds, ``SCRAM-SHA-256$4096:salt$StoredKey:ServerKey``.

        Raises ValueError with a sentence that repeats nothing of the secret.
        """
        parts = text.split("$")
        if len(parts) != 3 or parts[0] != _SCHEME:
            raise ValueError('a SCRAM verifier reads "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"')
        count, _, salt_text = parts[1].partition(":")
        stored_text, _, server_text = parts[2].partition(":")
        iterations = decimal(count)
        salt, stored, server = (decode64(field) for field in (salt_text, stored_text, server_text))
        if iterations is None or iterations < 1 or not salt:
            raise ValueError("a SCRAM verifier needs an iteration count of at least 1 and a salt")
        if stored is None or server is None or len(stored) != KEY_LENGTH or len(server) != KEY_LENGTH:
            raise ValueError("a SCRAM verifier ends with two base64 keys of 32 bytes")
        return cls(iterations, salt, stored, server)

    @classmethod
    def make(cls, password: str | bytes, salt: bytes = b"", iterations: int = ITERATIONS) -> "Verifier":
        """Derive the verifier of a password; without a salt, with a random one. Slow: run it in Work."""
        salt = salt or secrets.token_bytes(SALT_LENGTH)
        client_key, server_key = keys_of(salt_password(password, salt, iterations))
        return cls(iterations, salt, hashlib.sha256(client_key).digest(), server_key)

    def text(self) -> str:
        """The form that pg_authid holds. It is a secret."""
        salt, stored, server = (encode64(part) for part in (self.salt, self.stored_key, self.server_key))
        return f"{_SCHEME}${self.iterations}:{salt}${stored}:{server}"

    def matches(self, client_key: bytes) -> bool:
        """Whether this is the client key of the password that the verifier was made from."""
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)


def mock_verifier(
    user: str, secret: bytes, iterations: int = ITERATIONS, salt_length: int = SALT_LENGTH
) -> Verifier:
    """A verifier for a user that does not exist: the same one each time, and no password fits it.

    It makes the exchange look as it does for a user that exists, so that nobody can find out which do.
    """
    seed = secret + user.encode("utf-8", "replace")
    salt = hashlib.shake_256(b"salt" + seed).digest(salt_length)
    keys = hashlib.shake_256(b"keys" + seed).digest(2 * KEY_LENGTH)
    return Verifier(iterations, salt, keys[:KEY_LENGTH], keys[KEY_LENGTH:])


def prepare(password: str | bytes) -> bytes:
    """SASLprep (RFC 4013) as PostgreSQL applies it: what cannot be prepared stays as it is.

    ASCII is left alone, control characters included, and the checks look at the mapped text before
    its normalization.
    """
    raw = password if isinstance(password, bytes) else password.encode("utf-8", "surrogateescape")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    if text.isascii():
        return raw
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    if not mapped or any(banned(char) for char in mapped for banned in _PROHIBITED):
        return raw
    if any(stringprep.in_table_d1(char) for char in mapped):  # right-to-left: all of it, or nothing
        ends = stringprep.in_table_d1(mapped[0]) and stringprep.in_table_d1(mapped[-1])
        if not ends or any(stringprep.in_table_d2(char) for char in mapped):
            return raw
    return unicodedata.normalize("NFKC", mapped).encode("utf-8")


def salt_password(password: str | bytes, salt: bytes, iterations: int) -> bytes:
    """SaltedPassword of RFC 5802, from the prepared password. Slow, and made to be: run it in Work."""
    return hashlib.pbkdf2_hmac("sha256", prepare(password), salt, iterations)


def keys_of(salted: bytes) -> tuple[bytes, bytes]:
    """The client key and the server key of a salted password."""
    return hmac_of(salted, b"Client Key"), hmac_of(salted, b"Server Key")


def decimal(text: str) -> int | None:
    """A count written in ASCII digits, at most ten of them; None where it is anything else."""
    return int(text) if 0 < len(text) <= 10 and text.isascii() and text.isdigit() else None


def encode64(data: bytes) -> str:
    """Base64 as SCRAM writes it."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode64(text: str) -> bytes | None:
    """Bytes out of base64; None where it is not exactly that."""
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return None


def hmac_of(key: bytes, data: bytes) -> bytes:
    """HMAC of RFC 5802, by SHA-256."""
    return hmac.digest(key, data, "sha256")
