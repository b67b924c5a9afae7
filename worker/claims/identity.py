"""One registration of a worker: its names and the numbers that fence its calls."""

import os
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from proxy.queue.job import rq_date

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

OURS = "franker"
"""A field that no stock worker has: ours is told by it also when Redis no longer knows it."""


@dataclass(slots=True)
class Registration:
    """A worker under one incarnation; reaped by mistake, it goes on under a new one.

    `claim` and `flush` are the numbers of the next call of each kind; `rq_fields` is what tools
    are shown of it that never changes.
    """

    incarnation: str
    name: str
    rq_fields: dict[str, str]
    claim: int = 1
    flush: int = 1

    def owns(self, execution: str) -> bool:
        """Return whether a claim was taken under this registration."""
        return execution.rpartition("-")[0] == self.incarnation


def new_registration(number: int, queues: Sequence[str]) -> Registration:
    """Return a fresh registration for worker `number` of this host, on RQ's `queues`."""
    incarnation = "".join(_ALPHABET[octet % 36] for octet in os.urandom(12))
    name = f"{socket.gethostname()}.{number}.{incarnation}"
    return Registration(incarnation, name, _rq_fields(queues) | {OURS: incarnation})


def _rq_fields(queues: Sequence[str]) -> dict[str, str]:
    return {
        "birth": rq_date(),
        "queues": ",".join(queues),
        "pid": str(os.getpid()),
        "hostname": socket.gethostname(),
        "ip_address": "unknown",
        "version": version("rq"),
        "python_version": platform.python_version(),
    }
