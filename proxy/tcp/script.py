"""Scripts: what is sent to a server whose protocol nobody here knows, and what it has to answer.

The user writes them down for ``ping`` and ``reset``. The answer is compared to the byte: what is left of
another answer, or comes behind, is how a session shows that something is still under way on it.
"""

from proxy.errors import BackendError, PingFailed
from proxy.steps import Conversation


class Script:
    """One exchange. Its time limit is the pool's."""

    def __init__(self, send: bytes, expect: bytes) -> None:
        self.send = send
        self.expect = expect

    def run(self, failure: type[BackendError], name: str) -> Conversation[None]:
        """Send, and wait until the answer is there. Raises ``failure`` when it is another one."""
        answer: bytes = yield self.send
        while True:
            if len(answer) > len(self.expect) or not self.expect.startswith(answer):
                raise failure(
                    f"the server answered the {name} script with something else than `expect`: look at "
                    f"pools.<name>.{name}_script"
                )
            if answer == self.expect:
                return
            answer += yield b""

    def ping(self) -> Conversation[None]:
        """Run as a ping. Raises PingFailed."""
        return self.run(PingFailed, "ping")

    def reset(self) -> Conversation[None]:
        """Run as a reset. Raises BackendError."""
        return self.run(BackendError, "reset")
