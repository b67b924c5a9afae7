"""Dead letters by hand: written as files, or rewritten by today's rules."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.host import Host
from proxy.cli.options import fail, print_json
from proxy.cli.store import open_store

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.queue.job import JobEnvelope, RelayJob


def export(host: Host, stream: str | None, folder: Path, *, as_json: bool) -> None:
    """Write every dead letter (of `stream`) to a file in `folder`; leave with 1 when one cannot."""
    files = asyncio.run(_export(host, stream, folder))
    if as_json:
        print_json(files)
    else:
        click.echo(f"{len(files)} written to {folder}" if files else "Nothing is dead.")


async def _export(host: Host, stream: str | None, folder: Path) -> dict[str, str]:
    from proxy.queue import inventory
    from proxy.queue.letters import LetterFileError, as_eml, write_letter

    files: dict[str, str] = {}
    async with open_store(host) as redis:
        streams = [stream] if stream else await inventory.known_streams(redis)
        async for entry in inventory.entries(redis, streams, ("dead",)):
            body = await inventory.read_body(redis, entry.id)
            if body is None:  # put back or deleted meanwhile
                continue
            try:
                eml = as_eml(entry.id, entry.stream, entry.envelope, body)
                files[entry.id] = str(write_letter(folder, entry.id, eml))
            except LetterFileError as error:
                fail(f"{error}; {len(files)} were written")
    return files


def todays_rules(
    settings: "Settings",
) -> "Callable[[str, JobEnvelope, bytes], RelayJob | str]":
    """Return what today's rules make of a dead letter, or the words why it stays dead."""
    from proxy.cli.explaining import policy_of
    from proxy.queue.expiry import read_clocks, stamped
    from proxy.rerouting import reroute
    from proxy.submission import Discarded, Refusal

    policy = policy_of(settings)

    def judge(job_id: str, envelope: "JobEnvelope", body: bytes) -> "RelayJob | str":
        outcome = reroute(policy, job_id, envelope, body, now=time.time())
        if isinstance(outcome, Discarded):
            return f'today\'s rule "{outcome.rule}" would discard it; `queue delete` does'
        if isinstance(outcome, Refusal):
            return f"today's rules would refuse it: {outcome.text}"
        return replace(outcome, envelope=stamped(outcome.envelope, read_clocks()))

    return judge
