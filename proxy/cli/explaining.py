"""`franker explain`: what would be done with a message, and why. Nothing is sent or kept."""

import ipaddress
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.options import (
    EX_FAILED,
    config_option,
    example,
    fail,
    json_option,
    load,
    print_json,
    printable,
)

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.mail.envelope import Envelope
    from proxy.submission import Accepted, Policy, Refusal

_FIELD = re.compile(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*")


@click.command(
    epilog=example(
        "franker explain --from payroll@example.com --to you@example.net",
        "franker explain --from app@example.com --user batch message.eml",
    )
)
@config_option
@json_option
@click.option("--from", "sender", metavar="ADDRESS", required=True, help='Reverse-path; "" or <>.')
@click.option("--to", "recipients", metavar="ADDRESS", multiple=True, help="Recipient, repeatable.")
@click.option("--client", metavar="IP", default="127.0.0.1", show_default=True, help="From where.")
@click.option("--user", default="", help="The local process's user.")
@click.option("--login", default="", help="The name given to AUTH.")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
def explain(
    config: Path | None,
    as_json: bool,
    sender: str,
    recipients: tuple[str, ...],
    client: str,
    user: str,
    login: str,
    file: str | None,
) -> None:
    """Say which rule takes a message and why, where it would go, and what would change in it.

    FILE is the message; "-" reads it from standard input; without it a short one is made up. Fails
    with 1 when the message would be refused.
    """
    from proxy.mail.envelope import Client, Envelope

    settings = load(config).settings
    sender = "" if sender == "<>" else sender
    recipients = recipients or ("recipient@example.net",)
    envelope = Envelope(
        reverse_path=sender,
        recipients=recipients,
        client=Client(client, helo="explain", user=user, uid=_uid(user), login=login),
    )
    content = _content(file, sender, recipients)
    if _allowed(settings, client):
        answer = _answer(settings, policy_of(settings), envelope, content)
    else:
        from proxy.listener import replies

        answer = {
            "outcome": "refused",
            "at": "connect",
            "reply": replies.words(replies.NOT_ALLOWED),
        }
    if as_json:
        print_json(answer)
    else:
        for line in _lines(answer):
            click.echo(printable(line))
    if answer["outcome"] == "refused":
        sys.exit(EX_FAILED)


def _allowed(settings: "Settings", client: str) -> bool:
    """Return whether a client of this address may come in at one of our addresses."""
    from proxy.listener.door import parse_networks

    if client == "unix":
        return True
    try:
        address: Any = ipaddress.ip_address(client)
    except ValueError:
        raise click.BadParameter(f"{client!r} is no IP address", param_hint="--client") from None
    address = getattr(address, "ipv4_mapped", None) or address
    return any(
        address in network
        for one in settings.listen.smtp
        if not one.address.startswith("unix:")
        for network in parse_networks(settings.listen.allow if one.allow is None else one.allow)
    )


def _uid(user: str) -> int | None:
    import pwd

    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        return None


def _content(file: str | None, sender: str, recipients: tuple[str, ...]) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    if file is not None:
        return Path(file).read_bytes()
    lines = (f"From: {sender}", f"To: {', '.join(recipients)}", "Subject: Example", "", "Text.", "")
    return "\r\n".join(lines).encode()


def policy_of(settings: "Settings") -> "Policy":
    """Return the policy as the proxy on this host compiles it."""
    from proxy.own_host import host_names, read_aliases
    from proxy.submission import compile_policy

    try:
        aliases = read_aliases(settings)
    except OSError as error:
        fail(str(error))
    return compile_policy(settings, host_names=host_names()[1], aliases_text=aliases)


def _answer(
    settings: "Settings", policy: "Policy", envelope: "Envelope", content: bytes
) -> dict[str, Any]:
    from proxy.mail.ids import new_id
    from proxy.submission import (
        Accepted,
        Discarded,
        Refusal,
        check_sender,
        resolve_recipient,
        submit,
    )

    refusal = check_sender(policy, envelope.reverse_path)
    if refusal is not None:
        return _refused(refusal, "MAIL")
    for recipient in envelope.recipients:
        resolved = resolve_recipient(policy, recipient)
        if isinstance(resolved, Refusal):
            return _refused(resolved, f"RCPT {recipient}")
    now = time.time()
    outcome = submit(policy, envelope, content, message_id=new_id(int(now * 1000)), now=now)
    if isinstance(outcome, Refusal):
        return _refused(outcome, "the end of DATA")
    if isinstance(outcome, Discarded):
        return {"outcome": "discarded", "rule": outcome.rule}
    assert isinstance(outcome, Accepted)
    return _accepted(settings, outcome, content)


def _refused(refusal: "Refusal", at: str) -> dict[str, Any]:
    return {"outcome": "refused", "at": at, "reply": str(refusal)}


@dataclass(frozen=True, slots=True)
class Changes:
    """Header fields that went, and those that came, each on one line."""

    removed: tuple[str, ...]
    added: tuple[str, ...]


def changes(before: bytes, after: bytes) -> Changes:
    """Compare the headers of two messages; a field that was replaced is in both lists."""
    old, new = _fields(before), _fields(after)
    return Changes(
        removed=tuple(_one_line(field) for field in old if field not in new),
        added=tuple(_one_line(field) for field in new if field not in old),
    )


def _fields(message: bytes) -> list[bytes]:
    octets = re.sub(rb"\r\n|\r|\n", b"\r\n", message)
    return _FIELD.findall(octets.partition(b"\r\n\r\n")[0] + b"\r\n")


def _one_line(field: bytes) -> str:
    return re.sub(rb"\r\n[ \t]*", b" ", field).decode("utf-8", "backslashreplace").strip()


def _accepted(settings: "Settings", accepted: "Accepted", content: bytes) -> dict[str, Any]:
    job, chosen = accepted.job, accepted.route
    stream = settings.streams[job.stream]
    broadcast = stream.kind == "broadcast"
    postmark = settings.postmark
    header = changes(content, job.body)
    return {
        "outcome": "relayed",
        "rule": chosen.rule,
        "why": list(chosen.why),
        "stream": job.stream,
        "stream_id": stream.id or job.stream,
        "host": postmark.broadcast_host if broadcast else postmark.transactional_host,
        "credentials": [secret.name for secret in stream.token or stream.access_key],
        "from": job.envelope.mail_from,
        "recipients": list(job.envelope.recipients),
        "owner": job.envelope.owner,
        "repairs": list(accepted.repairs),
        "removed": list(header.removed),
        "added": list(header.added),
        "size": len(job.body),
    }


def _lines(answer: dict[str, Any]) -> list[str]:
    """Return the answer as people read it."""
    if answer["outcome"] == "refused":
        return [f"refused at {answer['at']}: {answer['reply']}"]
    if answer["outcome"] == "discarded":
        return [f"answered with 250 and thrown away by rule {answer['rule']}"]
    lines = [
        f"rule         {answer['rule'] or '(none)'}: {', '.join(answer['why'])}",
        f"stream       {answer['stream_id']}",
        f"by           {answer['host']}, login: {' or '.join(answer['credentials'])}",
        f"from         {answer['from']}",
        f"to           {', '.join(answer['recipients'])}",
        f"size         {answer['size']} octets",
    ]
    if answer["owner"]:
        lines.append(f"owner        {answer['owner']}")
    if answer["repairs"]:
        lines.append(f"repairs      {', '.join(answer['repairs'])}")
    lines += [f"- {field}" for field in answer["removed"]]
    lines += [f"+ {field}" for field in answer["added"]]
    return lines
