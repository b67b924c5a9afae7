"""`franker queue`: what waits and why, what died, and what is done about it."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.acting import OUTCOMES, delete, retry
from proxy.cli.entries import as_dict, duration_text, lines_of, size_text
from proxy.cli.held import show_holds
from proxy.cli.holding import flush, hold, holds, release
from proxy.cli.host import Host, find_host
from proxy.cli.letters import export
from proxy.cli.options import (
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
    from proxy.queue.inventory import State

_STATES: tuple["State", ...] = ("queued", "started", "deferred", "held", "dead")
_MOST = 1000


@click.group(epilog=example("franker queue list", "franker queue dead", "franker queue retry ID"))
def queue() -> None:
    """See what is kept, and act on it."""


@queue.command(name="list", epilog=example("franker queue list --state deferred"))
@config_option
@json_option
@stream_option
@click.option(
    "--state", "states", type=click.Choice(_STATES), multiple=True, help="Only in this state."
)
@click.option(
    "--most",
    type=click.IntRange(1),
    metavar="N",
    default=_MOST,
    show_default=True,
    help="At most so many of each stream and state.",
)
def list_(
    config: Path | None,
    as_json: bool,
    stream: str | None,
    states: tuple["State", ...],
    most: int,
) -> None:
    """List what is kept: waiting, being sent, deferred with the reason, held, dead."""
    _show_all(find_host(config), stream, states or _STATES, most, as_json)


@queue.command(epilog=example("franker queue dead", "franker queue dead --export letters/"))
@config_option
@json_option
@stream_option
@click.option(
    "--export",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each as DIR/ID.eml, its envelope in X-Franker-* fields; it stays here, too.",
)
def dead(config: Path | None, as_json: bool, stream: str | None, folder: Path | None) -> None:
    """List what was refused for good, with the reply's words; it is kept until you decide."""
    if folder is not None:
        export(find_host(config), stream, folder, as_json=as_json)
        return
    _show_all(find_host(config), stream, ("dead",), None, as_json)


@queue.command(epilog=example("franker queue show ID", "franker queue show ID --message > it.eml"))
@config_option
@json_option
@click.option("--message", is_flag=True, help="The whole message, as it goes to Postmark.")
@click.argument("message_id", metavar="ID")
def show(config: Path | None, as_json: bool, message: bool, message_id: str) -> None:
    """Show one message: its recipients, their last replies, its header."""
    asyncio.run(_show(find_host(config), message_id, whole=message, as_json=as_json))


def _show_all(
    host: Host, stream: str | None, states: Sequence["State"], most: int | None, as_json: bool
) -> None:
    asyncio.run(_list(host, stream, states, most, as_json=as_json))


async def _list(
    host: Host,
    stream: str | None,
    states: Sequence["State"],
    most: int | None,
    *,
    as_json: bool,
) -> None:
    from proxy.queue import inventory

    now = time.time()
    counts: Counter[tuple[str, State]] = Counter()
    octets, listed, cut = 0, [], False
    async with open_store(host) as redis:
        await check_stream(host, redis, stream)
        if not as_json:
            await _show_pauses(redis, stream, now)
            await show_holds(redis, stream)
        streams = [stream] if stream else await inventory.known_streams(redis)
        one_more = None if most is None else most + 1
        async for entry in inventory.entries(redis, streams, states, most=one_more):
            if counts[entry.stream, entry.state] == most:
                cut = True
                continue
            counts[entry.stream, entry.state] += 1
            octets += entry.size
            if as_json:
                listed.append(as_dict(entry))
            else:
                click.echo("\n".join(lines_of(entry, now)))
    if as_json:
        print_json(listed)
    else:
        count = counts.total()
        click.echo(f"{messages(count)}, {size_text(octets)}" if count else "Nothing is kept.")
    if cut:
        click.echo(f"franker: there are more than {most} of a kind; --most N lists more", err=True)


async def _show_pauses(redis: Any, stream: str | None, now: float) -> None:
    """Say first which streams' mail does not leave, and why."""
    from proxy.queue.routes import paused_routes

    for route in await paused_routes(redis):
        if stream in (None, *route.streams):
            wait = duration_text(max(0.0, route.probe_at - now))
            then = "tried just now" if route.probing else f"next try in {wait}"
            lasted = duration_text(now - route.since)
            text = f"{', '.join(route.streams)}: {route}; for {lasted}, {then}; its mail waits"
            click.echo(printable(text))


async def _show(host: Host, message_id: str, *, whole: bool, as_json: bool) -> None:
    from proxy.queue import inventory

    async with open_store(host) as redis:
        entry = await inventory.find(redis, message_id)
        parts = await inventory.parts(redis, message_id) if entry is None else ()
        found = [entry] if entry is not None else list(parts)
        body = await inventory.read_body(redis, found[0].id) if found else None
    if not found or body is None:
        fail(f"{printable(message_id)}: {OUTCOMES['absent']}")
    if whole:
        sys.stdout.buffer.write(body)
        return
    header = body.partition(b"\r\n\r\n")[0].decode("utf-8", "backslashreplace")
    if as_json:
        print_json([{**as_dict(each), "header": header} for each in found])
        return
    for each in found:
        click.echo("\n".join(lines_of(each, time.time(), every_recipient=True)))
    click.echo()
    for line in header.split("\r\n"):
        click.echo("  " + printable(line.replace("\t", " ")))


for command in (retry, delete, hold, holds, release, flush):
    queue.add_command(command)
