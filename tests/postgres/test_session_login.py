import hashlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logins import Pump, certificate, messages, run
from proxy.errors import LocalProtocolError, LoginFailed, OpenFailed, RemoteProtocolError
from proxy.postgres import messages as m
from proxy.postgres.accounts import Account
from proxy.postgres.certificate import endpoint_hash
from proxy.postgres.scram import SCRAM, SCRAM_PLUS, ScramServer
from proxy.postgres.session_login import PARAMETER_CAP, Identity, Opened, open_session
from proxy.postgres.verifier import Verifier, keys_of, salt_password

OK = m.authentication(m.AUTH_OK)
KEY = m.message(b"K", struct.pack("!i", 4711) + b"abcd")
TAIL = m.parameter_status("server_version", "15.0") + KEY + m.READY_IDLE
WELCOME = OK + TAIL
NOTICE = m.message(b"N", b"SNOTICE\0Mhello\0\0")
QUICK = Verifier.make("secret", b"0123456789abcdef", 2)
DER = certificate("rsa-sha256")
BINDING = endpoint_hash(DER)


def identity(account: Account | None = None, *parameters: tuple[str, str]) -> Identity:
    return Identity("app", "orders", account or Account("app", password="secret"), parameters)


def opened(
    script: list[Any], who: Identity | None = None, sslmode: str = "disable", **options: Any
) -> Opened:
    result = run(open_session(who or identity(), sslmode), script, **options).result
    assert isinstance(result, Opened)
    return result


def fails(
    kind: type[Exception],
    script: list[Any],
    who: Identity | None = None,
    sslmode: str = "disable",
    **options: Any,
) -> Any:
    with pytest.raises(kind) as caught:
        run(open_session(who or identity(), sslmode), script, **options)
    return caught.value


def offer(*names: str) -> bytes:
    return m.authentication(m.AUTH_SASL, b"".join(m.cstring(name) for name in names) + b"\0")


class Server:
    """The other side of SCRAM, as PostgreSQL plays it."""

    def __init__(self, verifier: Verifier = QUICK, binding: bytes | None = None) -> None:
        self.exchange = ScramServer(verifier, binding)
        self.mechanism = ""

    def first(self, written: bytes) -> bytes:
        [(kind, body)] = messages(written)
        assert kind == b"p"
        name, _, rest = body.partition(b"\0")
        self.mechanism = name.decode()
        assert struct.unpack("!i", rest[:4])[0] == len(rest) - 4
        return m.authentication(m.AUTH_SASL_CONTINUE, self.exchange.first(self.mechanism, rest[4:]))

    def final(self, written: bytes) -> bytes:
        [(_, body)] = messages(written)
        signature = self.exchange.final(body)
        if signature is None:
            return m.error("FATAL", "28P01", "password authentication failed")
        return m.authentication(m.AUTH_SASL_FINAL, signature) + WELCOME

    @property
    def script(self) -> list[Any]:
        return [self.first, self.final]


# --- the ways in ---


@pytest.mark.parametrize("chunk", [0, 1, 5])
def test_a_server_that_trusts(chunk: int) -> None:
    found = opened([NOTICE + OK + NOTICE + TAIL], chunk=chunk)
    assert found.parameters == {"server_version": "15.0"}
    assert (found.pid, found.secret, found.tls, found.mechanism) == (4711, b"abcd", False, "trust")
    assert found.rest == b""


def test_the_startup_packet_says_who_we_are_and_nothing_that_was_not_asked_for() -> None:
    pump = Pump(open_session(identity(None, ("search_path", "a")), "disable"))
    assert pump.out == m.startup(
        [("user", "app"), ("database", "orders"), ("search_path", "a"), ("application_name", "penstock")]
    )
    pump = Pump(open_session(identity(None, ("Application_Name", "mine")), "disable"))
    assert b"penstock" not in pump.out
    assert b"client_encoding" not in pump.out


@pytest.mark.parametrize("name", ["user", "User", "database", "replication", "_pq_.x", ""])
def test_parameters_cannot_change_who_we_are(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        next(open_session(identity(None, (name, "root")), "disable"))


def test_a_password_in_clear_text() -> None:
    pump = run(open_session(identity(), "disable"), [m.authentication(m.AUTH_CLEARTEXT), WELCOME])
    assert pump.sent[1] == m.message(b"p", b"secret\0")
    assert pump.result.mechanism == "password"


@pytest.mark.parametrize(
    "account",
    [
        Account("app", password="secret"),
        Account("another", password="secret"),
        Account("app", md5=hashlib.md5(b"secretapp").hexdigest()),
    ],
)
def test_md5(account: Account) -> None:
    pump = run(open_session(identity(account), "disable"), [m.authentication(m.AUTH_MD5, b"salt"), WELCOME])
    inner = hashlib.md5(b"secretapp").hexdigest().encode()
    assert pump.sent[1] == m.message(b"p", b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode() + b"\0")
    assert pump.result.mechanism == "md5"


@pytest.mark.parametrize("chunk", [0, 1, 5])
def test_scram(chunk: int) -> None:
    found = opened([offer(SCRAM), *Server().script], chunk=chunk)
    assert found.mechanism == "scram-sha-256"
    assert found.parameters == {"server_version": "15.0"}


def test_scram_keys_are_derived_once() -> None:
    account = Account("app", password="secret")
    assert run(open_session(identity(account), "disable"), [offer(SCRAM), *Server().script]).works == 1
    assert run(open_session(identity(account), "disable"), [offer(SCRAM), *Server().script]).works == 0


@pytest.mark.parametrize(
    "offered", [(SCRAM_PLUS, SCRAM), (SCRAM, SCRAM_PLUS), ("OAUTHBEARER", SCRAM, "X", SCRAM_PLUS)]
)
def test_all_mechanisms_are_looked_at_and_plus_is_preferred_on_tls(offered: tuple[str, ...]) -> None:
    server = Server(binding=BINDING)
    found = opened([b"S", offer(*offered), *server.script], sslmode="require", certificate=DER)
    assert (found.mechanism, found.tls) == ("scram-sha-256-plus", True)


@pytest.mark.parametrize("der", [None, certificate("ed25519")])
def test_without_a_certificate_to_bind_to_plain_scram_is_spoken(der: bytes | None) -> None:
    server = Server(binding=BINDING)
    found = opened([b"S", offer(SCRAM_PLUS, SCRAM), *server.script], sslmode="require", certificate=der)
    assert (found.mechanism, found.tls) == ("scram-sha-256", True)


def test_plus_without_tls_is_not_spoken() -> None:
    assert opened([offer(SCRAM_PLUS, SCRAM), *Server().script]).mechanism == "scram-sha-256"
    assert "SCRAM-SHA-256-PLUS" in fails(LoginFailed, [offer(SCRAM_PLUS)]).message


def test_a_server_without_plus_is_told_that_we_could_have() -> None:
    flags = []

    def look(written: bytes) -> bytes:
        flags.append(messages(written)[0][1].split(b",,")[0][-1:])
        return m.error("FATAL", "28000", "enough")

    fails(LoginFailed, [b"S", offer(SCRAM), look], sslmode="require", certificate=DER)
    fails(LoginFailed, [offer(SCRAM), look])
    assert flags == [b"y", b"n"]


def test_a_server_that_knows_another_certificate_does_not_let_us_in() -> None:
    server = Server(binding=hashlib.sha256(b"the real one").digest())
    with pytest.raises(RemoteProtocolError, match="channel binding"):
        opened([b"S", offer(SCRAM_PLUS), *server.script], sslmode="require", certificate=DER)


# --- a verifier instead of a password ---


def test_a_verifier_with_a_learned_key_logs_in_and_computes_nothing() -> None:
    account = Account("app", verifier=QUICK)
    account.client_key = keys_of(salt_password("secret", QUICK.salt, 2))[0]
    pump = run(open_session(identity(account), "disable"), [offer(SCRAM), *Server().script])
    assert (pump.works, pump.result.mechanism) == (0, "scram-sha-256")


def test_a_verifier_without_a_learned_key_says_what_it_waits_for() -> None:
    error = fails(LoginFailed, [offer(SCRAM), *Server().script], identity(Account("app", verifier=QUICK)))
    assert "learned when a client logs in" in error.message


def test_a_verifier_that_is_not_the_servers_is_noticed() -> None:
    account = Account("app", verifier=Verifier.make("secret", b"another salt", 2))
    account.client_key = b"k" * 32
    assert "pg_authid" in fails(LoginFailed, [offer(SCRAM), *Server().script], identity(account)).message


@pytest.mark.parametrize(
    ("account", "request_"),
    [
        (Account("app", verifier=QUICK), m.authentication(m.AUTH_CLEARTEXT)),
        (Account("app", md5="0" * 32), m.authentication(m.AUTH_CLEARTEXT)),
        (Account("app", verifier=QUICK), m.authentication(m.AUTH_MD5, b"salt")),
        (Account("another", md5="0" * 32), m.authentication(m.AUTH_MD5, b"salt")),
        (Account("app"), m.authentication(m.AUTH_MD5, b"salt")),
    ],
)
def test_a_secret_that_does_not_fit_the_question_is_named(account: Account, request_: bytes) -> None:
    error = fails(LoginFailed, [request_], identity(account))
    assert "in the configuration" in error.message
    assert error.sqlstate == "28000"


def test_an_md5_hash_cannot_answer_scram() -> None:
    error = fails(LoginFailed, [offer(SCRAM), Server().first], identity(Account("app", md5="0" * 32)))
    assert "scram-sha-256" in error.message


# --- TLS ---


@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-ca", "verify-full"])
def test_tls_is_asked_for_first(sslmode: str) -> None:
    pump = Pump(open_session(identity(), sslmode))
    assert pump.out == m.SSL_REQUEST
    pump.feed(b"S")
    assert pump.tls
    pump.feed(WELCOME)
    assert pump.result.tls is True


def test_prefer_goes_on_without_tls() -> None:
    assert opened([b"N", WELCOME], sslmode="prefer").tls is False


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_a_server_without_tls_is_left_where_tls_is_insisted_on(sslmode: str) -> None:
    pump = Pump(open_session(identity(), sslmode))
    with pytest.raises(OpenFailed, match=f"sslmode={sslmode}"):
        pump.feed(b"N")
    assert pump.out == m.SSL_REQUEST


@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-full"])
@pytest.mark.parametrize("answer", [b"S", b"N"])
@pytest.mark.parametrize("behind", [b"x", WELCOME, b"\x16\x03"])
def test_bytes_stuffed_behind_the_answer_to_sslrequest_are_refused(
    sslmode: str, answer: bytes, behind: bytes
) -> None:
    pump = Pump(open_session(identity(), sslmode))
    with pytest.raises(RemoteProtocolError, match="unencrypted data"):
        pump.feed(answer + behind)
    assert not pump.tls
    assert pump.out == m.SSL_REQUEST


@pytest.mark.parametrize("sslmode", ["prefer", "require"])
def test_an_error_before_tls_is_not_believed_and_not_repeated(sslmode: str) -> None:
    error = fails(OpenFailed, [m.error("FATAL", "53300", "canary")], sslmode=sslmode)
    assert "canary" not in str(error)
    assert error.fields == {}


@pytest.mark.parametrize("answer", [b"R", b"\0", b"\x15", b"H"])
def test_any_other_answer_to_sslrequest_is_refused(answer: bytes) -> None:
    fails(RemoteProtocolError, [answer], sslmode="prefer")


# --- the server says no ---


@pytest.mark.parametrize("when", [[], [offer(SCRAM)], [m.authentication(m.AUTH_CLEARTEXT)], [OK], [OK + KEY]])
def test_the_servers_own_words_are_handed_on(when: list[bytes]) -> None:
    words = m.error("FATAL", "3D000", 'database "orders" does not exist', hint="create it")
    error = fails(LoginFailed, [*when, words])
    assert error.sqlstate == "3D000"
    assert error.fields["M"] == 'database "orders" does not exist'
    assert error.fields["H"] == "create it"
    assert 'database "orders" does not exist' in error.message


@pytest.mark.parametrize("body", [b"", b"\0", b"SFATAL\0\0", b"Mno\0", b"C\0Mno\0\0"])
def test_an_error_without_fields_is_still_an_error(body: bytes) -> None:
    assert fails(LoginFailed, [m.message(b"E", body)]).sqlstate == "XX000"


@pytest.mark.parametrize(("code", "name"), [(2, "Kerberos"), (7, "GSSAPI"), (9, "SSPI"), (99, "method 99")])
def test_a_method_that_is_not_spoken_is_named(code: int, name: str) -> None:
    assert name in fails(LoginFailed, [m.authentication(code)]).message


def test_mechanisms_that_are_not_spoken_are_named() -> None:
    assert "'OAUTHBEARER'" in fails(LoginFailed, [offer("OAUTHBEARER")]).message
    fails(LoginFailed, [offer()])


@pytest.mark.parametrize("names", [b"", b"SCRAM-SHA-256", b"SCRAM-SHA-256\0"])
def test_a_list_of_mechanisms_without_an_end_is_refused(names: bytes) -> None:
    fails(RemoteProtocolError, [m.authentication(m.AUTH_SASL, names)])


# --- the server is not trusted either ---


def test_an_iteration_count_that_would_stall_us_is_refused_before_anything_is_computed() -> None:
    def greedy(written: bytes) -> bytes:
        nonce = written.split(b"r=")[1]
        return m.authentication(m.AUTH_SASL_CONTINUE, b"r=" + nonce + b"x,s=c2FsdA==,i=2000000000")

    pump = Pump(open_session(identity(), "disable"))
    written = pump.feed(offer(SCRAM))
    with pytest.raises(LoginFailed, match="iteration count"):
        pump.feed(greedy(written))
    assert pump.works == 0


def test_a_server_that_skips_its_signature_is_refused() -> None:
    server = Server()
    error = fails(LoginFailed, [offer(SCRAM), server.first, WELCOME])
    assert "without its SCRAM signature" in error.message
    fails(RemoteProtocolError, [offer(SCRAM), WELCOME])


def test_a_server_that_does_not_know_the_secret_is_refused() -> None:
    forged = Verifier(QUICK.iterations, QUICK.salt, QUICK.stored_key, b"x" * 32)
    assert "does not know the user" in fails(LoginFailed, [offer(SCRAM), *Server(forged).script]).message


def test_the_error_inside_a_scram_message_is_reported() -> None:
    said = m.authentication(m.AUTH_SASL_FINAL, b"e=invalid-proof")
    error = fails(LoginFailed, [offer(SCRAM), Server().first, said])
    assert "invalid-proof" in error.message
    assert error.sqlstate == "28P01"


def test_a_nonce_that_is_too_long_is_refused() -> None:
    def long(written: bytes) -> bytes:
        nonce = written.split(b"r=")[1]
        return m.authentication(m.AUTH_SASL_CONTINUE, b"r=" + nonce + b"x" * 4000 + b",s=c2FsdA==,i=1")

    assert "2048" in fails(LoginFailed, [offer(SCRAM), long]).message


@pytest.mark.parametrize(
    "second", [m.authentication(m.AUTH_CLEARTEXT), m.authentication(m.AUTH_MD5, b"salt"), offer(SCRAM)]
)
def test_a_second_question_after_the_answer_is_refused(second: bytes) -> None:
    fails(RemoteProtocolError, [m.authentication(m.AUTH_MD5, b"salt"), second])


@pytest.mark.parametrize("kind", [b"S", b"K", b"Z", b"T", b"D", b"1", b"G", b"A", b"\0"])
def test_nothing_but_a_question_is_legal_before_the_login(kind: bytes) -> None:
    fails(RemoteProtocolError, [m.message(kind, b"a\0b\0")])


@pytest.mark.parametrize(
    "unexpected",
    [
        OK,
        m.message(b"T", b"\0\0"),
        m.message(b"v", b"\0\0\0\0"),
        m.ready(84),
        m.ready(69),
        m.message(b"K", b"1"),
        m.message(b"K", b"1" * 36),
        m.message(b"S", b"a"),
        m.message(b"R", b""),
    ],
)
def test_only_reports_are_legal_after_the_login(unexpected: bytes) -> None:
    fails(RemoteProtocolError, [OK + unexpected])


@pytest.mark.parametrize("body", [b"", b"\0\0\0"])
def test_a_question_without_a_code_is_refused(body: bytes) -> None:
    fails(RemoteProtocolError, [m.message(b"R", body)])


def test_an_md5_salt_of_another_length_is_refused() -> None:
    fails(RemoteProtocolError, [m.authentication(m.AUTH_MD5, b"salty")])


def test_an_older_minor_version_is_accepted() -> None:
    assert opened([m.message(b"v", struct.pack("!ii", m.PROTOCOL_3_0, 0)) + WELCOME])


def test_parameters_are_bounded() -> None:
    reports = [m.parameter_status(f"p{number}", "x") for number in range(PARAMETER_CAP + 1)]
    assert len(opened([OK, *reports[:-1], m.READY_IDLE]).parameters) == PARAMETER_CAP
    fails(RemoteProtocolError, [OK, *reports])
    assert len(opened([OK, *(reports[:1] * 500), m.READY_IDLE]).parameters) == 1


def test_a_message_that_claims_too_much_is_refused_at_its_header() -> None:
    for length in (0x7FFFFFFF, 0xFFFFFFFF, 70_000, 3):
        fails(RemoteProtocolError, [b"R" + struct.pack("!I", length)])


def test_a_server_without_a_cancel_key_is_taken() -> None:
    found = opened([OK + m.READY_IDLE])
    assert (found.pid, found.secret) == (0, b"")


def test_what_comes_behind_the_first_ready_is_handed_on() -> None:
    assert opened([WELCOME + NOTICE]).rest == NOTICE


def test_secrets_are_in_no_repr_and_no_error() -> None:
    found = opened([WELCOME])
    assert "abcd" not in repr(found)
    who = identity(Account("app", password="canary"))
    assert "canary" not in repr(who)
    for script in (
        [offer(SCRAM), *Server().script],
        [offer("X")],
        [m.authentication(m.AUTH_CLEARTEXT), m.error("FATAL", "28P01", "no")],
    ):
        assert "canary" not in str(fails(LoginFailed, script, who))


# --- anything at all ---


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_any_split_gives_the_same(sizes: list[int]) -> None:
    server, pump = Server(), Pump(open_session(identity(), "disable"))
    written = b""
    for item in [NOTICE + offer(SCRAM), *server.script]:
        data = item if isinstance(item, bytes) else item(written)
        written, at = b"", 0
        while at < len(data):
            size = sizes[at % len(sizes)]
            written += pump.feed(data[at : at + size])
            at += size
    assert pump.result.parameters == {"server_version": "15.0"}


SEEDS = st.sampled_from(
    [
        *(b"S", b"N", OK, TAIL, NOTICE, KEY, m.READY_IDLE, offer(SCRAM), m.error("FATAL", "X", "y")),
        m.authentication(m.AUTH_MD5, b"salt"),
        m.authentication(m.AUTH_CLEARTEXT),
        m.authentication(m.AUTH_SASL_CONTINUE, b"r=x,s=c2FsdA==,i=1"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["disable", "prefer", "require"]),
    st.lists(SEEDS | st.binary(min_size=1, max_size=40), max_size=8),
)
def test_no_bytes_raise_anything_but_the_three_errors_and_each_read_takes_few_steps(
    sslmode: str, script: list[bytes]
) -> None:
    pump = Pump(open_session(identity(), sslmode), certificate=DER)
    said = ""
    try:
        for item in script:
            before = pump.steps
            pump.feed(item)
            assert pump.steps - before < 5
    except (OpenFailed, RemoteProtocolError) as error:
        said = str(error)
    assert "secret" not in said
