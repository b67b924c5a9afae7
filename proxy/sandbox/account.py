"""The account that the sandbox plays: one Postmark server with its token, streams and senders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Kind = Literal["transactional", "broadcast", "inbound"]

TOKEN = "5a4db0c5-0000-4000-8000-f4a2cde50001"  # noqa: S105 - opens nothing but this stand-in
"""The server API token that the sandbox takes unless told otherwise: no real server has it."""

HOST_NAMES: Mapping[Kind, str] = MappingProxyType(
    {
        "transactional": "smtp.postmarkapp.com",
        "broadcast": "smtp-broadcasts.postmarkapp.com",
    }
)
"""How each kind of host names itself in its greeting."""


@dataclass(frozen=True, slots=True)
class SmtpToken:
    """Access key and secret key, tied to one message stream."""

    access_key: str
    secret_key: str = field(repr=False)
    stream: str


def _default_streams() -> Mapping[str, Kind]:
    return MappingProxyType(
        {
            "outbound": "transactional",
            "broadcast": "broadcast",
            "broadcasts": "broadcast",
            "inbound": "inbound",
        }
    )


@dataclass(frozen=True, slots=True)
class Account:
    """What the sandbox accepts and what it finds fault with later.

    `streams` maps each message stream's id to its kind. `verified` holds the domains and
    addresses that may stand in From; when it is empty, all may. `smtp_enabled` is Postmark's
    switch per server: off, every login is refused.
    """

    token: str = field(default=TOKEN, repr=False)
    streams: Mapping[str, Kind] = field(default_factory=_default_streams)
    smtp_tokens: tuple[SmtpToken, ...] = ()
    verified: tuple[str, ...] = ()
    smtp_enabled: bool = True

    def password(self, user: str) -> str | None:
        """Return the password that belongs to `user`; None for a login that is not known."""
        if not self.smtp_enabled:
            return None
        if user == self.token:
            return self.token
        for token in self.smtp_tokens:
            if user == token.access_key:
                return token.secret_key
        return None

    def stream_of(self, user: str) -> str:
        """Return the stream that the login `user` is tied to; "" for the server token."""
        for token in self.smtp_tokens:
            if user == token.access_key:
                return token.stream
        return ""

    def may_send_from(self, address: str) -> bool:
        """Whether `address` is a confirmed sender or stands at a verified domain."""
        if not self.verified:
            return True
        address = address.lower()
        domain = address.rpartition("@")[2]
        return any(entry.lower() in (address, domain) for entry in self.verified)
