"""Messages on their way to Redis: who waits, which go together, and how they are written."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxy.queue import keys
from proxy.queue.job import RelayJob, encode_envelope

MAX_MESSAGES = 200
"""In one batch: enough to share an fsync, few enough to answer within milliseconds."""

MAX_OCTETS = 2_000_000
"""In one batch of more than one message."""

LARGE_OCTETS = 256_000
"""From this size a message travels apart from the small ones, so that they need not wait long."""


class Waiting:
    """A message whose client waits; `done` ends with None (kept) or the reason why not."""

    __slots__ = ("done", "envelope", "job", "size")

    def __init__(self, job: RelayJob, done: asyncio.Future[None]) -> None:
        self.job = job
        self.envelope = encode_envelope(job.envelope)
        self.size = len(job.body) + len(self.envelope)
        self.done = done


@dataclass(frozen=True, slots=True)
class Batch:
    """What one script call keeps. `number` rises from batch to batch of one committer."""

    number: int
    messages: tuple[Waiting, ...]


class Lanes:
    """Messages that wait, in the order they came: a lane for small ones and one for large ones.

    Each call of `take` serves the other lane than the last, if anything waits there.
    """

    def __init__(self) -> None:
        self._small: deque[Waiting] = deque()
        self._large: deque[Waiting] = deque()
        self._large_next = False

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    def add(self, waiting: Waiting) -> None:
        """Put a message at the end of its lane."""
        (self._large if waiting.size >= LARGE_OCTETS else self._small).append(waiting)

    def put_back(self, messages: Sequence[Waiting]) -> None:
        """Put messages that `take` gave, and that were not kept, at the head of their lanes."""
        for waiting in reversed(messages):
            (self._large if waiting.size >= LARGE_OCTETS else self._small).appendleft(waiting)

    def take(self) -> tuple[Waiting, ...]:
        """Remove and return what goes next; empty when nothing waits.

        A message whose client has gone (its `done` is done) is left out: it was never promised.
        """
        large = bool(self._large) and (self._large_next or not self._small)
        self._large_next = not large
        lane = self._large if large else self._small
        taken: list[Waiting] = []
        octets = 0
        while lane and len(taken) < MAX_MESSAGES:
            if taken and octets + lane[0].size > MAX_OCTETS:
                break
            waiting = lane.popleft()
            if not waiting.done.done():
                taken.append(waiting)
                octets += waiting.size
        if not taken and len(self):
            return self.take()
        return tuple(taken)

    def clear(self) -> tuple[Waiting, ...]:
        """Remove and return everything."""
        everything = (*self._small, *self._large)
        self._small.clear()
        self._large.clear()
        return everything


def by_stream(messages: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    """Return `messages` grouped by stream, in order."""
    streams: dict[str, list[Waiting]] = {}
    for waiting in messages:
        streams.setdefault(waiting.job.stream, []).append(waiting)
    return streams


def pack_commit(sha: str, fence: str, epoch: int, batch: Batch, now: str) -> list[bytes]:
    """Return the call of commit.lua for `batch` in Redis's protocol, as octets to be joined.

    Written by hand because the client library's packing costs more than all the rest of a commit
    (20 against 7 µs a message). `now` is in RQ's form.
    """
    streams = by_stream(batch.messages)
    count = 6 + 2 * len(streams) + 3 * len(batch.messages)
    head = ("EVALSHA", sha, "1", fence, str(epoch), str(batch.number), now)
    out = [b"*%d\r\n" % (count + 1), *map(_bulk, head)]
    for stream, messages in streams.items():
        out.append(_bulk(keys.queue_name(stream)))
        out.append(_bulk(str(len(messages))))
        for waiting in messages:
            message_id, body = waiting.job.id.encode(), waiting.job.body
            out.append(
                b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n"
                % (len(message_id), message_id, len(waiting.envelope), waiting.envelope, len(body))
            )
            out.append(body)
            out.append(b"\r\n")
    return out


def _bulk(text: str) -> bytes:
    octets = text.encode()
    return b"$%d\r\n%b\r\n" % (len(octets), octets)
