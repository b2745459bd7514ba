"""Conversations: plain generators that log in, ping, reset and recover, and the steps that they yield.

They yield bytes to send, or a step that only a shell can take, and are sent what came back. Nothing here
does I/O; see relay/talk.py for who drives them.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar


class Work:
    """A step of a conversation: run ``call`` off the event loop; its result is sent back."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call


class Wait:
    """A step of a conversation: await ``call()`` on the event loop; its result is sent back.

    What the other side says meanwhile is kept. What the call raises ends the conversation.
    """

    def __init__(self, call: "Callable[[], Awaitable[Any]]") -> None:
        self.call = call


class StartTls:
    """A step of a conversation: the plain stream becomes a TLS stream now.

    ``send`` goes out in the plain first. ``ahead`` is the beginning of the TLS stream, where it was received
    already. What is sent back is the peer's certificate in DER, or None where it showed none.

    The shell fills in the rest: ``protocol`` is what was agreed on by ALPN, "" for nothing, and ``served``
    is the certificate of ours that was shown, in DER (b"" towards a server).
    """

    def __init__(self, send: bytes = b"", ahead: bytes = b"") -> None:
        self.send = send
        self.ahead = ahead
        self.protocol: str = ""
        self.served: bytes = b""


Step: TypeAlias = bytes | Work | Wait | StartTls
T = TypeVar("T")
# Yields steps. After bytes it is sent the next bytes received (never b""); b"" may be yielded to
# receive only. It returns its result, or raises a ProxyError.
Conversation: TypeAlias = Generator[Step, Any, T]
