"""The sandbox as a program: it says where it is, then one line for each message it took."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from proxy.sandbox.account import TOKEN, Account
from proxy.sandbox.console import outcome
from proxy.sandbox.listing import timestamp
from proxy.sandbox.sandbox import HOSTS, Sandbox
from proxy.sandbox.store import Entry
from proxy.sandbox.web import SandboxWeb
from proxy.sandbox.where import Where

_KEEP_OCTETS = 100_000_000


def line_of(entry: Entry) -> str:
    """Return one line for people: when, from, to, which stream and tag, what became of it."""
    taken = entry.taken
    to = taken.recipients[0] + (
        f" and {len(taken.recipients) - 1} more" if len(taken.recipients) > 1 else ""
    )
    facts = [
        timestamp(taken.at)[:23] + "Z",
        f"sandbox took {taken.number}:",
        f"{taken.sender or taken.reverse_path or '<>'} -> {to},",
        f"X-PM-Message-Stream {taken.stream},",
        *([f"tag {taken.tag},"] if taken.tag else []),
        f"{len(taken.content)} octets,",
        f"{taken.tls or 'in clear'} on {taken.port}:",
        outcome(entry),
    ]
    printable = (c if c.isprintable() else "?" for c in " ".join(facts))
    return "".join(printable).encode("utf-8", "replace").decode()


def start_lines(where: Where) -> list[str]:
    """Return what a person needs to send mail to the sandbox."""
    ports = ", ".join(map(str, where.ports))
    hosts = [f"  {kind + ':':<15}{address}, ports {ports}" for address, kind in HOSTS.items()]
    return [
        "The stand-in for Postmark listens, for this machine only. SMTP with STARTTLS:",
        *hosts,
        f"  trust:         {where.ca_file}",
        f"  token:         {TOKEN} (user and password alike)",
        f"  page and API:  http://127.0.0.1:{where.http_port}/",
        "",
    ]


async def serve(
    where: Where,
    account: Account,
    *,
    ready: Callable[[Mapping[str, str]], None] = lambda _facts: None,
    out: TextIO = sys.stdout,
) -> None:
    """Run the sandbox until SIGTERM or SIGINT.

    `ready` is called once everything listens, with `SMTP` and `HTTP`, places as text.

    Raises:
        OSError: a port cannot be had.
    """

    def say(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            out.write(line + "\n")
            out.flush()

    def took(entry: Entry) -> None:
        sandbox.store.judge(entry)
        say(line_of(entry))

    sandbox = Sandbox(
        where.folder, account, ports=where.ports, keep_octets=_KEEP_OCTETS, on_taken=took
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with sandbox, SandboxWeb(sandbox, port=where.http_port) as web:
        for line in start_lines(where):
            say(line)
        places = " ".join(f"{host}:{port}" for host in sandbox.hosts for port in sandbox.ports)
        ready({"SMTP": places, "HTTP": f"{web.address}:{web.port}"})
        await stop.wait()
