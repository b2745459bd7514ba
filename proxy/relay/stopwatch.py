"""What the sweep remembers of one client between two looks: see timing.py. Times are monotonic seconds."""

from dataclasses import dataclass


class Stopwatch:
    """Since when a client does what it does. -1 where it does nothing of the kind."""

    def __init__(self) -> None:
        self.transaction: int = -1  # the number of its transaction within a hold ...
        self.held = 0.0  # ... and since when the session is held: together they name it
        self.begun = 0.0
        self.query: int = -1  # the number of its query within a hold, and so on
        self.query_held = 0.0
        self.running_since = 0.0
        self.first_cancel = -1.0
        self.cancelled = -1.0  # when the server was last asked to cancel it
        self.told = -1.0  # since when it waited when it was told that it waits


@dataclass(frozen=True)
class Timeouts:
    """What one user may take its time for, in seconds; OFF: for ever; None: as the pool has it."""

    query: float | None = None
    transaction: float | None = None
    idle_transaction: float | None = None
    client_idle: float | None = None
