"""``penstock ctl``: what an operator says to a running daemon, through its control socket.

Exits with 1 and the daemon's own sentence when a command was not done. Imports nothing but click until a
command runs.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from proxy.options import configured, read_or_exit


@click.group()
@configured
@click.option(
    "--socket",
    "path",
    type=click.Path(),
    metavar="PATH",
    help="The control socket; otherwise the one that [control] of the configuration names.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_context
def ctl(
    context: click.Context, file: Path | None, words: tuple[str, ...], path: str | None, as_json: bool
) -> None:
    """Look at a running Penstock, and change it while it runs.

    Needs [control] address = "unix:/run/penstock/control.sock" in the configuration. What is set lasts until
    the next reload or restart.
    """

    def ask(command: str, **said: Any) -> None:
        from proxy.control.client import NotDone, as_text
        from proxy.control.client import ask as ask_daemon

        try:
            answer = ask_daemon(path or _control_socket(file, words), command, **said)
        except NotDone as error:
            click.echo(f"penstock ctl: {error}", err=True)
            sys.exit(1)
        click.echo(json.dumps(answer, ensure_ascii=False) if as_json else as_text(answer))

    context.obj = ask


def _control_socket(file: Path | None, words: tuple[str, ...]) -> str:
    from pydantic import ValidationError

    from proxy.settings.control import ControlSettings
    from proxy.settings.loading import given
    from proxy.settings.overrides import parse_overrides

    try:
        # Only this: the daemon is to be reached whatever somebody has just done to the rest of its file.
        value = given(("control", "address"), file, parse_overrides(words))
        address = ControlSettings(address=value).address
    except (ValueError, ValidationError):
        address = read_or_exit(file, words).settings.control.address
    if address is None or address.path is None:
        from proxy.control.client import NotDone

        raise NotDone(
            "the configuration names no control socket; set "
            '[control] address = "unix:/run/penstock/control.sock" and restart, or name it by --socket'
        )
    return address.path


_pool_argument = click.argument("pool")
_any_pool = click.argument("pool", required=False)


@ctl.command("pools")
@click.pass_obj
def ctl_pools(ask: Callable[..., None]) -> None:
    """Show every pool at this moment."""
    ask("pools")


@ctl.command("holders")
@_pool_argument
@click.pass_obj
def ctl_holders(ask: Callable[..., None], pool: str) -> None:
    """Show who holds the sessions of POOL."""
    ask("holders", pool=pool)


@ctl.command("show")
@_pool_argument
@click.pass_obj
def ctl_show(ask: Callable[..., None], pool: str) -> None:
    """Show the settings of POOL that can be set while it runs."""
    ask("show", pool=pool)


@ctl.command("set")
@_pool_argument
@click.argument("values", metavar="NAME=VALUE...", nargs=-1, required=True)
@click.pass_obj
def ctl_set(ask: Callable[..., None], pool: str, values: tuple[str, ...]) -> None:
    """Change settings of POOL, all or none, until the next reload or restart: max=20 wait_timeout=2s."""
    said: dict[str, str] = {}
    for word in values:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter("expected NAME=VALUE, for example max=20", param_hint="'NAME=VALUE...'")
        said[name.strip()] = value.strip()
    ask("set", pool=pool, values=said)


@ctl.command("pause")
@_any_pool
@click.pass_obj
def ctl_pause(ask: Callable[..., None], pool: str | None) -> None:
    """Grant no sessions, of POOL or of all: what runs may finish, who asks waits."""
    ask("pause", **({} if pool is None else {"pool": pool}))


@ctl.command("resume")
@_any_pool
@click.pass_obj
def ctl_resume(ask: Callable[..., None], pool: str | None) -> None:
    """Grant sessions again."""
    ask("resume", **({} if pool is None else {"pool": pool}))


@ctl.command("drop")
@_pool_argument
@click.argument("session", type=int)
@click.pass_obj
def ctl_drop(ask: Callable[..., None], pool: str, session: int) -> None:
    """Close one SESSION of POOL, by its number; a client that holds it is told."""
    ask("drop", pool=pool, session=session)


@ctl.command("renew")
@_pool_argument
@click.pass_obj
def ctl_renew(ask: Callable[..., None], pool: str) -> None:
    """Replace every session of POOL: idle ones now, busy ones as they come home."""
    ask("renew", pool=pool)


@ctl.command("clear")
@_pool_argument
@click.pass_obj
def ctl_clear(ask: Callable[..., None], pool: str) -> None:
    """Close the idle sessions of POOL."""
    ask("clear", pool=pool)


@ctl.command("close")
@_pool_argument
@click.option("--force", is_flag=True, help="Cut the clients that hold a session, refuse those that wait.")
@click.option("--drain", is_flag=True, help="The same, but who holds a session has drain_timeout to finish.")
@click.pass_obj
def ctl_close(ask: Callable[..., None], pool: str, force: bool, drain: bool) -> None:
    """Close POOL until the next restart; refused while it is in use."""
    if force and drain:
        raise click.UsageError("--force and --drain exclude each other")
    ask("close", pool=pool, **({"drain": True} if drain else {"force": force}))


@ctl.command("reset-stats")
@_pool_argument
@click.pass_obj
def ctl_reset_stats(ask: Callable[..., None], pool: str) -> None:
    """Begin the statistics of POOL since the last reset anew."""
    ask("reset-stats", pool=pool)


@ctl.command("reload")
@click.pass_obj
def ctl_reload(ask: Callable[..., None]) -> None:
    """Read the configuration again, as HUP does, and say what has changed."""
    ask("reload")
