"""`franker queue hold|holds|release|flush`: mail that waits by hand, mail sent at once."""

import asyncio
import getpass
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxy.cli.host import Host, find_host
from proxy.cli.options import (
    EX_FAILED,
    config_option,
    example,
    fail,
    json_option,
    print_json,
    printable,
    stream_option,
)
from proxy.cli.store import open_store

if TYPE_CHECKING:
    from proxy.queue.holds import Hold
    from proxy.queue.selection import Selection

_PATIENCE_S = 10.0  # a worker that died is found dead in less
_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Age(click.ParamType[float]):
    name = "time"

    def convert(self, value: Any, _param: Any, _context: Any) -> float:
        from proxy.config.units import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error))


def _selecting(command: _Command) -> _Command:
    """Add the options by which mail is selected; a message must fit them all."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="All mail."),
        click.option(
            "--older-than", type=_Age(), metavar="TIME", help="Taken longer ago than that, as 2h."
        ),
        click.option("--rule", metavar="NAME", help="That this rule matched."),
        click.option(
            "--sender",
            metavar="ADDRESS",
            help='From this address; * stands for any characters; "<>" is the null sender.',
        ),
        stream_option,
    ):
        command = option(command)
    return command


def _selection(
    stream: str | None,
    sender: str | None,
    rule: str | None,
    older_than: float | None,
    everything: bool,
) -> "Selection":
    from proxy.queue.selection import Selection

    before = None if older_than is None else time.time() - older_than
    selection = Selection(stream, sender, rule, before)
    if everything == (selection != Selection()):
        raise click.UsageError(
            "say which mail: --stream, --sender, --rule, --older-than, or --all alone"
        )
    return selection


@click.command(
    epilog=example(
        "franker queue hold --rule payroll --reason 'wrong figures'",
        "franker queue hold --stream broadcasts",
    )
)
@config_option
@json_option
@_selecting
@click.option(
    "--name", metavar="NAME", default="", help="What to call the hold, else one is found."
)
@click.option("--reason", metavar="TEXT", default="", help="Shown with it.")
def hold(config: Path | None, as_json: bool, name: str, reason: str, **options: Any) -> None:
    """Keep mail from being sent until it is released, also what comes later.

    A message must fit all options. What is being sent at this moment is finished.
    """
    selection = _selection(**options)
    host = find_host(config)
    _check_names(host, selection)
    by = f"{_user()}@{socket.gethostname()}"
    made, held, deferred, late = asyncio.run(_hold(host, selection, name, by, reason))
    if as_json:
        print_json({**_as_dict(made, held), "deferred": deferred, "not_heard": list(late)})
    else:
        later = f"; {deferred} deferred when due" if deferred else ""
        click.echo(printable(f"{made.name}: {made.selection} is held: {_messages(held)}{later}."))
        click.echo(f"What comes later waits, too, until `franker queue release {made.name}`.")
    for worker in late:
        click.echo(
            f"franker: worker {printable(worker)} has not said that it keeps to it; a few messages"
            " that it had claimed before may still be sent",
            err=True,
        )
    if late:
        sys.exit(EX_FAILED)


async def _hold(
    host: Host, selection: "Selection", name: str, by: str, reason: str
) -> "tuple[Hold, int, int, tuple[str, ...]]":
    from proxy.queue import holds as keeping
    from proxy.queue.inventory import known_streams

    wanted = keeping.Hold(name, selection, time.time(), by, reason)
    async with open_store(host) as redis:
        try:
            made, turn = await keeping.hold(redis, wanted)
        except keeping.HoldError as error:
            fail(str(error))
        late = await keeping.kept_to(redis, turn, _PATIENCE_S)
        counts = {"queued": 0, "held": 0, "deferred": 0}
        async for _, state, ids in keeping.met(redis, await known_streams(redis), selection):
            counts[state] += len(ids)
    return made, counts["queued"] + counts["held"], counts["deferred"], late


@click.command(epilog=example("franker queue holds"))
@config_option
@json_option
def holds(config: Path | None, as_json: bool) -> None:
    """List what is held, why, and how many messages it is."""

    async def read(host: Host) -> "list[tuple[Hold, int]]":
        async with open_store(host) as redis:
            return await _counted(redis, None)

    found = asyncio.run(read(find_host(config)))
    if as_json:
        print_json([_as_dict(each, count) for each, count in found])
        return
    for each, count in found:
        click.echo(_line(each, count))
    if not found:
        click.echo("Nothing is held.")


@click.command(
    epilog=example("franker queue release hold1", "franker queue release --sender 'payroll@*'")
)
@config_option
@json_option
@_selecting
@click.argument("names", metavar="[HOLD]...", nargs=-1)
def release(config: Path | None, as_json: bool, names: tuple[str, ...], **options: Any) -> None:
    """Let held mail go: of the holds named, or all that fits the options; or both.

    It goes to the head of its queue, in order. A hold that takes more than the options name stands
    on for the rest.
    """
    from proxy.queue import holds as keeping
    from proxy.queue.selection import Selection

    named_only = names and not any(options.values())
    selection = Selection() if named_only else _selection(**options)

    async def work(host: Host) -> tuple[tuple[str, ...], int]:
        async with open_store(host) as redis:
            try:
                return await keeping.release(redis, time.time(), names=names, selection=selection)
            except keeping.HoldError as error:
                fail(f"{printable(str(error))}; `franker queue holds` lists them")

    changed, back = asyncio.run(work(find_host(config)))
    if as_json:
        print_json({"holds": list(changed), "messages": back})
    elif changed or back:
        of = f" of {', '.join(changed)}" if changed else ""
        click.echo(printable(f"Released{of}: {_messages(back)} put back, before all others."))
        click.echo("What waited in its queue, held as a whole, goes on from there.")
    else:
        click.echo("Nothing of that is held.")


@click.command(epilog=example("franker queue flush --all", "franker queue flush --stream outbound"))
@config_option
@json_option
@_selecting
def flush(config: Path | None, as_json: bool, **options: Any) -> None:
    """Try deferred mail now, and paused routes of its streams; attempts and age stand."""
    from proxy.queue import flushing
    from proxy.queue.inventory import known_streams

    selection = _selection(**options)

    async def work(host: Host) -> flushing.Flushed:
        async with open_store(host) as redis:
            return await flushing.flush(redis, await known_streams(redis), selection)

    done = asyncio.run(work(find_host(config)))
    if as_json:
        print_json(asdict(done))
        return
    click.echo(f"{_messages(done.due)} due now")
    for count, why in ((done.held, "held"), (done.asked, "being asked for at Postmark")):
        if count:
            click.echo(f"{_messages(count)} left as it was: {why}")
    if done.routes:
        click.echo(f"paused routes tried now: {done.routes}")


async def show_holds(redis: Any, stream: str | None) -> None:
    """Say which holds stand, of `stream` or of all, and how many messages each takes."""
    for each, count in await _counted(redis, stream):
        click.echo(_line(each, count))


async def _counted(redis: Any, stream: str | None) -> "list[tuple[Hold, int]]":
    from proxy.queue import holds as keeping
    from proxy.queue.inventory import known_streams

    standing = await keeping.standing_holds(redis)
    counts = dict.fromkeys((each.name for each in standing), 0)
    for name in await known_streams(redis) if standing else ():
        for place in await keeping.waiting_in(redis, name):
            for taken in await keeping.taken_by(redis, name, place):
                if taken in counts:
                    counts[taken] += 1
    wanted = (None, stream) if stream else None
    return [
        (each, counts[each.name])
        for each in standing
        if wanted is None or each.selection.stream in wanted
    ]


def _line(each: "Hold", count: int) -> str:
    return printable(f"held by {each.name}: {each}; {_messages(count)}")


def _as_dict(each: "Hold", count: int) -> dict[str, Any]:
    record = each.record()
    exempt = record.pop("except", [])
    return {"name": each.name, **record, "released": exempt, "held": count}


def _check_names(host: Host, selection: "Selection") -> None:
    """Refuse a hold that holds nothing for a slip of the pen."""
    streams, rules = host.settings.streams, {rule.name for rule in host.settings.rules}
    if selection.stream is not None and selection.stream not in streams:
        fail(f"there is no stream {selection.stream!r}; there are {', '.join(streams)}")
    if selection.rule and selection.rule not in rules:
        named = f"; there are {', '.join(sorted(rules))}" if rules else ""
        fail(f"there is no rule {selection.rule!r}{named}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
