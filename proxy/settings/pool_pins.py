"""What of a client's state follows it from session to session, and what becomes of the rest. Plain values."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from proxy.postgres.profile import TRACKED
from proxy.postgres.state_rules import UNREPORTED
from proxy.settings.knobs import Listing, Table, knob

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*", re.ASCII)

Policy = Literal["pin", "refuse", "allow"]


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name != "*" and not _NAME.fullmatch(name):
            raise ValueError(
                f'"{name}" is not the name of a setting; write for example "search_path", or "*"'
            )
        if name.lower().startswith("penstock."):
            raise ValueError(f"{name} is for Penstock itself, and follows its client anyway")
    return tuple(dict.fromkeys(name.lower() for name in names))


def _policy(about: str, default: str = "pin") -> Any:
    return knob(default, about)


class PinSettings(Table):
    """What becomes of state that a session would carry from one client to the next."""

    track_parameters: Annotated[tuple[str, ...], Listing, AfterValidator(_names)] = knob(
        tuple(sorted(TRACKED | UNREPORTED)),
        "Settings that a client finds on whatever session serves it, once it has SET them. Those that the "
        "server does not report cost a question to it after each SET; `*`: all that a client sets. What a "
        "client asks for at its login follows it anyway.",
        examples=[["search_path", "timezone", "app.tenant"]],
    )
    on_advisory_locks: Policy = _policy(
        "`pg_advisory_lock` and its like, which last until the session ends. `pin`: the client keeps its "
        "session until the locks are released; `refuse`: an error; `allow`: they go when another client gets "
        "the session. With pool_mode `statement`, `pin` refuses."
    )
    on_temp_tables: Policy = _policy("Temporary tables, and whatever else is made in `pg_temp`: as above.")
    on_hold_cursors: Policy = _policy("`DECLARE … WITH HOLD`, once it is committed: as above.")
    on_load: Policy = _policy(
        "`LOAD`, which nothing undoes: with `pin` the client keeps the session, which is closed behind it."
    )
    on_sql_prepare: Policy = _policy(
        "`PREPARE` in SQL, as above. What drivers prepare by the protocol is not meant: that works."
    )
    on_listen: Literal["share", "pin", "refuse", "allow"] = knob(
        "share",
        "`LISTEN`. `share`: one session listens for all clients of the pool; the others as above.",
    )
    on_settings: Policy = _policy(
        "`SET` of what track_parameters does not name. `allow`: undone when another client gets the session.",
        "allow",
    )
    pin_dry_run: bool = knob(False, "Only count what would pin a client, and do as with `allow`.")
