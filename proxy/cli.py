"""The command ``penstock``: argv -> Settings -> uvloop.run(Daemon(settings).run()).

Imports nothing but click until a command runs, so that ``--help``, ``--version`` and completions are quick.
Says configuration mistakes one per line on standard error and never a value with them.
"""

import gc
import sys
from functools import partial
from pathlib import Path

import click

from proxy.ctl import ctl
from proxy.options import configured, read_or_exit


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


@main.command()
@configured
def serve(file: Path | None, words: tuple[str, ...]) -> None:
    """Run the proxy until it is told to stop (TERM drains, HUP reloads)."""
    loaded = read_or_exit(file, words)
    import structlog
    import uvloop

    from proxy.daemon import Daemon
    from proxy.log import configure
    from proxy.settings import read as reread
    from proxy.settings.overrides import parse_overrides

    settings = loaded.settings
    configure(settings.log.level, settings.log.format)
    for place, sentence in loaded.warnings():
        structlog.get_logger().warning("configuration_warned", place=place, sentence=sentence)
    again = partial(reread, file, parse_overrides(words))
    # What has been imported and read stays as long as the process: the collector need not look through it
    # again each time, which is a pause for every client.
    gc.collect()
    gc.freeze()
    sys.exit(uvloop.run(Daemon(settings, again).run()))


@main.command()
@configured
def check(file: Path | None, words: tuple[str, ...]) -> None:
    """Say whether the configuration is right; every mistake goes to standard error, exit 78."""
    loaded = read_or_exit(file, words)
    from proxy.settings.show import summary

    for place, sentence in loaded.warnings():
        click.echo(f"warning: {place}: {sentence}", err=True)
    click.echo(f"ok\n{summary(loaded)}")


main.add_command(ctl)


@main.group()
def config() -> None:
    """Look at the configuration."""


@config.command("show")
@configured
def show_config(file: Path | None, words: tuple[str, ...]) -> None:
    """Print the settings in effect as TOML, with the origin of each; secrets are masked."""
    loaded = read_or_exit(file, words)
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
