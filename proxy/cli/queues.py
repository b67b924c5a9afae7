"""`franker queue`: what waits and why, what died, and what is done about it."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.host import Host, find_host
from proxy.cli.letters import export, todays_rules
from proxy.cli.options import (
    EX_FAILED,
    config_option,
    example,
    fail,
    json_option,
    print_json,
    printable,
)
from proxy.cli.store import open_store

if TYPE_CHECKING:
    from proxy.queue.inventory import Entry, State

_STATES: tuple["State", ...] = ("queued", "started", "deferred", "dead")
_MARKS = {"queued": "waits", "started": "is being sent", "deferred": "later", "dead": "dead"}
_MOST = 1000

_stream_option = click.option("--stream", metavar="NAME", help="Only this stream's.")


@click.group(epilog=example("franker queue list", "franker queue dead", "franker queue retry ID"))
def queue() -> None:
    """See what is kept, and act on it."""


@queue.command(name="list", epilog=example("franker queue list --state deferred"))
@config_option
@json_option
@_stream_option
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
    """List what is kept: being sent, waiting, deferred with the reason, dead."""
    _show_all(find_host(config), stream, states or _STATES, most, as_json)


@queue.command(epilog=example("franker queue dead", "franker queue dead --export letters/"))
@config_option
@json_option
@_stream_option
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


@queue.command(
    epilog=example("franker queue retry ID", "franker queue retry --dead --stream outbound")
)
@config_option
@json_option
@_stream_option
@click.option("--dead", "all_dead", is_flag=True, help="All that are dead.")
@click.option("--deferred", "all_deferred", is_flag=True, help="All that are deferred.")
@click.option("--reroute", is_flag=True, help="Dead ones only: let today's rules rewrite them.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
def retry(
    config: Path | None,
    as_json: bool,
    stream: str | None,
    all_dead: bool,
    all_deferred: bool,
    reroute: bool,
    ids: tuple[str, ...],
) -> None:
    """Send messages again: dead ones from the beginning, deferred ones now."""
    from proxy.queue import inventory

    states = _named_states(ids, stream, dead=all_dead, deferred=all_deferred)
    if reroute and all_deferred:
        raise click.UsageError("--reroute is for dead messages; deferred ones keep their rule")

    async def work(host: Host) -> dict[str, str]:
        now = time.time()
        async with open_store(host) as redis:
            chosen = ids or await _ids(redis, stream, states)
            if reroute:
                return await inventory.reroute(redis, chosen, todays_rules(host.settings))
            # What was refused when it was handed in has never been rewritten by any rule.
            refused = await inventory.refused(redis, chosen)
            outcome = await inventory.retry(redis, [i for i in chosen if i not in refused], now=now)
            rules = todays_rules(host.settings) if refused else None
            anew = await inventory.reroute(redis, refused, rules) if rules else {}
            return {**outcome, **anew}

    _report(asyncio.run(work(find_host(config))), "retried", as_json)


@queue.command(epilog=example("franker queue delete ID", "franker queue delete --dead --yes"))
@config_option
@json_option
@_stream_option
@click.option("--dead", "all_dead", is_flag=True, help="All that are dead.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
def delete(
    config: Path | None,
    as_json: bool,
    stream: str | None,
    all_dead: bool,
    yes: bool,
    ids: tuple[str, ...],
) -> None:
    """Throw messages away for good; nobody is told, the proxy's log has their recipients."""
    from proxy.queue import inventory

    states = _named_states(ids, stream, dead=all_dead)
    host = find_host(config)

    async def choose() -> Sequence[str]:
        async with open_store(host) as redis:
            return ids or await _ids(redis, stream, states)

    async def work(chosen: Sequence[str]) -> dict[str, str]:
        async with open_store(host) as redis:
            return dict(await inventory.delete(redis, chosen))

    chosen = asyncio.run(choose())
    if not ids and not yes:
        click.confirm(f"Throw away {len(chosen)} messages?", abort=True, err=True)
    _report(asyncio.run(work(chosen)), "deleted", as_json)


def _named_states(ids: Sequence[str], stream: str | None, **chosen: bool) -> tuple["State", ...]:
    """Return the states asked for; ids, or states, must be named, not both."""
    states = tuple(state for state in ("dead", "deferred") if chosen.get(state))
    if bool(ids) == bool(states) or (ids and stream):
        options = " or ".join(f"--{state}" for state in chosen)
        raise click.UsageError(f"name ids, or {options} (with --stream for one stream only)")
    return states  # type: ignore[return-value]  # a tuple of these literals


async def _ids(redis: Any, stream: str | None, states: Sequence["State"]) -> list[str]:
    from proxy.queue import inventory

    streams = [stream] if stream else await inventory.known_streams(redis)
    return [entry.id async for entry in inventory.entries(redis, streams, states)]


def _report(outcome: dict[str, str], wanted: str, as_json: bool) -> None:
    """Say what became of each; leave with 1 when one of them is not what was wanted."""
    if as_json:
        print_json(outcome)
    else:
        for message_id, what in outcome.items():
            if what != wanted:
                click.echo(f"{message_id}: {_OUTCOMES.get(what, what)}", err=True)
        click.echo(f"{sum(what == wanted for what in outcome.values())} {wanted}")
    if any(what != wanted for what in outcome.values()):
        sys.exit(EX_FAILED)


_OUTCOMES = {
    "absent": "there is no such message: it was sent, or deleted",
    "sending": "it is being sent just now",
    "queued": "it waits to be sent anyway",
    "not_dead": "it is not dead; --reroute is for dead messages",
    "changed": "it changed at this moment; try again",
}


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
    count, octets, listed = 0, 0, []
    async with open_store(host) as redis:
        if not as_json:
            await _show_pauses(redis, stream, now)
        streams = [stream] if stream else await inventory.known_streams(redis)
        async for entry in inventory.entries(redis, streams, states, most=most):
            count, octets = count + 1, octets + entry.size
            if as_json:
                listed.append(_as_dict(entry))
            else:
                click.echo("\n".join(lines_of(entry, now)))
    if as_json:
        print_json(listed)
    else:
        click.echo(f"{count} messages, {size_text(octets)}" if count else "Nothing is kept.")


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
        fail(f"{printable(message_id)}: {_OUTCOMES['absent']}")
    if whole:
        sys.stdout.buffer.write(body)
        return
    header = body.partition(b"\r\n\r\n")[0].decode("utf-8", "backslashreplace")
    if as_json:
        print_json([{**_as_dict(each), "header": header} for each in found])
        return
    for each in found:
        click.echo("\n".join(lines_of(each, time.time(), every_recipient=True)))
    click.echo()
    for line in header.split("\r\n"):
        click.echo("  " + printable(line.replace("\t", " ")))


def lines_of(entry: "Entry", now: float, *, every_recipient: bool = False) -> list[str]:
    """Return an entry as people read it: one line, then one for each recipient with a reply."""
    envelope = entry.envelope
    if envelope is None:
        return [f"{entry.id}  {entry.stream}  written by a later version of Franker"]
    age = duration_text(now - envelope.accepted_at)
    state = _MARKS[entry.state]
    if entry.due is not None:
        what = "Postmark is asked for it in" if envelope.asked else "next try in"
        state = f"{what} {duration_text(max(0.0, entry.due - now))}"
    first = "  ".join(
        (entry.id, entry.stream, f"{age} old", size_text(entry.size), state)
        + ((f"rule {envelope.rule}",) if envelope.rule else ())
        + (("notice by Franker",) if envelope.notice else ())
    )
    sender = f"    from {envelope.reverse_path or '<>'}"
    if envelope.mail_from and envelope.mail_from != envelope.reverse_path:
        sender += f", as {envelope.mail_from}"
    lines = [first, sender]
    shown = envelope.recipients if every_recipient else envelope.recipients[:5]
    for recipient in shown:
        reply = envelope.replies.get(recipient, "")
        lines.append(f"    to {recipient}" + (f": {reply}" if reply else ""))
    if len(shown) < len(envelope.recipients):
        lines.append(f"    and {len(envelope.recipients) - len(shown)} more")
    return list(map(printable, lines))


def _as_dict(entry: "Entry") -> dict[str, Any]:
    envelope = entry.envelope
    known = (
        {}
        if envelope is None
        else {
            "from": envelope.reverse_path,
            "as": envelope.mail_from,
            "recipients": list(envelope.recipients),
            "replies": envelope.replies,
            "accepted_at": envelope.accepted_at,
            "attempts": envelope.attempts,
            "asked_for": envelope.asked > 0,
            "rule": envelope.rule,
            "client": envelope.client,
        }
    )
    return {
        "id": entry.id,
        "stream": entry.stream,
        "state": entry.state,
        "size": entry.size,
        "due": entry.due,
        **known,
    }


def duration_text(seconds: float) -> str:
    """Return a time in its largest unit: "12s", "3m", "5h", "2d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(max(0, seconds))}s"


def size_text(octets: int) -> str:
    """Return a size in its largest unit: "812 B", "5.1 kB", "3.0 MB"."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if octets >= length:
            return f"{octets / length:.1f} {unit}"
    return f"{octets} B"
