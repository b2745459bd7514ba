"""``[control]``: the Unix socket that ``penstock ctl`` talks to. Opens nothing."""

from typing import Annotated, Any

from proxy.settings.address import Address, parse_address
from proxy.settings.knobs import Kind, Table, knob

EXPECTED = 'expected the path of a Unix socket, such as "unix:/run/penstock/control.sock", or "off"'


def _read(value: Any) -> Address | None:
    if value is None or value == "off":
        return None
    if isinstance(value, str) and not value.strip().startswith("unix:"):
        raise ValueError(f"whoever reaches it rules the daemon, so it is never TCP; {EXPECTED}")
    address = value if isinstance(value, Address) else parse_address(value if isinstance(value, str) else "")
    if address.path is None:
        raise ValueError(EXPECTED)
    return address


SocketOrOff = Annotated[
    Address | None,
    Kind(_read, lambda value: "off" if value is None else str(value), 'Unix socket or "off"'),
]


class ControlSettings(Table):
    """The control socket; its file permissions (0600) are all that guards it."""

    address: SocketOrOff = knob(
        "off",
        'Where `penstock ctl` reaches the daemon: `"unix:/run/penstock/control.sock"`. Only the user that '
        "the daemon runs as, and root, may open it (0600).",
    )
