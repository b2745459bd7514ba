"""Units of work of one client through the codec, on one session: what is repeated to count instructions."""

from collections.abc import Callable, Generator
from typing import Any

from proxy.building import state_rules
from proxy.postgres.messages import READY_IDLE, message, query
from proxy.postgres.profile import Profiles
from proxy.postgres.relaying import PgClientCodec
from proxy.postgres.session import PgSessionCodec
from proxy.postgres.session_login import Opened
from proxy.postgres.state import POOL_MODES
from proxy.postgres.terms import Terms
from proxy.settings.pools import PoolSettings

_CAP = 1 << 30
_TEXT = b"SELECT abalance FROM pgbench_accounts WHERE aid = "
_ROW = (
    message(b"T", b"\0\x01abalance\0" + bytes(18))
    + message(b"D", b"\0\x01\0\0\0\x010")
    + message(b"C", b"SELECT 1\0")
    + READY_IDLE
)
_PARSED, _BOUND = message(b"1", b""), message(b"2", b"")
_REST = message(b"D", b"P\0") + message(b"E", bytes(5)) + message(b"S", b"")
_VALUE = b"\0\0\0\x01\0\0\0\x0512345\0\0"

SIMPLE = query(_TEXT.decode() + "12345;"), _ROW
EXTENDED = (
    message(b"P", b"\0" + _TEXT + b"$1;\0\0\0") + message(b"B", b"\0\0" + _VALUE) + _REST,
    _PARSED + _BOUND + _ROW,
)
PREPARED = message(b"B", b"\0P0_1\0" + _VALUE) + _REST, _BOUND + _ROW
_PREPARE = message(b"P", b"P0_1\0" + _TEXT + b"$1;\0\0\0") + message(b"S", b""), _PARSED + READY_IDLE


class Desk:
    """One client in transaction mode, with the settings of a pool as it comes, and its session."""

    def __init__(self) -> None:
        profiles = Profiles()
        terms = Terms("app", {}, lambda name, text: text, lambda text: 1.0)
        pool = PoolSettings.model_validate({"backend": "postgresql://app:x@db/app"})
        terms.rules = state_rules(pool)
        mode = POOL_MODES.index("transaction")
        self.codec = PgClientCodec(1, mode, terms, profiles, profiles.of({}), _CAP)
        self.session = PgSessionCodec(profiles, _login)
        conversation = self.session.log_in()
        next(conversation)
        for _ in conversation:
            raise AssertionError("the login went on")
        self.once(*_PREPARE)

    def once(self, asked: bytes, answered: bytes) -> None:
        """One unit: asked, linked, answered, parted."""
        codec = self.codec
        codec.client(asked)
        codec.join(self.session)
        if codec.more:
            codec.client(b"")
        codec.server(answered)
        codec.part()


def _login() -> Generator[Any, Any, Opened]:
    yield b""
    return Opened({"application_name": "", "TimeZone": "UTC"}, 4711, b"abcd", False, "trust", b"")


def repeat(unit: tuple[bytes, bytes]) -> Callable[[int], None]:
    """What runs a unit so many times."""
    desk = Desk()
    once, asked, answered = desk.once, *unit

    def run(count: int) -> None:
        for _ in range(count):
            once(asked, answered)

    return run
