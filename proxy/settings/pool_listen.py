"""What becomes of notifications where one session listens for many clients. Plain values."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.settings.knobs import Number, Table, knob


class ListenSettings(Table):
    """The session that listens for all clients of a pool, with on_listen `share`."""

    listen_backlog: Annotated[Number, Field(ge=65_536)] = knob(
        1_048_576,
        "How many bytes of notifications may wait for one client that does not read them, or is in a "
        "transaction. Whoever falls behind further is disconnected, and told why.",
        ancestors="none has it",
    )
    listen_lost: Literal["close", "keep"] = knob(
        "close",
        "When the session that listens is lost, clients may have missed something. `close`: they are "
        "disconnected, as if it had been their own; `keep`: another session listens, and they get a warning.",
        ancestors="none has it",
    )
