"""What a server of several is at present, and which of them will do for whom.

Below every other room: the protocols find out what a server is, the pool goes by it. Pure.
"""

from typing import Final

# What the latest login on a server found out, or what one of its sessions was told since.
UNKNOWN: Final = 0
PRIMARY: Final = 1
READ_ONLY: Final = 2  # not in recovery, but its transactions are read-only unless they say otherwise
STANDBY: Final = 3
ROLES: Final = ("unknown", "primary", "read_only", "standby")
# Not a role, but news of one: a statement that wrote was refused as read-only, so it must be asked again.
DOUBTED: Final = 4

# Which servers will do, as libpq's target_session_attrs has it.
ANY: Final = 0
READ_WRITE: Final = 1
ONLY_READ: Final = 2
THE_PRIMARY: Final = 3
A_STANDBY: Final = 4
PREFER_STANDBY: Final = 5
TARGETS: Final = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")

# What a client may ask for.
WORDS: Final = ("primary", "replica", "any")
# ... and which of them stands for each of the targets above.
_WORD_OF: Final = ("any", "primary", "replica", "primary", "replica", "replica")
# The roles that will do, as bits.
_SUITS: Final = (
    0b11111,
    1 << PRIMARY,
    (1 << READ_ONLY) | (1 << STANDBY),
    (1 << PRIMARY) | (1 << READ_ONLY),
    1 << STANDBY,
    1 << STANDBY,
)


def suits(target: int, role: int) -> bool:
    """A server of this role will do for this target; with PREFER_STANDBY, as the first choice."""
    return bool((_SUITS[target] >> role) & 1)


def target_for(word: str, own: int, falls_back: bool) -> int:
    """The target that a client's word means in a pool whose own target is ``own``; "" means that one.

    ``falls_back``: where there is no replica, the primary will do.
    """
    if word == "replica":
        return PREFER_STANDBY if falls_back else A_STANDBY
    if word == "primary":
        # The same sessions serve those who say so and those who say nothing.
        return READ_WRITE if own == READ_WRITE else THE_PRIMARY
    return ANY if word == "any" else own


def word_for(target: int) -> str:
    """What SHOW says of a target."""
    return _WORD_OF[target]


def role_of(in_recovery: bool, reads_only: bool) -> int:
    """The role of a server that is in recovery, or whose transactions are read-only by default."""
    if in_recovery:
        return STANDBY
    return READ_ONLY if reads_only else PRIMARY
