"""What a session's socket asks of whoever holds the session."""

from abc import ABC, abstractmethod

from mypy_extensions import mypyc_attr, trait


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class Holder(ABC):
    """Who holds a session: the client side of a link."""

    @abstractmethod
    def from_backend(self, data: bytes) -> None:
        """The session said something."""

    @abstractmethod
    def backend_lost(self, detail: str) -> None:
        """The session is gone; it belongs to nobody any more."""

    @abstractmethod
    def backend_ended(self) -> bool:
        """The server has said all it will say; False: end the connection, as is usual."""

    @abstractmethod
    def is_running(self) -> bool:
        """The session runs something for this holder that could be cancelled."""

    @abstractmethod
    def pause_reading(self) -> None:
        """The session takes no more bytes for now."""

    @abstractmethod
    def resume_reading(self) -> None:
        """It takes them again."""
