"""Records of TLS 1.2 as OpenSSL never makes them, by ChaCha20-Poly1305 (RFC 8439, RFC 7905), slowly."""

import hmac
import struct

_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


class Sealer:
    """The client's half of a connection with that cipher, behind its handshake.

    ``master`` is the master secret, and the randoms are those of both hellos.
    """

    def __init__(self, master: bytes, client_random: bytes, server_random: bytes) -> None:
        seed, block = b"key expansion" + server_random + client_random, b""
        link = seed
        while len(block) < 88:  # two keys of 32 bytes, two nonces of 12
            link = hmac.digest(master, link, "sha256")
            block += hmac.digest(master, link + seed, "sha256")
        self._key, self._nonce = block[:32], int.from_bytes(block[64:76], "big")
        self._number = 1  # Finished was 0

    def record(self, text: bytes) -> bytes:
        """The next record, with this plaintext."""
        head = b"\x17\x03\x03"
        nonce = (self._nonce ^ self._number).to_bytes(12, "big")
        known = self._number.to_bytes(8, "big") + head + struct.pack(">H", len(text))
        self._number += 1
        sealed = b"".join(
            bytes(
                a ^ b
                for a, b in zip(text[at : at + 64], _block(self._key, 1 + at // 64, nonce), strict=False)
            )
            for at in range(0, len(text), 64)
        )
        signed = _padded(known) + _padded(sealed) + struct.pack("<QQ", len(known), len(sealed))
        body = sealed + _poly1305(_block(self._key, 0, nonce)[:32], signed)
        return head + struct.pack(">H", len(body)) + body


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def _block(key: bytes, counter: int, nonce: bytes) -> bytes:
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter]
    start += struct.unpack("<3I", nonce)
    state = list(start)
    for a, b, c, d in (*_COLUMNS, *_DIAGONALS) * 10:
        for to, by, turned, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[to] = (state[to] + state[by]) & 0xFFFFFFFF
            mixed = state[turned] ^ state[to]
            state[turned] = (mixed << left | mixed >> (32 - left)) & 0xFFFFFFFF
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start, strict=True)))


def _poly1305(key: bytes, data: bytes) -> bytes:
    factor = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\1", "little")) * factor % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")
