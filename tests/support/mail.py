"""Messages, envelopes and policies for tests that look at one message."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from proxy.config.model import Settings
from proxy.mail.envelope import Client, Envelope
from proxy.submission import Accepted, Discarded, Policy, Refusal, compile_policy, submit

MESSAGE_ID = "01m7zzzzzzzzzzzzzzzzzzzzz0"
NOW = 1_795_167_781.0  # Fri, 20 Nov 2026 09:43:01 +0000
LOCAL = {"postmaster": "ops@example.com", "from": "host@example.com"}


def policy(
    *rules: dict[str, Any],
    local: dict[str, Any] | None = None,
    aliases_text: str = "",
    host_names: tuple[str, ...] = ("box.office.example", "box"),
    **sections: dict[str, Any],
) -> Policy:
    """Return the policy of a configuration with these rules and sections."""
    settings = Settings.model_validate({"rules": rules, "local": local or {}, **sections})
    return compile_policy(settings, host_names=host_names, aliases_text=aliases_text)


def envelope(
    sender: str = "app@example.com",
    *recipients: str,
    client: Client | None = None,
    notify: bool = True,
) -> Envelope:
    """Return an envelope from a local client."""
    client = client or Client("127.0.0.1", "box", "ESMTP")
    return Envelope(sender, recipients or ("bob@example.net",), client, notify)


def hand_in(
    content: bytes | str, given: Policy | None = None, of: Envelope | None = None
) -> Accepted | Discarded | Refusal:
    """Submit `content`; text is taken as lines that end in LF, and sent with CRLF."""
    if isinstance(content, str):
        content = content.replace("\n", "\r\n").encode()
    return submit(given or policy(), of or envelope(), content, message_id=MESSAGE_ID, now=NOW)


def accepted(
    content: bytes | str, given: Policy | None = None, of: Envelope | None = None
) -> Accepted:
    """Submit `content` and expect it to be taken."""
    outcome = hand_in(content, given, of)
    assert isinstance(outcome, Accepted), outcome
    assert_sound(outcome.job.body)
    return outcome


def refusal(content: bytes | str, given: Policy | None = None, of: Envelope | None = None) -> str:
    """Submit `content`, expect a refusal, and return the whole reply."""
    outcome = hand_in(content, given, of)
    assert isinstance(outcome, Refusal), outcome
    return str(outcome)


def assert_sound(octets: bytes) -> None:
    """Assert what holds for everything that leaves: CRLF alone, no NUL, a header, 998 octets."""
    assert b"\0" not in octets
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    assert octets.endswith(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    header, blank, _ = octets.partition(b"\r\n\r\n")
    assert blank
    assert header.isascii()


def read(octets: bytes) -> EmailMessage:
    """Return the message as the standard library reads it."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def fields(octets: bytes, name: str) -> list[str]:
    """Return the values of all fields of this name, unfolded, as they are written."""
    message = email.message_from_bytes(octets, policy=email.policy.compat32)
    return [" ".join(str(value).split()) for value in message.get_all(name, [])]


def field(octets: bytes, name: str) -> str:
    """Return the value of the only field of this name."""
    [value] = fields(octets, name)
    return value


def body(octets: bytes) -> bytes:
    """Return what is below the header."""
    return octets.partition(b"\r\n\r\n")[2]


def text(message: EmailMessage | bytes) -> str:
    """Return the text of a message without parts, decoded, with LF as its line end."""
    message = read(message) if isinstance(message, bytes) else message
    return str(message.get_content()).replace("\r\n", "\n")
