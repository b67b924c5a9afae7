"""Messages on their way to Redis: who waits, which go together, and how they are written."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.queue import keys
from proxy.queue.apart import words_apart
from proxy.queue.job import RelayJob, encode_envelope
from proxy.queue.wire import Packed

MAX_MESSAGES = 200
"""In one batch: enough to share an fsync, few enough to answer within milliseconds."""

MAX_OCTETS = 2_000_000
"""In one batch of more than one message."""

LARGE_OCTETS = 256_000
"""From this size a message travels apart from the small ones, so that they need not wait long."""

AHEAD_OCTETS = 32_768
"""A body from this size goes past Lua, which would copy it twice and read its every octet."""


class Message(Protocol):
    """What is written of each message."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def stream(self) -> str:
        """The stream it goes to."""
        ...

    @property
    def envelope(self) -> bytes:
        """As `encode_envelope` writes it."""
        ...

    @property
    def body(self) -> bytes:
        """As it goes to Postmark."""
        ...

    @property
    def size(self) -> int:
        """Octets of both."""
        ...

    @property
    def apart(self) -> bytes:
        """What `words_apart` says of it: b"" for all mail that is simply queued."""
        ...


class Waiting:
    """A message whose client waits; `done` ends with None (kept) or the reason why not.

    `known` is set before, where it was kept already, under its `once`, and this is left out.
    """

    __slots__ = ("apart", "body", "done", "envelope", "id", "job", "known", "size", "stream")

    def __init__(self, job: RelayJob, done: asyncio.Future[None]) -> None:
        self.job = job
        self.id, self.stream, self.body = job.id, job.stream, job.body
        self.envelope = encode_envelope(job.envelope)
        self.size = len(job.body) + len(self.envelope)
        self.apart = words_apart(job.envelope)
        self.known = False
        self.done = done

    @property
    def told_no(self) -> bool:
        """Whether its client has heard that it was not kept, or has gone without an answer.

        Not what has an id of its own: it is handed in again under that, and known then.
        """
        done = self.done
        return not self.apart and done.done() and (done.cancelled() or done.exception() is not None)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one script call keeps. `number` rises from batch to batch of one committer."""

    number: int
    messages: tuple[Waiting, ...]

    def mark_known(self, ids: Sequence[bytes | str]) -> None:
        """Note that the messages of `ids` were left out: they had been kept before."""
        known = {one.decode() if isinstance(one, bytes) else one for one in ids}
        for waiting in self.messages:
            waiting.known = waiting.id in known


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


def by_queue(messages: Iterable[Message]) -> dict[str, list[Message]]:
    """Return `messages` grouped as commit.lua wants them, each group in order.

    Those that are not simply queued are groups of their own; "!" stands before the queue's name.
    """
    queues: dict[str, list[Message]] = {}
    for message in messages:
        name = keys.queue_name(message.stream)
        queues.setdefault("!" + name if message.apart else name, []).append(message)
    return queues


def pack_commit(
    sha: str, fence: str, epoch: str, number: int, messages: Sequence[Message], now: str
) -> Packed:
    """Return the call of commit.lua for a batch in Redis's protocol. `now` is in RQ's form.

    A large body goes ahead of the call, in one transaction with it: into a hash of its own, of
    which the script makes the job. What it leaves, because it refused the batch or could not run,
    is deleted behind it; so nobody ever sees one, and a batch that comes late changes nothing.

    Written by hand because the client library's packing costs more than all the rest of a commit
    (20 against 7 µs a message).
    """
    call = _pack_call(sha, fence, epoch, number, messages, now)
    ahead = [message for message in messages if _goes_ahead(message)]
    if not ahead:
        return Packed(call)
    places = [keys.new_key(message.id) for message in ahead]
    out = [_command("MULTI")]
    for place, message in zip(places, ahead, strict=True):
        head = b"*4\r\n%b%b%b" % (_bulk("HSET"), _bulk(place), _bulk("body"))
        out += (head, b"$%d\r\n" % len(message.body), message.body, b"\r\n")
    out += (*call, _command("DEL", *places), _command("EXEC"))
    return Packed(out, replies=len(ahead) + 4)


def _goes_ahead(message: Message) -> bool:
    # An empty body as well: to the script no octets mean that they went ahead.
    return not 0 < len(message.body) < AHEAD_OCTETS


def _pack_call(
    sha: str, fence: str, epoch: str, number: int, messages: Sequence[Message], now: str
) -> list[bytes]:
    queues = by_queue(messages)
    apart = sum(len(some) for queue, some in queues.items() if queue[0] == "!")
    count = 6 + 2 * len(queues) + 3 * len(messages) + apart
    head = ("EVALSHA", sha, "1", fence, epoch, str(number), now)
    out = [b"*%d\r\n" % (count + 1), *map(_bulk, head)]
    for queue, of_queue in queues.items():
        out.append(_bulk(queue))
        out.append(_bulk(str(len(of_queue))))
        for message in of_queue:
            message_id, envelope = message.id.encode(), message.envelope
            body = b"" if _goes_ahead(message) else message.body
            out.append(
                b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n"
                % (len(message_id), message_id, len(envelope), envelope, len(body))
            )
            out.append(body)
            out.append(b"\r\n")
            if queue[0] == "!":
                out.append(b"$%d\r\n%b\r\n" % (len(message.apart), message.apart))
    return out


def _command(*words: str) -> bytes:
    return b"*%d\r\n%b" % (len(words), b"".join(map(_bulk, words)))


def _bulk(text: str) -> bytes:
    octets = text.encode()
    return b"$%d\r\n%b\r\n" % (len(octets), octets)
