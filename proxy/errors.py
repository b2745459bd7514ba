"""What can go wrong, as classes. Every message is a sentence that a person can act on.

A pool error carries the picture of its pool, so that whoever reads it sees at once what was full.
"""


class ProxyError(Exception):
    """The root of everything that Penstock raises on purpose."""


class PoolError(ProxyError):
    """A session could not be had from a pool; ``picture`` says how full it was at that moment."""

    def __init__(self, message: str, picture: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.picture = picture


class PoolBusy(PoolError):
    """``nowait``: every slot is taken (as ORA-24418 of Oracle's SessionPool)."""


class PoolTimeout(PoolError):
    """``timedwait``: no session came free within ``wait_timeout`` (as ORA-24457)."""


class QueueFull(PoolError):
    """The queue of waiting clients is ``max_waiting`` long."""


class RefusedEarly(QueueFull):
    """At the rate at which sessions come free, this client's turn would come after its ``wait_timeout``."""


class PoolClosed(PoolError):
    """The pool is closing or closed."""


class PoolPaused(PoolError):
    """``nowait``: the pool is paused by its operator."""


class ProtocolError(ProxyError):
    """The rules of a wire protocol were broken."""


class LocalProtocolError(ProtocolError):
    """We called a codec wrongly: a bug in Penstock."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that the protocol does not allow here."""


class BackendError(ProxyError):
    """Something failed between us and the server.

    ``sqlstate`` and ``fields`` hold the server's own words where it gave any: the fields of its
    error, by their one-letter codes, as the protocol names them.
    """

    def __init__(self, message: str, sqlstate: str = "08006", fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.fields = fields or {}


class OpenFailed(BackendError):
    """A session could not be opened: no route, no answer, no TLS, or the server refused it."""


class LoginFailed(OpenFailed):
    """The server was reached but did not let us in."""


class PingFailed(BackendError):
    """A ping was not answered, or answered by an error."""


class ConfigError(ProxyError):
    """The configuration is wrong; ``mistakes`` lists every one of them as (place, sentence)."""

    def __init__(self, mistakes: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{place}: {sentence}" for place, sentence in mistakes))
        self.mistakes = mistakes
