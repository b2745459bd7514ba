"""What the operator wants done to sessions besides carrying messages, as SQL. Plain values."""

from typing import Final

NONE: Final = "none"
PEEK: Final = "peek"
_DISCARD: Final = "DISCARD ALL"


class Upkeep:
    """SQL for a session's life. Words stand for what needs none.

    ``session_init``: once after its login, and again whenever everything was wiped; "" for nothing.
    ``ping_command``: "auto" is an empty query; "peek": nothing is sent, the socket is looked at.
    ``reset``: "auto", "full", "rollback", "none", or what is run whenever a client gives the session back.
    ``tag_fixup``: "auto", or what is run on a session after its settings were changed for a client.
    ``role``: the one that sessions have from their login on; "" for the user's own.
    """

    def __init__(
        self,
        session_init: str = "",
        ping_command: str = "auto",
        reset: str = "auto",
        tag_fixup: str = "auto",
        role: str = "",
    ) -> None:
        self.session_init = session_init
        self.role = role
        self.ping_text = "" if ping_command in ("auto", PEEK) else ping_command
        self.peeks = ping_command == PEEK
        # What one client has SET is undone before another gets the session, unless nothing is to be undone.
        self.wipes = reset != NONE
        self.reset_text = _DISCARD if reset in ("auto", "full", "rollback", NONE) else reset
        self.fixup = "" if tag_fixup == "auto" else tag_fixup

    def wiping(self, deep: bool) -> str:
        """What takes from a session what its last client has set; ``deep``: and more than settings."""
        return _DISCARD if deep else "SET SESSION AUTHORIZATION DEFAULT;RESET ALL"

    def after_wiping(self) -> list[str]:
        """What is to be run then, so that the session is as it was when it was new.

        Older servers forget the role of the login when the session's user is reset.
        """
        role = ["RESET ROLE"] if self.role else []
        return [*role, self.session_init] if self.session_init else role

    def is_undone_by(self, changes: list[tuple[str, str | None]]) -> bool:
        """To put one of these settings back to its default would undo what the session was opened with.

        What ``session_init`` has set is no default that the server knows; and see ``after_wiping``.
        """
        undone = [name for name, value in changes if value is None]
        return bool(undone) and (
            bool(self.session_init) or bool(self.role and "session_authorization" in undone)
        )


def resets(reset: str, pool_mode: str) -> bool:
    """Whether sessions are sent something each time that a client gives one back."""
    return pool_mode == "session" if reset == "auto" else reset not in (NONE, "rollback")
