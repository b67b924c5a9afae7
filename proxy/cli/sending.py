"""`franker send-test`: one message by the way that every program's mail goes."""

import asyncio
import smtplib
import socket
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path

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
)

_TIMEOUT_S = 60.0
_STEP_S = 0.2
_FALLBACK_PORT = 2525  # where the proxy listens without the right to port 25


@click.command(
    name="send-test",
    epilog=example("franker send-test --from app@example.com --to you@example.net"),
)
@config_option
@json_option
@click.option("--from", "sender", metavar="ADDRESS", help="Sender; else local.from.")
@click.option("--to", "recipient", metavar="ADDRESS", required=True, help="Recipient.")
@click.option("--subject", default="Test by Franker", show_default=True, help="Subject.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="How long to look what becomes of it.",
)
def send_test(
    config: Path | None,
    as_json: bool,
    sender: str | None,
    recipient: str,
    subject: str,
    wait: float,
) -> None:
    """Send one message through the listener on this host, and look what becomes of it.

    It is real mail: with a token it goes to Postmark. Fails with 1 when it is refused, or dies.
    """
    host = find_host(config)
    sender = sender or host.settings.local.from_
    if not sender:
        raise click.UsageError("--from is needed where local.from is not set")
    message_id = _hand_in(host, sender, recipient, subject)
    if not as_json:
        click.echo(f"kept as {message_id}")
    outcome, detail = asyncio.run(_follow(host, message_id, wait)) if wait else ("kept", "")
    if as_json:
        print_json({"id": message_id, "outcome": outcome, "detail": detail})
    elif wait:
        click.echo(" ".join(filter(None, [outcome, detail])))
    if outcome == "dead":
        sys.exit(EX_FAILED)


class _UnixSMTP(smtplib.SMTP):
    """SMTP over a unix socket, `host` being its path."""

    def _get_socket(self, host: str, _port: int, timeout: float | None) -> socket.socket:
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(timeout)
        wire.connect(host)
        return wire


def _hand_in(host: Host, sender: str, recipient: str, subject: str) -> str:
    """Send the message, and return its id; leave with 1 and the reply when it is refused."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, subject
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="franker.invalid")
    message.set_content("This message was sent by `franker send-test`.\n")
    try:
        with _connect(host) as client:
            client.ehlo_or_helo_if_needed()
            for verb, (code, text) in (
                ("MAIL", client.mail(sender)),
                ("RCPT", client.rcpt(recipient)),
            ):
                if code != 250:
                    fail(f"refused at {verb}: {code} {text.decode('utf-8', 'replace')}")
            code, text = client.data(message.as_bytes(policy=SMTP))
    except smtplib.SMTPException as error:
        fail(f"refused: {error}")
    reply = text.decode("utf-8", "replace")
    if code != 250:
        fail(f"refused: {code} {reply}")
    return reply.split()[-1]


def _connect(host: Host) -> smtplib.SMTP:
    tried = []
    for address in _addresses(host):
        try:
            if address.startswith("unix:"):
                return _UnixSMTP(address.removeprefix("unix:"), 1, timeout=_TIMEOUT_S)
            name, _, port = address.rpartition(":")
            return smtplib.SMTP(name.strip("[]"), int(port), timeout=_TIMEOUT_S)
        except OSError as error:
            tried.append(f"{address}: {error.strerror or error}")
    return fail(f"nobody takes mail here; is `franker proxy` running? ({'; '.join(tried)})")


def _addresses(host: Host) -> Iterator[str]:
    """Yield where the listener may be, the likeliest first."""
    if host.running is not None and host.running.smtp:
        yield from host.running.smtp
        return
    for listening in host.settings.listen.smtp:
        yield listening.address
        if listening.address.endswith(":25"):
            yield listening.address.removesuffix("25") + str(_FALLBACK_PORT)


async def _follow(host: Host, message_id: str, wait: float) -> tuple[str, str]:
    """Return what became of the message within `wait` seconds, and the words for it."""
    from proxy.cli.store import open_store
    from proxy.queue import inventory

    ends = time.monotonic() + wait
    async with open_store(host) as redis:
        while True:
            entry = await inventory.find(redis, message_id)
            if entry is None:
                parts = await inventory.parts(redis, message_id)
                if not parts:
                    return "sent", ""
                entry = parts[0]
            detail = "; ".join(entry.envelope.replies.values()) if entry.envelope else ""
            if entry.state in ("deferred", "dead") or time.monotonic() >= ends:
                return entry.state, printable(detail)
            await asyncio.sleep(_STEP_S)
