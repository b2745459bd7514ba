"""One request of a client while somebody measures: what was asked, and when.

A codec notes what is asked and what becomes of it, the relay notes the times. A record, and nothing more.
"""


class Asked:
    """A request that is watched, from its first byte sent to its answer.

    ``data`` is what was received, or what is kept of a prepared statement: the text begins at ``at`` and ends
    with a zero byte, or at ``end``. It is read only where somebody wants to know.
    """

    def __init__(self, number: int) -> None:
        self.number = number  # of the requests since the session was taken, which is its answer's too
        self.data: bytes = b""
        self.at: int = 0
        self.end: int = 0
        self.count: int = 0  # statements in it
        self.rows: int = 0
        self.failed: str = ""  # the SQLSTATE of its error
        self.started = -1.0  # when it was sent; negative: it waits for a session
        self.waited = 0.0  # ... for so many seconds

    def text(self) -> bytes:
        """What was asked."""
        stop = self.data.find(b"\0", self.at, self.end)
        return self.data[self.at : stop if stop >= 0 else self.end]
