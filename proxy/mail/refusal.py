"""Why a message or an address is not taken: the reply, and its reason for the metric."""

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "sender",
    "recipient",
    "non_ascii_mailbox",
    "local_recipient",
    "local_from",
    "not_verified",
    "rule",
    "size",
    "header",
    "loop",
    "parts",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reply that refuses (RFC 5321 §4.2, RFC 3463); `text` is one line of printable ASCII."""

    code: int
    enhanced: str
    text: str
    reason: Reason

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"


class RefusedError(Exception):
    """Carries a refusal out of the functions that found it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def refused(code: int, enhanced: str, text: str, reason: Reason) -> RefusedError:
    """Return the error to raise for this reply."""
    return RefusedError(Refusal(code, enhanced, text, reason))


def non_ascii_mailbox(address: str) -> RefusedError:
    """Return the error for an address that Postmark does not take (RFC 6531 is not for it)."""
    return refused(
        553,
        "5.6.7",
        f'Postmark takes no address whose mailbox is not ASCII: "{shown(address)}"',
        "non_ascii_mailbox",
    )


def shown(text: str, longest: int = 100) -> str:
    """Return `text`, which a client wrote, so that it can stand in a reply: printable ASCII."""
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
