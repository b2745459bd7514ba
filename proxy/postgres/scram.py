"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both roles (RFC 5802, RFC 7677, channel binding of RFC 5929).

Everything here is arithmetic on bytes, and fast: what is slow lies in `verifier`. A parser returns a
whole message or raises ScramError, and no text of an error ever holds a key, a proof or a password.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

from proxy.errors import RemoteProtocolError
from proxy.postgres.verifier import KEY_LENGTH, Verifier, decimal, decode64, encode64, hmac_of

SCRAM: Final = "SCRAM-SHA-256"
SCRAM_PLUS: Final = "SCRAM-SHA-256-PLUS"
MAX_ITERATIONS: Final = 100_000  # a server may not make us compute for longer than this
MESSAGE_CAP: Final = 2048  # bytes: one SCRAM message, and with it every field in it
NONCE_LENGTH: Final = 18  # bytes before base64, as PostgreSQL
_NONCE: Final = re.compile("[!-~]+", re.ASCII)
BINDING_HEADER: Final = "p=tls-server-end-point,,"


class ScramError(RemoteProtocolError):
    """The other side broke the rules of SCRAM; ``sqlstate`` is what a client is told with it."""

    def __init__(self, message: str, sqlstate: str = "08P01") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class ScramServer:
    """The side that checks: one exchange of one client, after which ``client_key`` holds its key.

    ``binding`` is our certificate's tls-server-end-point hash where PLUS was offered on this
    connection, else None. The user name inside the exchange is ignored, as PostgreSQL does: who logs in
    was said in the startup packet, and only there.
    """

    def __init__(self, verifier: Verifier, binding: bytes | None = None, nonce: str = "") -> None:
        self.client_key: bytes = b""
        self._verifier = verifier
        self._binding = binding
        self._own = nonce or new_nonce()
        self._nonce = ""
        self._bound = b""  # what the final message must carry in its c=, before base64
        self._covered = ""  # the messages so far, as the proof covers them

    def first(self, mechanism: str, data: bytes) -> bytes:
        """Read the client's first message; returns the server's first. Raises ScramError."""
        flag, _, after_flag = _text(data).partition(",")
        authzid, comma, bare = after_flag.partition(",")
        if not comma or authzid:
            raise ScramError("the SCRAM message names an authorization identity, or its header is cut short")
        self._bound = self._expected_binding(flag, mechanism)
        fields = _attributes(bare)
        if [name for name, _ in fields[:2]] != ["n", "r"]:
            raise ScramError("the first SCRAM message must hold a user name and a nonce, in this order")
        if not _is_nonce(fields[1][1]):
            raise ScramError("the nonce of the SCRAM message is empty or not printable")
        self._nonce = fields[1][1] + self._own
        answer = f"r={self._nonce},s={encode64(self._verifier.salt)},i={self._verifier.iterations}"
        self._covered = f"{bare},{answer}"
        return answer.encode("ascii")

    def _expected_binding(self, flag: str, mechanism: str) -> bytes:
        if mechanism == SCRAM_PLUS:
            if self._binding is None or flag != "p=tls-server-end-point":
                raise ScramError("SCRAM-SHA-256-PLUS needs channel binding by tls-server-end-point", "28000")
            return BINDING_HEADER.encode("ascii") + self._binding
        if flag == "y" and self._binding is not None:
            raise ScramError(
                "the client could bind the channel and believes that the server cannot, but it was offered: "
                "someone between them removed the offer",
                "28000",
            )
        if flag not in ("n", "y"):
            raise ScramError("the channel binding flag does not fit the SCRAM mechanism", "28000")
        return flag.encode("ascii") + b",,"

    def final(self, data: bytes) -> bytes | None:
        """Read the client's final message; returns the server's final, or None where the proof is wrong.

        Raises ScramError.
        """
        text = _text(data)
        fields = _attributes(text)
        if len(fields) < 3 or [fields[0][0], fields[1][0], fields[-1][0]] != ["c", "r", "p"]:
            raise ScramError("the final SCRAM message must hold binding, nonce and proof, in this order")
        if not hmac.compare_digest(fields[0][1].encode(), encode64(self._bound).encode()):
            raise ScramError("the SCRAM channel binding is not that of this connection", "28000")
        if not hmac.compare_digest(fields[1][1].encode(), self._nonce.encode()):
            raise ScramError("the nonce of the final SCRAM message is not the one agreed on")
        proof = decode64(fields[-1][1])
        if proof is None or len(proof) != KEY_LENGTH:
            raise ScramError("the proof of the SCRAM message is not 32 bytes in base64")
        signed = f"{self._covered},{text[: text.rindex(',p=')]}".encode()
        client_key = _xor(proof, hmac_of(self._verifier.stored_key, signed))
        if not self._verifier.matches(client_key):
            return None
        self.client_key = client_key
        return b"v=" + encode64(hmac_of(self._verifier.server_key, signed)).encode("ascii")


class ScramClient:
    """The side that proves: one exchange with one server, which is not trusted either.

    ``binding`` is the server certificate's tls-server-end-point hash; with it PLUS is spoken. Without
    it, ``can_bind`` says that we could have bound the channel had the server offered it.
    """

    def __init__(
        self,
        binding: bytes | None = None,
        *,
        can_bind: bool = False,
        nonce: str = "",
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        self.salt: bytes = b""
        self.iterations: int = 0
        self.mechanism = SCRAM if binding is None else SCRAM_PLUS
        unbound = "y,," if can_bind else "n,,"
        self._header = unbound if binding is None else BINDING_HEADER
        self._binding = binding or b""
        self._own = nonce or new_nonce()
        self._max_iterations = max_iterations
        self._nonce = ""
        self._covered = ""
        self._signature = b""

    def first(self, user: str = "") -> bytes:
        """The client's first message. PostgreSQL wants no user name in it."""
        self._covered = f"n={user},r={self._own}"
        return (self._header + self._covered).encode("utf-8")

    def challenge(self, data: bytes) -> None:
        """Read the server's first message: fills ``salt`` and ``iterations``. Raises ScramError."""
        text = _text(data)
        fields = _attributes(text)
        if [name for name, _ in fields[:3]] != ["r", "s", "i"]:
            raise ScramError("the server's first SCRAM message must hold nonce, salt and iteration count")
        nonce, salt, iterations = fields[0][1], decode64(fields[1][1]), decimal(fields[2][1])
        if not nonce.startswith(self._own) or len(nonce) == len(self._own) or not _is_nonce(nonce):
            raise ScramError("the server's SCRAM nonce does not extend ours")
        if not salt:
            raise ScramError("the server's SCRAM salt is empty or not base64")
        if iterations is None or not 1 <= iterations <= self._max_iterations:
            raise ScramError(
                f"the server's SCRAM iteration count is not between 1 and {self._max_iterations}"
            )
        self._nonce, self.salt, self.iterations = nonce, salt, iterations
        self._covered += f",{text}"

    def final(self, client_key: bytes, server_key: bytes) -> bytes:
        """The client's final message, with the proof that we hold ``client_key``."""
        bound = encode64(self._header.encode("ascii") + self._binding)
        without_proof = f"c={bound},r={self._nonce}"
        signed = f"{self._covered},{without_proof}".encode()
        self._signature = hmac_of(server_key, signed)
        stored_key = hashlib.sha256(client_key).digest()
        proof = _xor(client_key, hmac_of(stored_key, signed))
        return f"{without_proof},p={encode64(proof)}".encode("ascii")

    def finish(self, data: bytes) -> None:
        """Check the server's signature: it knows the verifier too. Raises ScramError."""
        name, value = _attributes(_text(data))[0]
        if name == "e":
            raise ScramError(f"the server ended the SCRAM exchange with {value!r}", "28P01")
        signature = decode64(value)
        if name != "v" or signature is None or not self._signature:
            raise ScramError("the server's final SCRAM message holds no signature")
        if not hmac.compare_digest(signature, self._signature):
            raise ScramError("the server's SCRAM signature is wrong: it does not know the user", "28000")


def new_nonce() -> str:
    """A fresh nonce: printable, without a comma."""
    return encode64(secrets.token_bytes(NONCE_LENGTH))


def _text(data: bytes) -> str:
    if len(data) > MESSAGE_CAP:
        raise ScramError(f"a SCRAM message of {len(data)} bytes; {MESSAGE_CAP} are allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ScramError("a SCRAM message is not UTF-8") from None
    if "\0" in text:
        raise ScramError("a SCRAM message holds a zero byte")
    return text


def _attributes(text: str) -> list[tuple[str, str]]:
    """Cut ``a=x,b=y`` into pairs: at least one, each named by a letter of its own. Raises ScramError."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, value = part[:1], part[2:]
        if part[1:2] != "=" or not (name.isascii() and name.isalpha()) or name in fields:
            raise ScramError("a SCRAM message is not a list of attributes")
        fields[name] = value
    return list(fields.items())


def _is_nonce(text: str) -> bool:
    return _NONCE.fullmatch(text) is not None


def _xor(left: bytes, right: bytes) -> bytes:
    # As numbers: a loop over the bytes takes ten times as long. Both are digests of one length.
    if len(left) != len(right):
        raise ValueError("keys of different lengths")
    mixed = int.from_bytes(left, "big") ^ int.from_bytes(right, "big")
    return mixed.to_bytes(len(left), "big")
