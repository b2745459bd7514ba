"""The command ``penstock``: argv -> Settings -> uvloop.run(Daemon(settings).run()).

Imports nothing but click until a command runs, so that ``--help``, ``--version`` and completions are quick.
Says configuration mistakes one per line on standard error and never a value with them.
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


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from proxy.build import banner

        click.echo(banner())
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Say which build this is.",
)
def main() -> None:
    """Penstock lets any number of PostgreSQL clients through to a bounded pool of sessions.

    One variable is enough: PENSTOCK_DATABASE_URL=postgresql://user:password@host/database penstock serve
    """


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
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


def _read(file: Path | None, words: tuple[str, ...]) -> "Loaded":
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


@main.command()
@_configured
def serve(file: Path | None, words: tuple[str, ...]) -> None:
    """Run the proxy until it is told to stop (TERM drains, HUP reloads)."""
    loaded = _read(file, words)
    import structlog
    import uvloop

    from proxy.daemon import Daemon
    from proxy.log import configure

    settings = loaded.settings
    configure(settings.log.level, settings.log.format)
    for place, sentence in loaded.warnings():
        structlog.get_logger().warning("configuration_warned", place=place, sentence=sentence)
    sys.exit(uvloop.run(Daemon(settings).run()))


@main.command()
@_configured
def check(file: Path | None, words: tuple[str, ...]) -> None:
    """Say whether the configuration is right; every mistake goes to standard error, exit 78."""
    loaded = _read(file, words)
    from proxy.settings.show import summary

    for place, sentence in loaded.warnings():
        click.echo(f"warning: {place}: {sentence}", err=True)
    click.echo(f"ok\n{summary(loaded)}")


@main.group()
def config() -> None:
    """Look at the configuration."""


@config.command("show")
@_configured
def show_config(file: Path | None, words: tuple[str, ...]) -> None:
    """Print the settings in effect as TOML, with the origin of each; secrets are masked."""
    loaded = _read(file, words)
    from proxy.settings.show import show

    click.echo(show(loaded), nl=False)


@config.command("schema")
def show_schema() -> None:
    """Print the JSON schema of the configuration file."""
    from proxy.settings.reference import schema_text

    click.echo(schema_text(), nl=False)


@main.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=6432, show_default=True, help="Where clients connect."
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=9127,
    show_default=True,
    help="Metrics and status page.",
)
@click.option(
    "--pool-max", type=click.IntRange(min=1), default=8, show_default=True, help="Sessions at most."
)
def demo(port: int, http_port: int, pool_max: int) -> None:
    """Run an embedded PostgreSQL behind the proxy, with a URL to paste."""
    try:
        from proxy.demo import run_demo
    except ImportError as error:
        if (error.name or "").startswith("proxy"):
            raise
        click.echo(
            "the demo brings its own PostgreSQL; install it with: pip install 'penstock[demo]'", err=True
        )
        sys.exit(1)
    sys.exit(run_demo(port, http_port, pool_max))


if __name__ == "__main__":
    main()
