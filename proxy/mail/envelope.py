"""What came with a message: who sent it, to whom, from where (RFC 5321 §2.3.1)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """The program at the other end of the session that brought a message.

    `address` is an IP address in its shortest form (IPv4 even on an IPv6 socket), or "unix".
    `uid` is the local process's user id where it is known, `user` its name if it has one.
    `protocol` is RFC 3848's word for Received: SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA.
    """

    address: str
    helo: str = ""
    protocol: str = "ESMTP"
    login: str = ""
    uid: int | None = None
    user: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message's envelope as the client gave it.

    `reverse_path` is "" for the null one. `recipients` holds at least one forward-path, each
    without angle brackets and source route, in the order given, duplicates left out. `notify` is
    false when the client wants no notice of failures (NOTIFY=NEVER, RFC 3461 §4.1). `once` is an
    id under which the message is kept only once, "" for none.
    """

    reverse_path: str
    recipients: tuple[str, ...]
    client: Client
    notify: bool = True
    once: str = ""
