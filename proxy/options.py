"""What several commands have in common: where the configuration is, and what is said when it is wrong.

Imports nothing but click until a command runs.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from proxy.settings import Loaded

# EX_CONFIG of sysexits.h: a supervisor can tell "mend the file" from "try again".
EXIT_CONFIG: Final = 78


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the configuration is."""
    command = click.option(
        "--set",
        "words",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one value, such as pools.app.max=20; wins over environment and file. May be repeated.",
    )(command)
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The TOML file; otherwise $PENSTOCK_CONFIG, otherwise /etc/penstock/penstock.toml if it exists.",
    )(command)


def read_or_exit(file: Path | None, words: tuple[str, ...]) -> "Loaded":
    """Load the configuration, or print every mistake and exit with 78."""
    from proxy.errors import ConfigError
    from proxy.settings import read
    from proxy.settings.overrides import parse_overrides

    try:
        overrides = parse_overrides(words)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--set") from None
    try:
        return read(file, overrides)
    except ConfigError as error:
        mistakes = error.mistakes
    for place, sentence in mistakes:
        click.echo(f"{place}: {sentence}", err=True)
    sys.exit(EXIT_CONFIG)
