"""The commands, as click knows them."""

import inspect
from collections.abc import Iterator

import click

from manual.mdoc import literal, paragraphs, prose, words
from proxy.cli import main

EVERYWHERE = frozenset({"--config", "--help"})
"""What nearly every command takes; the page says it once."""


def commands(
    command: click.Command = main, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every command that does something, with its path of names, such as "queue list"."""
    name = "franker" if parent is None else command.name
    context = click.Context(command, info_name=name, parent=parent)
    if not isinstance(command, click.Group):
        yield context.command_path.partition(" ")[2], command, context
        return
    for inner in command.commands.values():  # in the order in which `franker` is told of them
        yield from commands(inner, context)


def section() -> list[str]:
    """Return the page's part about all commands."""
    lines: list[str] = []
    for path, command, context in commands():
        arguments = _arguments(command, context)
        lines.append(f".Ss franker {path}{f' {arguments}' if arguments else ''}\\&")
        lines += paragraphs(inspect.cleandoc(command.help or ""))
        lines += _options(command, context)
        shown = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
        if shown:
            lines += [".Pp", "Example:", *literal(shown)]
    return lines


def _arguments(command: click.Command, context: click.Context) -> str:
    taken = [one for one in command.get_params(context) if isinstance(one, click.Argument)]
    return words(" ".join(one.make_metavar(context) for one in taken))


def _options(command: click.Command, context: click.Context) -> list[str]:
    lines: list[str] = []
    for option in command.get_params(context):
        if isinstance(option, click.Option) and not EVERYWHERE.intersection(option.opts):
            record = option.get_help_record(context)
            assert record is not None, option.opts
            lines += [f".It {_names(record[0])}", *prose(record[1])]
    return [".Bl -tag -width indent", *lines, ".El"] if lines else []


def _names(record: str) -> str:
    """Return the head of an option, such as "--number N"."""
    name, _, value = record.partition(" ")
    return f"Fl {words(name.removeprefix('-'))}" + (f" Ar {words(value)}" if value else "")
