"""What is in Redis at a moment: every job, where it stands, whom it is still for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy.queue import keys
from proxy.queue.job import decode_envelope
from proxy.queue.journal.record import HEADER_OCTETS, read_records, unpack_header

JOURNAL = "journal"
"""The place of what is in a journal: in Redis, too, if it was moved and not yet cut off there."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job: `places` are the lists that hold it; `dead` when it is a dead letter."""

    id: str
    recipients: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def dead(self) -> bool:
        """Whether it is a dead letter and nothing else."""
        return self.places == ("dead",)

    @property
    def message_id(self) -> str:
        """The id that the client was told."""
        return self.id.partition("-")[0]


def read_jobs(socket: Path, streams: Sequence[str]) -> list[Job]:
    """Return all jobs.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    client = _client(socket)
    try:
        places = _places(client, streams)
        jobs = []
        for key in client.scan_iter(keys.job_key("*"), count=1000):
            envelope = client.hget(key, "envelope")
            job_id = key.decode().removeprefix(keys.job_key(""))
            recipients = decode_envelope(envelope).recipients if envelope else ()
            jobs.append(Job(job_id, recipients, places.get(job_id, ())))
        return jobs
    finally:
        client.close()


def read_journals(folder: Path) -> list[Job]:
    """Return what stands in the journals of `folder`; their owners must have ended."""
    jobs: list[Job] = []
    for path in sorted(folder.glob("*.journal")):
        octets = path.read_bytes()
        header = unpack_header(octets)
        if header is None:
            continue

        def read(at: int, count: int, octets: bytes = octets) -> bytes:
            return octets[at : at + count]

        size = len(octets)
        window = read_records(read, header[1], HEADER_OCTETS, size, size, size)
        jobs += [
            Job(record.id, decode_envelope(record.envelope).recipients, (JOURNAL,))
            for record in window.records
        ]
    return jobs


def rewrite(socket: Path) -> None:
    """Let Redis begin to rewrite its file.

    Raises:
        redis.RedisError, OSError: Redis does not answer, or is at it.
    """
    client = _client(socket)
    try:
        client.bgrewriteaof()
    finally:
        client.close()


def _client(socket: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=5, retry=Retry(NoBackoff(), 0))


def _places(client: redis.Redis, streams: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}

    def add(place: str, members: Sequence[bytes]) -> None:
        for member in members:
            job_id = member.decode().partition(":")[0]
            found[job_id] = (*found.get(job_id, ()), place)

    for stream in streams:
        add("queued", client.lrange(keys.queue_key(stream), 0, -1))
        add("started", client.zrange(keys.started_key(stream), 0, -1))
        add("deferred", client.zrange(keys.scheduled_key(stream), 0, -1))
        add("dead", client.zrange(keys.failed_key(stream), 0, -1))
    return found
