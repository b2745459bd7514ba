"""What the tests of client logins share: a door that four users may pass, and clients that knock at it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from logins import answer, certificate, packet, run, sasl_data, sasl_initial, startup
from proxy.postgres import messages as m
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.certificate import endpoint_hash
from proxy.postgres.client_login import Admitted, Door, log_in
from proxy.postgres.scram import ScramClient
from proxy.postgres.verifier import Verifier, keys_of, salt_password
from proxy.reception import Refused

TLS = packet(m.SSL_CODE)
GSSENC = packet(m.GSSENC_CODE)
HELLO = startup(user="ann", database="app")
BINDING = endpoint_hash(certificate("rsa-sha256"))


@dataclass(frozen=True)
class Pool:
    name: str


def no_terms(pool: Any, wishes: dict[str, str]) -> None:
    if wishes.get("penstock.getmode") == "wait":
        raise ValueError('a client may not choose getmode "wait" here')


def directory() -> Directory:
    return Directory(
        [
            Account("ann", verifier=Verifier.make("secret", b"0123456789abcdef", 2)),
            Account("pat", password="secret"),
            Account("max", md5=hashlib.md5(b"secretmax").hexdigest()),
            Account("lim", password="secret", pools=frozenset({"other"})),
        ]
    )


def door(auth: str = "scram-sha-256", tls: str = "allow", **options: Any) -> Door:
    chosen: dict[str, Any] = {
        "directory": directory(),
        "pool_of": lambda user, database: Pool("app") if database == "app" else None,
        "check_terms": no_terms,
        "refusal": lambda: None,
        **options,
    }
    return Door(auth=auth, tls=tls, **chosen)


def scram(
    password: str = "secret", client: ScramClient | None = None, user: str = ""
) -> list[Callable[[bytes], bytes]]:
    """A client's two answers."""
    client = client or ScramClient()

    def first(offer: bytes) -> bytes:
        return sasl_initial(client.mechanism, client.first(user))

    def final(challenge: bytes) -> bytes:
        client.challenge(sasl_data(challenge))
        keys = keys_of(salt_password(password, client.salt, client.iterations))
        return answer(client.final(*keys))

    return [first, final]


def md5(user: str, password: str) -> Callable[[bytes], bytes]:
    def reply(request: bytes) -> bytes:
        inner = hashlib.md5((password + user).encode()).hexdigest()
        return answer(m.cstring("md5" + hashlib.md5(inner.encode() + sasl_data(request)).hexdigest()))

    return reply


def admitted(gate: Door, script: list[Any], **options: Any) -> Admitted:
    result = run(log_in(gate), script, **options).result
    assert isinstance(result, Admitted)
    return result


def refused(gate: Door, script: list[Any], **options: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        run(log_in(gate), script, **options)
    return caught.value
