"""Drives a conversation over one connection: the only place where their steps become I/O.

Cold path. Whoever owns the connection passes in what it receives; the talk writes through its owner. Its
end is told in the step in which it comes, without a task, or kept in a future. Bytes that arrive while a
step is being taken are kept; while TLS begins they cannot arrive, because reading was paused in the same
step.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from mypy_extensions import mypyc_attr, trait

from proxy.errors import BackendError, LocalProtocolError, RemoteProtocolError
from proxy.steps import Conversation, StartTls, Wait, Work
from proxy.tasks import spawn


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class Talker(ABC):
    """The owner of a connection, as a talk sees it."""

    @abstractmethod
    def say(self, data: bytes) -> None:
        """Write bytes to the other side."""

    @abstractmethod
    def hold(self) -> None:
        """Stop reading, now: what comes next is TLS."""

    @abstractmethod
    async def start_tls(self, step: StartTls) -> bytes | None:
        """Turn the held connection into a TLS connection; returns the peer's certificate in DER.

        Fills in what ``step`` wants to know. Raises OSError, BackendError.
        """


class Driver(ABC):
    """One conversation under way, whose end is told to ``over``.

    ``talker`` is a Talker, or looks like one: a compiled trait takes no interpreted subclasses, and this
    is no warm path.
    """

    def __init__(self, conversation: "Conversation[Any]", talker: Any) -> None:
        self._ended = False
        self.early = b""  # received while a step was being taken; what the conversation never asked for stays
        self._conversation = conversation
        self._talker = talker
        self._taking_step = False

    @abstractmethod
    def over(self, result: Any, error: BaseException | None) -> None:
        """The conversation has ended, in this step, with its result or with what it raised. Called once."""

    def is_over(self) -> bool:
        """It goes no further."""
        return self._ended

    def begin(self) -> None:
        """Take the first step."""
        self._advance(None)

    def feed(self, data: bytes) -> None:
        """What the other side sent."""
        if self._taking_step or self.is_over():
            self.early += data
        else:
            self._advance(data)

    def fail(self, error: BaseException) -> None:
        """The connection is lost, or nobody is interested any more."""
        if not self._ended:
            self._ended = True
            self._conversation.close()
            self.over(None, error)

    def _advance(self, value: Any) -> None:
        while True:
            try:
                step = self._conversation.send(value)
            except StopIteration as end:
                if not self._ended:
                    self._ended = True
                    self.over(end.value, None)
                return
            except Exception as error:  # noqa: BLE001  (whoever is told deals with it)
                self.fail(error)
                return
            if not isinstance(step, bytes):
                self._taking_step = True
                if isinstance(step, StartTls):
                    if self.early:
                        self.fail(RemoteProtocolError("unencrypted data came ahead of TLS"))
                        return
                    self._talker.say(step.send)
                    self._talker.hold()
                spawn(self._take(step), "step of a conversation")
                return
            if step:
                self._talker.say(step)
            if not self.early:
                return
            value, self.early = self.early, b""

    async def _take(self, step: object) -> None:
        try:
            if isinstance(step, Work):
                result = await asyncio.get_running_loop().run_in_executor(None, step.call)
            elif isinstance(step, Wait):
                result = await step.call()
            elif isinstance(step, StartTls):
                result = await self._talker.start_tls(step)
            else:
                raise LocalProtocolError(f"a conversation yielded {step!r}")
        except Exception as error:  # noqa: BLE001  (whoever is told deals with it)
            self.fail(error)
            return
        except BaseException:
            self.fail(BackendError("the daemon is stopping"))
            raise
        self._taking_step = False
        if not self.is_over():
            self._advance(result)


class Talk(Driver):
    """A conversation whose result, or what it raised, is for whoever awaits ``future``."""

    def __init__(self, conversation: "Conversation[Any]", talker: Any) -> None:
        super().__init__(conversation, talker)
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def is_over(self) -> bool:
        """It has ended, or whoever awaited it was cancelled."""
        return self.future.done()

    def over(self, result: Any, error: BaseException | None) -> None:
        """Keep it."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
            # Nobody may be waiting any more; the error has been dealt with where it arose.
            self.future.exception()
