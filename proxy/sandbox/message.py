"""One message as the sandbox took it, and what can be read from its octets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from functools import cached_property

METADATA_PREFIX = "x-pm-metadata-"


@dataclass(frozen=True)
class Taken:
    """One mail transaction that the sandbox answered with 250.

    `id` is Postmark's MessageID, `queue_id` what the client was told, `at` seconds since the
    epoch. `host` and `port` say where it came in, `tls` the TLS version ("" for clear text),
    `login` the user, `bound_stream` the stream that this login is tied to ("" for none).
    `content` is what stood between DATA and the dot, dot-stuffing undone, octet by octet.
    """

    number: int
    id: str
    queue_id: str
    at: float
    host: str
    port: int
    tls: str
    login: str = field(repr=False)
    bound_stream: str
    helo: str
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)

    @cached_property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The header fields in order, unfolded, octets above 127 as surrogates."""
        header = self.content.partition(b"\r\n\r\n")[0] + b"\r\n"
        unfolded = re.sub(rb"\r\n(?=[ \t])", b"", header).decode("ascii", "surrogateescape")
        pairs = (line.partition(":") for line in unfolded.split("\r\n") if ":" in line)
        return tuple((name.rstrip(), value.strip()) for name, _, value in pairs)

    def field(self, name: str) -> str | None:
        """Return the value of the first field `name`; None when there is none."""
        return next((v for n, v in self.fields if n.lower() == name.lower()), None)

    def all_of(self, name: str) -> list[str]:
        """Return the values of all fields `name`, in order."""
        return [v for n, v in self.fields if n.lower() == name.lower()]

    @property
    def body(self) -> bytes:
        """The octets after the first empty line."""
        return self.content.partition(b"\r\n\r\n")[2]

    @property
    def stream(self) -> str:
        """The message stream: the login's own, else what the header asks for, else outbound."""
        return self.bound_stream or self.field("X-PM-Message-Stream") or "outbound"

    @property
    def tag(self) -> str:
        """The tag, "" without one."""
        return self.field("X-PM-Tag") or ""

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The metadata fields; a key that comes again gets a number appended."""
        found: dict[str, str] = {}
        for name, value in self.fields:
            if name.lower().startswith(METADATA_PREFIX):
                key = unique = name[len(METADATA_PREFIX) :]
                again = 1
                while unique in found:
                    again += 1
                    unique = f"{key}{again}"
                found[unique] = value
        return found

    @property
    def subject(self) -> str:
        """The subject, decoded."""
        return str(self.parsed.get("Subject", "")) if self.field("Subject") else ""

    @property
    def sender(self) -> str:
        """The address in From, "" without one. Postmark looks at the first only."""
        addresses = self.addresses("From")
        return addresses[0][1] if addresses else ""

    def addresses(self, name: str) -> list[tuple[str, str]]:
        """Return (display name, address) of each mailbox in the fields `name`."""
        return [pair for pair in getaddresses(self.all_of(name)) if pair[1]]

    @cached_property
    def parsed(self) -> EmailMessage:
        """The whole message, parsed by the standard library: slow, so only when asked for."""
        return message_from_bytes(self.content, policy=policy.default)
