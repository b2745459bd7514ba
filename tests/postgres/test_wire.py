"""How a connection to a server is secured beyond its sslmode: TLS at once, and the channel bound."""

from dataclasses import replace

import pytest

from logins import Pump, certificate, messages, run
from postgres.test_session_login import BINDING, DER, WELCOME, Server, fails, identity, offer, opened
from proxy.errors import LoginFailed, OpenFailed
from proxy.postgres import messages as m
from proxy.postgres.profile import Profiles
from proxy.postgres.scram import SCRAM, SCRAM_PLUS
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Identity, Wire, open_session


def wired(direct: bool = False, channel_binding: str = "prefer") -> Identity:
    return replace(identity(), wire=Wire(direct, channel_binding))


def test_tls_begins_at_once_where_that_is_wished() -> None:
    pump = Pump(open_session(wired(direct=True), "require"), alpn="postgresql")
    assert pump.tls
    assert m.SSL_REQUEST not in pump.out
    pump.feed(WELCOME)
    assert (pump.result.tls, pump.result.direct) == (True, True)


@pytest.mark.parametrize("alpn", ["", "h2"])
def test_a_server_that_does_not_agree_by_alpn_is_left_before_anything_is_said(alpn: str) -> None:
    with pytest.raises(OpenFailed, match="sslnegotiation=direct needs PostgreSQL 17"):
        Pump(open_session(wired(direct=True), "require"), alpn=alpn)


@pytest.mark.parametrize("direct", [False, True])
def test_a_cancel_request_goes_the_way_that_the_session_went(direct: bool) -> None:
    codec = PgSessionCodec(Profiles(), lambda: open_session(wired(direct), "require"))
    run(codec.log_in(), [WELCOME] if direct else [b"S", WELCOME], alpn="postgresql")
    pump = Pump(codec.cancel(), alpn="postgresql")
    if not direct:
        assert pump.out == m.SSL_REQUEST
        pump.feed(b"S")
    assert pump.tls
    assert (m.SSL_REQUEST in pump.out) is not direct
    assert m.CANCEL_CODE.to_bytes(4, "big") in pump.out


def test_a_bound_channel_is_demanded_and_given() -> None:
    server = Server(binding=BINDING)
    script = [b"S", offer(SCRAM_PLUS, SCRAM), *server.script]
    found = opened(script, wired(channel_binding="require"), "require", certificate=DER)
    assert found.mechanism == "scram-sha-256-plus"


@pytest.mark.parametrize(
    ("asked", "der", "why"),
    [
        (m.authentication(m.AUTH_OK), DER, "another proof"),
        (m.authentication(m.AUTH_CLEARTEXT), DER, "another proof"),
        (m.authentication(m.AUTH_MD5, b"salt"), DER, "another proof"),
        (offer(SCRAM), DER, "does not offer"),
        (offer(SCRAM_PLUS, SCRAM), certificate("ed25519"), "certificate of the server"),
    ],
)
def test_no_proof_is_given_where_the_channel_cannot_be_bound(asked: bytes, der: bytes, why: str) -> None:
    pump = Pump(open_session(wired(channel_binding="require"), "require"), certificate=der)
    pump.feed(b"S")
    with pytest.raises(LoginFailed, match=f"channel_binding=require.*{why}") as caught:
        pump.feed(asked)
    assert caught.value.sqlstate == "28000"
    assert b"secret" not in pump.out


def test_a_server_without_tls_is_left_where_the_channel_must_be_bound() -> None:
    error = fails(LoginFailed, [b"N", offer(SCRAM)], wired(channel_binding="require"), "prefer")
    assert "not secured by TLS" in error.message


def test_binding_can_be_turned_off() -> None:
    flags = []

    def look(written: bytes) -> bytes:
        flags.append(messages(written)[0][1].split(b",,")[0][-1:])
        return m.error("FATAL", "28000", "enough")

    wish = wired(channel_binding="disable")
    fails(LoginFailed, [b"S", offer(SCRAM_PLUS, SCRAM), look], wish, "require", certificate=DER)
    assert flags == [b"n"]
