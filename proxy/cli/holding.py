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

from proxy.cli.held import Count, as_dict, count, counted_holds, line_of
from proxy.cli.host import Host, find_host
from proxy.cli.options import (
    EX_FAILED,
    config_option,
    example,
    fail,
    json_option,
    messages,
    print_json,
    printable,
    stream_option,
)
from proxy.cli.store import check_stream, open_store

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

    if sender == "":
        raise click.UsageError('--sender is empty; the null sender is written "<>"')
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
    """Keep mail from being sent until it is released.

    A message must fit all options. What comes later and fits waits, too; with --older-than there
    is no such mail. What is being sent at this moment is finished.
    """
    selection = _selection(**options)
    host = find_host(config)
    made, found, late = asyncio.run(_hold(host, selection, name, reason))
    if as_json:
        print_json({**as_dict(made, found), "not_heard": list(late)})
    else:
        click.echo(printable(f"{made.name}: {made.selection} is held: {found}."))
        until = f"until `franker queue release {made.name}`."
        later = "What comes later waits, too," if selection.before is None else "It waits"
        click.echo(f"{later} {until}")
    for worker in late:
        click.echo(
            f"franker: worker {printable(worker)} has not said that it keeps to it; a few messages"
            " that it had claimed before may still be sent",
            err=True,
        )
    if late:
        sys.exit(EX_FAILED)


async def _hold(
    host: Host, selection: "Selection", name: str, reason: str
) -> "tuple[Hold, Count, tuple[str, ...]]":
    from proxy.queue import holds as keeping

    wanted = keeping.Hold(name, selection, time.time(), _user(), reason)
    async with open_store(host) as redis:
        await check_stream(host, redis, selection.stream)
        _check_rule(host, selection)
        try:
            made, turn = await keeping.hold(redis, wanted)
        except keeping.HoldError as error:
            fail(str(error))
        late = await keeping.kept_to(redis, turn, _PATIENCE_S)
        return made, await count(redis, made), late


@click.command(epilog=example("franker queue holds"))
@config_option
@json_option
def holds(config: Path | None, as_json: bool) -> None:
    """List what is held, why, and how many messages it is."""

    async def read(host: Host) -> "list[tuple[Hold, Count]]":
        async with open_store(host) as redis:
            return await counted_holds(redis, None)

    found = asyncio.run(read(find_host(config)))
    if as_json:
        print_json([as_dict(each, taken) for each, taken in found])
        return
    for each, taken in found:
        click.echo(line_of(each, taken))
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
    from proxy.queue import releases
    from proxy.queue.holds import HoldError
    from proxy.queue.selection import Selection

    named_only = names and not any(value not in (None, False) for value in options.values())
    selection = Selection() if named_only else _selection(**options)

    async def work(host: Host) -> releases.Released:
        async with open_store(host) as redis:
            await check_stream(host, redis, selection.stream)
            try:
                return await releases.release(
                    redis, time.time(), names=names, selection=selection, by=_user()
                )
            except HoldError as error:
                fail(printable(str(error)))
            except releases.ReleaseBegun as error:
                fail(
                    "the release has begun, and the store was lost before its end; a worker puts"
                    f" back the rest when it is there again ({printable(str(error))})"
                )

    done = asyncio.run(work(find_host(config)))
    if as_json:
        print_json(
            {
                "holds": list(done.holds),
                "messages": done.back,
                "queued": done.queued,
                "still_held_by": list(done.kept),
            }
        )
        return
    if not done.holds and not done.back:
        click.echo("Nothing of that is held.")
        return
    source = f" from {', '.join(done.holds)}" if done.holds else ""
    said = [f"Released{source}: {messages(done.back)} put back, before all others."]
    if done.queued:
        goes = "goes" if done.queued == 1 else "go"
        said.append(f"{messages(done.queued)} that waited in the queue all the while {goes} on.")
    if done.kept:
        said.append(f"Some of it is still held, by {', '.join(done.kept)}.")
    for line in said:
        click.echo(printable(line))


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
            await check_stream(host, redis, selection.stream)
            return await flushing.flush(redis, await known_streams(redis), selection)

    done = asyncio.run(work(find_host(config)))
    if as_json:
        print_json(asdict(done))
        return
    click.echo(f"{messages(done.due)} due now")
    for number, why in ((done.held, "held"), (done.asked, "being asked for at Postmark")):
        if number:
            click.echo(f"{messages(number)} left as it was: {why}")
    if done.routes:
        click.echo(f"paused routes tried now: {done.routes}")


def _check_rule(host: Host, selection: "Selection") -> None:
    """Refuse a hold that holds nothing for a slip of the pen."""
    rules = {rule.name for rule in host.settings.rules}
    if selection.rule and selection.rule not in rules:
        named = f"; there are {', '.join(sorted(rules))}" if rules else ""
        fail(f"there is no rule {selection.rule!r}{named}")


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
