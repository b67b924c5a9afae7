"""Messages for tests of the queue."""

import os
import time

from proxy.mail.ids import new_id
from proxy.queue.job import JobEnvelope, RelayJob


def a_job(
    body: bytes = b"Subject: x\r\n\r\nHello\r\n",
    *,
    stream: str = "outbound",
    recipients: tuple[str, ...] = ("you@example.org",),
    accepted_at: float | None = None,
) -> RelayJob:
    """Return a message as the listener hands it over."""
    now = time.time() if accepted_at is None else accepted_at
    envelope = JobEnvelope(mail_from="me@example.com", recipients=recipients, accepted_at=now)
    return RelayJob(new_id(int(now * 1000)), stream, envelope, body)


def a_large_job(octets: int) -> RelayJob:
    """Return a message with a body of so many random octets."""
    return a_job(os.urandom(octets))
