"""What the commands share: the configuration option, exit codes, and how to leave."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from proxy.config import Loaded, Settings

EX_FAILED = 1
EX_CONFIG = 78  # sysexits.h; the units do not restart on it

_Command = TypeVar("_Command", bound=Callable[..., Any])


def example(*lines: str) -> str:
    """Return a help page's end that shows `lines` as they are."""
    return "\n".join(["\b", "Example:", *(f"  {line}".rstrip() for line in lines)])


def config_option(command: _Command) -> _Command:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Configuration; else $FRANKER_CONFIG, ./franker.toml, /etc/franker/franker.toml.",
    )(command)


def stream_option(command: _Command) -> _Command:
    """Add `--stream NAME`."""
    return click.option("--stream", metavar="NAME", help="Only this stream's.")(command)


def json_option(command: _Command) -> _Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")(
        command
    )


def load(config: Path | None) -> "Loaded":
    """Return the configuration, or say every fault in it and leave with exit code 78."""
    from proxy.config import ConfigError
    from proxy.config import load as read

    try:
        return read(config, os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EX_CONFIG)


def data_dir_of(settings: "Settings", *, make: bool = True) -> tuple[Path, str | None]:
    """Return the folder to keep everything in, and what must be said of it.

    A command that only looks does not `make` it: it may run as another user than the services.

    Leave with exit code 78 when there is none.
    """
    from proxy.config import ConfigError, usable_data_dir

    try:
        return usable_data_dir(settings, os.environ, make=make)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EX_CONFIG)


def fail(text: str) -> NoReturn:
    """Say `text` on stderr and leave with exit code 1."""
    click.echo(f"franker: {text}", err=True)
    sys.exit(EX_FAILED)


def messages(count: int) -> str:
    """Return "1 message", "2 messages"."""
    return "1 message" if count == 1 else f"{count} messages"


def print_json(value: object) -> None:
    """Print `value` as JSON."""
    click.echo(json.dumps(value, indent=2))


def printable(text: str) -> str:
    """Return `text`, which others may have written, so that a terminal obeys nothing in it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
