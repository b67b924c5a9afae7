"""What is done about messages by hand: `franker queue retry` and `franker queue delete`."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.host import Host, find_host
from proxy.cli.letters import todays_rules
from proxy.cli.options import (
    EX_FAILED,
    config_option,
    example,
    json_option,
    messages,
    print_json,
    stream_option,
)
from proxy.cli.store import check_stream, open_store

if TYPE_CHECKING:
    from proxy.queue.inventory import State


@click.command(
    epilog=example("franker queue retry ID", "franker queue retry --dead --stream outbound")
)
@config_option
@json_option
@stream_option
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
    from proxy.queue import by_command, inventory

    states = _named_states(ids, stream, dead=all_dead, deferred=all_deferred)
    if reroute and all_deferred:
        raise click.UsageError("--reroute is for dead messages; deferred ones keep their rule")

    async def work(host: Host) -> dict[str, str]:
        async with open_store(host) as redis:
            await check_stream(host, redis, stream)
            chosen = ids or await _ids(redis, stream, states)
            if reroute:
                return await by_command.reroute(redis, chosen, todays_rules(host.settings))
            # What was refused when it was handed in has never been rewritten by any rule.
            refused = await inventory.refused(redis, chosen)
            others = [one for one in chosen if one not in refused]
            outcome: dict[str, str] = {**await by_command.retry(redis, others, now=time.time())}
            if refused:
                rules = todays_rules(host.settings)
                anew = [one for one in chosen if one in refused]
                outcome |= await by_command.reroute(redis, anew, rules)
            return outcome

    _report(asyncio.run(work(find_host(config))), "retried", as_json)


@click.command(epilog=example("franker queue delete ID", "franker queue delete --dead --yes"))
@config_option
@json_option
@stream_option
@click.option("--dead", "all_dead", is_flag=True, help="All that are dead.")
@click.option("--held", "all_held", is_flag=True, help="All that are held.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
def delete(
    config: Path | None,
    as_json: bool,
    stream: str | None,
    all_dead: bool,
    all_held: bool,
    yes: bool,
    ids: tuple[str, ...],
) -> None:
    """Throw messages away for good; nobody is told, the proxy's log has their recipients."""
    from proxy.queue import by_command

    states = _named_states(ids, stream, dead=all_dead, held=all_held)
    host = find_host(config)

    async def choose() -> Sequence[str]:
        async with open_store(host) as redis:
            await check_stream(host, redis, stream)
            return ids or await _ids(redis, stream, states)

    async def work(chosen: Sequence[str]) -> dict[str, str]:
        async with open_store(host) as redis:
            return dict(await by_command.delete(redis, chosen))

    chosen = asyncio.run(choose())
    if not ids and not yes:
        click.confirm(f"Throw away {messages(len(chosen))}?", abort=True, err=True)
    _report(asyncio.run(work(chosen)), "deleted", as_json)


def _named_states(ids: Sequence[str], stream: str | None, **chosen: bool) -> tuple["State", ...]:
    """Return the states asked for; ids, or states, must be named, not both."""
    states = tuple(state for state in ("dead", "deferred", "held") if chosen.get(state))
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
                click.echo(f"{message_id}: {OUTCOMES.get(what, what)}", err=True)
        click.echo(f"{sum(what == wanted for what in outcome.values())} {wanted}")
    if any(what != wanted for what in outcome.values()):
        sys.exit(EX_FAILED)


OUTCOMES = {
    "absent": "there is no such message: it was sent or deleted, or the id is mistyped",
    "sending": "it is being sent just now",
    "queued": "it waits to be sent anyway",
    "held": "it is held; `franker queue release` lets it go",
    "not_dead": "it is not dead; --reroute is for dead messages",
    "changed": "it changed at this moment; try again",
}
