"""The contract of a hub: one session that is shared by the clients who only listen.

``Hub`` is its shell, which has the socket and a place among the pool's sessions; ``HubCodec`` is what the
protocol knows of it. As with clients, neither sees the other's inside. No I/O here.
"""

from abc import ABC, abstractmethod

from mypy_extensions import mypyc_attr

from proxy.codec import SessionCodec
from proxy.steps import Conversation


class Tally:
    """What a pool's hubs count, for whoever scrapes."""

    def __init__(self) -> None:
        self.clients = 0  # that listen to something
        self.channels = 0
        self.delivered = 0  # notifications, once for each client


@mypyc_attr(allow_interpreted_subclasses=True)
class Hub(ABC):
    """The shell of a hub, as its protocol sees it."""

    @abstractmethod
    def say(self, data: bytes) -> None:
        """Send bytes to the session."""

    @abstractmethod
    async def until(self, number: int) -> bool:
        """Wait until the session has answered so many requests; False when it is lost, or takes too long."""

    @abstractmethod
    async def settled(self) -> None:
        """Wait until what was reserved has been given, or not."""

    @abstractmethod
    def reserve(self) -> bool:
        """A session of the pool is to become the hub's; False where too few would remain for the others."""

    @abstractmethod
    def unreserve(self) -> None:
        """It does not after all."""

    @abstractmethod
    def deserted(self) -> None:
        """Nobody listens now."""


@mypyc_attr(allow_interpreted_subclasses=True)
class HubCodec(ABC):
    """What the protocol knows of a hub. ``asked`` and ``answered`` count the requests to its session."""

    def __init__(self) -> None:
        self.asked: int = 0
        self.answered: int = 0

    @abstractmethod
    def ready(self, session: SessionCodec, heard: list[bytes]) -> "Conversation[None]":
        """Put a session into the state in which it can be the hub's. Raises BackendError."""

    @abstractmethod
    def taken(self, session: SessionCodec) -> None:
        """From now on this session is the hub's."""

    @abstractmethod
    def heard(self, data: bytes) -> None:
        """Read what the session says. Raises RemoteProtocolError when it is nonsense."""

    @abstractmethod
    def is_wanted(self) -> bool:
        """Somebody listens."""

    @abstractmethod
    def parting(self, session: SessionCodec) -> "Conversation[None]":
        """Have the session, which goes home, listen to nothing. Raises BackendError."""

    @abstractmethod
    def lost(self, detail: str) -> bool:
        """The session is gone. True: try to get another, then ``restored`` or ``abandon``."""

    @abstractmethod
    def restored(self) -> None:
        """Another session listens."""

    @abstractmethod
    def abandon(self, detail: str) -> None:
        """No other can be had: end those who listen."""
