"""The server's side of a client's login, from its first byte until it has proven who it is and has a pool.

One conversation: TLS, one startup packet, one proof, then the pool it asked for. After the startup
packet the identity is frozen. Until the proof nothing an answer says depends on which users or databases
exist, and unknown users go through the same exchange as known ones.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from proxy.caller import Caller
from proxy.postgres.accounts import Account, Directory
from proxy.postgres.certificate import endpoint_hash
from proxy.postgres.client_proof import Exam
from proxy.postgres.lookup import Lookup
from proxy.postgres.messages import ALPN, AUTH_OK, READY_IDLE, authentication, message, parameter_status
from proxy.postgres.startup import CancelKey, Request, Startup, packet_length, read_packet, refused
from proxy.postgres.ways import AUTHS, Way, Ways
from proxy.reasons import RefusalReason
from proxy.reception import Refused
from proxy.steps import Conversation, StartTls

TLS_MODES: Final = ("disable", "allow", "require")
_LET_IN: Final = authentication(AUTH_OK)


class Destination(Protocol):
    """What a login needs to know of the pool that it leads to."""

    @property
    def name(self) -> str:
        """The pool's name in the configuration."""


# Says why a client may not come in now: SQLSTATE, text, hint, reason; or None.
Refusal = Callable[[], tuple[str, str, str, RefusalReason] | None]


@dataclass(kw_only=True)  # one is made for each client, and to freeze it would take longer
class Door:
    """How one listener lets clients in.

    ``auth`` is one of ways.AUTHS, unless ``ways`` says more; ``tls`` is disable, allow or require.
    ``caller`` is who the kernel says is there; ``lookup_of(pool)`` finds users that are not listed.
    ``pool_of(user, database)`` finds the pool, or None; ``""`` is
    no database at all.
    ``check_terms(pool, wishes)`` raises ValueError with a sentence where the client may not choose that.
    ``may_enter(pool, account)``: the pool takes such users at all. ``refusal`` is asked when the startup
    packet is there. ``is_local`` is a Unix socket: TLS is neither offered nor required.
    Raises ValueError where a word is none of these.
    """

    auth: str
    tls: str
    directory: Directory
    pool_of: Callable[[str, str], Destination | None]
    check_terms: Callable[[Destination, dict[str, str]], None]
    refusal: Refusal
    may_enter: Callable[[Destination, Account], bool] = lambda pool, account: True
    is_local: bool = False
    ways: Ways | None = None
    caller: Caller = field(default_factory=Caller)
    lookup_of: Callable[[Destination], Lookup | None] = lambda pool: None

    def __post_init__(self) -> None:
        if self.auth not in AUTHS or self.tls not in TLS_MODES:
            raise ValueError(f"a listener with auth {self.auth!r} and tls {self.tls!r} does not exist")


@dataclass(frozen=True)
class Admitted:
    """A client that is in. ``reply`` goes out before the welcome; ``rest`` was received beyond the login."""

    startup: Startup
    account: Account
    pool: Destination
    mechanism: str
    tls: bool
    reply: bytes
    rest: bytes


def log_in(door: Door) -> Conversation[Admitted | CancelKey]:
    """Lead one client in. Raises Refused."""
    entrance = _Entrance(door)
    startup = yield from entrance.startup()
    if isinstance(startup, CancelKey):
        return startup
    _check_entry(door, startup, entrance.tls)
    binding = endpoint_hash(entrance.served) if entrance.served else None
    ways = door.ways or Ways(Way(door.auth))
    way = ways.choose(startup, door.caller, entrance.tls)
    yield from ways.vouch(way, startup, door.caller, entrance.peer_certificate)
    exam = Exam(way.method, door.directory, startup, binding, entrance.received, _lookup(door, startup))
    account = yield from exam.prove()
    try:
        pool = _destination(door, startup, account)
    except Refused as refusal:
        raise Refused(str(refusal), exam.owed + refusal.reply, refusal.reason) from None
    return Admitted(startup, account, pool, exam.mechanism, entrance.tls, exam.owed, exam.inbox.rest)


def _lookup(door: Door, startup: Startup) -> Lookup | None:
    """Who finds users that are not listed, where the pool that was asked for has such a one."""
    pool = door.pool_of(startup.user, startup.database)
    return door.lookup_of(pool) if pool is not None else None


def welcome(parameters: Mapping[str, str], key: bytes) -> bytes:
    """The bytes that end a login: AuthenticationOk, the parameters, the cancel key, ReadyForQuery."""
    return welcome_with(framed(parameters).values(), key)


def framed(parameters: Mapping[str, str]) -> dict[str, bytes]:
    """Each parameter as the message that tells it: most clients are told the same."""
    return {name: parameter_status(name, value) for name, value in parameters.items()}


def welcome_with(reports: Iterable[bytes], key: bytes) -> bytes:
    """As ``welcome``, with parameters that are messages already."""
    return b"".join((_LET_IN, *reports, message(b"K", key), READY_IDLE))


class _Entrance:
    """Reads the packets that have no type byte: at most one request of each kind, then one startup packet."""

    def __init__(self, door: Door) -> None:
        self.received = b""
        self.tls = False
        self.served = b""  # our certificate, as this client was shown it
        self.peer_certificate: bytes | None = None  # the client's own, verified, in DER
        self._door = door
        self._asked: set[Request] = set()

    def startup(self) -> Conversation[Startup | CancelKey]:
        answer = b""
        while True:
            packet = yield from self._packet(answer)
            asked = read_packet(packet)
            if not isinstance(asked, Request):
                return asked
            answer = yield from self._answer(asked)

    def _packet(self, send: bytes) -> Conversation[bytes]:
        """Send, then wait for one whole packet; what came behind it stays in ``received``."""
        length = 4
        while len(self.received) < length:
            more: bytes = yield send
            self.received += more
            send = b""
            if self.received[:1] == b"\x16":  # a TLS handshake record, where a length begins with a zero
                yield from self._secure_at_once()
                length = 4
            elif len(self.received) >= 4:
                length = packet_length(self.received)
        packet, self.received = self.received[:length], self.received[length:]
        return packet

    def _answer(self, asked: Request) -> Conversation[bytes]:
        """Answer a request; returns what is to be sent before the next packet is read."""
        if self.received:
            text = f"unencrypted data came behind {asked.value}"
            raise refused(text, "08P01", text, reason=RefusalReason.PROTOCOL)
        if asked in self._asked or self.tls:
            text = f"{asked.value} came when it was no longer due"
            raise refused(text, "08P01", text, reason=RefusalReason.PROTOCOL)
        self._asked.add(asked)
        if asked is Request.GSSENC or self._door.tls == "disable" or self._door.is_local:
            return b"N"
        yield from self._secure(StartTls(b"S"))
        return b""

    def _secure_at_once(self) -> Conversation[None]:
        """TLS without a request for it (sslnegotiation=direct of libpq); what was received belongs to it.

        ALPN is demanded, as PostgreSQL does: whoever was led here under another protocol is turned away.
        """
        if self.tls or self._asked:
            raise Refused("a TLS handshake came where a packet was due", b"", RefusalReason.PROTOCOL)
        if self._door.tls == "disable" or self._door.is_local:
            why = "this is a Unix socket" if self._door.is_local else 'tls_mode is "disable"'
            what = "the client begins with TLS (sslnegotiation=direct)"
            raise Refused(f"{what}, and {why}", b"", RefusalReason.TLS)
        step, self.received = StartTls(ahead=self.received), b""
        yield from self._secure(step)
        if step.protocol != ALPN:
            what = f'by ALPN the client did not ask for "{ALPN}"'
            raise Refused(f"TLS began at once, but {what}", b"", RefusalReason.TLS)

    def _secure(self, step: StartTls) -> Conversation[None]:
        self.peer_certificate = yield step
        self.tls, self.served = True, step.served


def _check_entry(door: Door, startup: Startup, tls: bool) -> None:
    """What can be said before the login: whether this listener takes anybody like this now."""
    if door.tls == "require" and not tls and not door.is_local:
        text = "this listener takes connections with TLS only"
        hint = "Set sslmode=require or stronger in the client."
        raise refused(text, "28000", text, hint=hint, reason=RefusalReason.TLS, before=startup.negotiate)
    no = door.refusal()
    if no is not None:
        sqlstate, text, hint, reason = no
        raise refused(text, sqlstate, text, hint=hint, reason=reason, before=startup.negotiate)


def _destination(door: Door, startup: Startup, account: Account) -> Destination:
    """The pool for a client that has proven who it is. Raises Refused."""
    user, database = startup.user, startup.database
    pool = door.pool_of(user, database)
    if pool is None and startup.replication == "true":
        pool = door.pool_of(user, "")  # whichever name it sent, it means none
    if pool is None:
        raise refused(
            f"user {user!r} asked for database {database!r}, which no pool serves",
            "3D000",
            f'database "{database}" does not exist',
            hint=f"No pool serves it: add [pools.{database}] to the proxy's configuration.",
            reason=RefusalReason.DATABASE,
        )
    if not account.may_use(pool.name):
        raise refused(
            f"user {user!r} may not use pool {pool.name!r}",
            "42501",
            f'permission denied for database "{database}"',
            hint=f"The proxy's configuration lists the pools of this user in [users.{user}].",
            reason=RefusalReason.DATABASE,
        )
    if not door.may_enter(pool, account):
        raise refused(
            f"user {user!r} may not enter pool {pool.name!r}, which is homogeneous",
            "28000",
            f'pool "{pool.name}" serves its own user only, not "{user}"',
            hint=f'Set users.{user}.run_as = "pool" to let it run as that user, or '
            f"pools.{pool.name}.homogeneous = false to let it run as itself.",
            reason=RefusalReason.DATABASE,
        )
    try:
        door.check_terms(pool, startup.wishes)
    except ValueError as wrong:
        log = f"user {user!r} asked for terms it may not have: {wrong}"
        raise refused(log, "22023", str(wrong), reason=RefusalReason.STARTUP) from None
    return pool
