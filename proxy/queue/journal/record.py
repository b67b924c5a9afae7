"""How messages stand in a journal's file: a header, then one frame after the other.

A frame begins with the file's mark, eight random octets from its header: after damage the next
frame is found by it, and no mail can hold one, since nobody outside knows it. Then come the
record's number, the length of its payload and the CRC-32 of both and the payload.

A record's number says whether it may enter Redis: only if it is above the last one that the
committer's fence has. Numbers never fall within a file. Those of a batch whose fate was not known
when it was written bear that batch's number, all others one of their own.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from proxy.queue.apart import words_apart_in
from proxy.queue.batch import Message

_MAGIC = b"franker journal 1\n"
_HEADER = struct.Struct(">18s16s8sI")  # magic, id, mark, CRC-32
_FRAME = struct.Struct(">8sQII")  # mark, number, octets of the payload, CRC-32
_CHECKED = struct.Struct(">QI")
_PAYLOAD = struct.Struct(">HHI")  # octets of stream, id and envelope; the rest is the body
_ID = re.compile(r"[0-9a-f]{16}")

HEADER_OCTETS = _HEADER.size
FRAME_OCTETS = _FRAME.size
MARK_OCTETS = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One message out of a journal; `envelope` is as `proxy.queue.job` encodes it."""

    number: int
    id: str
    stream: str
    envelope: bytes
    body: bytes

    @property
    def size(self) -> int:
        """Octets that count for the size of a batch."""
        return len(self.body) + len(self.envelope)

    @property
    def apart(self) -> bytes:
        """What `words_apart` says of it."""
        return words_apart_in(self.envelope)


@dataclass(frozen=True, slots=True)
class Window:
    """What was found between two places of a file.

    `records` are whole ones; `next` is where to go on; `damaged` counts octets that stand before
    a whole record and are none. `torn` is set when nothing whole follows `next`.
    """

    records: tuple[Record, ...]
    next: int
    damaged: int = 0
    torn: bool = False


def pack_header(journal_id: str, mark: bytes) -> bytes:
    """Return the header of the file of `journal_id` (16 hexadecimal digits)."""
    head = _MAGIC + journal_id.encode("ascii") + mark
    return head + zlib.crc32(head).to_bytes(4, "big")


def unpack_header(octets: bytes) -> tuple[str, bytes] | None:
    """Return a file's id and mark; None when `octets` do not begin with a header."""
    if len(octets) < HEADER_OCTETS:
        return None
    magic, journal_id, mark, check = _HEADER.unpack_from(octets)
    text = journal_id.decode("ascii", "replace")
    if magic != _MAGIC or not _ID.fullmatch(text):
        return None
    if zlib.crc32(octets[: HEADER_OCTETS - 4]) != check:
        return None
    return text, mark


def pack_record(mark: bytes, number: int, message: Message) -> list[bytes]:
    """Return the frame of `message`, as octets to be joined."""
    stream, message_id = message.stream.encode(), message.id.encode()
    inner = _PAYLOAD.pack(len(stream), len(message_id), len(message.envelope))
    parts = [inner, stream, message_id, message.envelope, message.body]
    length = sum(map(len, parts))
    check = zlib.crc32(_CHECKED.pack(number, length))
    for part in parts:
        check = zlib.crc32(part, check)
    return [_FRAME.pack(mark, number, length, check), *parts]


def frame_octets(message: Message) -> int:
    """Return how many octets the frame of `message` takes, at most."""
    names = 4 * (len(message.stream) + len(message.id))
    return FRAME_OCTETS + _PAYLOAD.size + names + len(message.envelope) + len(message.body)


def _unpack(payload: bytes, number: int) -> Record | None:
    if len(payload) < _PAYLOAD.size:
        return None
    stream, message_id, envelope = _PAYLOAD.unpack_from(payload)
    first = _PAYLOAD.size
    second, third = first + stream, first + stream + message_id
    fourth = third + envelope
    if fourth > len(payload):
        return None
    try:
        return Record(
            number,
            payload[second:third].decode("ascii"),
            payload[first:second].decode("ascii"),
            payload[third:fourth],
            payload[fourth:],
        )
    except UnicodeDecodeError:
        return None


Read = Callable[[int, int], bytes]
"""Returns so many octets from a place on; fewer only where the file ends."""


def read_records(read: Read, mark: bytes, at: int, end: int, most: int, octets: int) -> Window:
    """Return the records from `at` on: up to `most` and about `octets`, at least one if any.

    Records of the same number are never parted. What is no whole record is skipped to the next one.
    """
    records: list[Record] = []
    taken = damaged = 0
    while at < end:
        found = _frame(read, mark, at, end)
        if found is None:
            # What a crash tore ends the file; only a whole frame behind makes it damage.
            following = _next_whole(read, mark, at + 1, end)
            if following is None:
                return Window(tuple(records), at, damaged, torn=True)
            damaged += following - at
            at = following
            continue
        record, after = found
        if (
            records
            and record.number != records[-1].number
            and (len(records) >= most or taken + record.size > octets)
        ):
            return Window(tuple(records), at, damaged)
        records.append(record)
        taken += record.size
        at = after
    return Window(tuple(records), at, damaged)


def _frame(read: Read, mark: bytes, at: int, end: int) -> tuple[Record, int] | None:
    if at + FRAME_OCTETS > end:
        return None
    found, number, length, check = _FRAME.unpack(read(at, FRAME_OCTETS))
    first = at + FRAME_OCTETS
    if found != mark or first + length > end:
        return None
    payload = read(first, length)
    if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(number, length))) != check:
        return None
    record = _unpack(payload, number)
    return None if record is None else (record, first + length)


def _next_whole(read: Read, mark: bytes, at: int, end: int) -> int | None:
    place = _next_mark(read, mark, at, end)
    while place is not None and _frame(read, mark, place, end) is None:
        place = _next_mark(read, mark, place + 1, end)
    return place


def _next_mark(read: Read, mark: bytes, at: int, end: int) -> int | None:
    """Return where the mark stands next."""
    step = 1 << 20
    while at < end:
        place = read(at, min(step, end - at)).find(mark)
        if place >= 0:
            return at + place
        at += step - MARK_OCTETS + 1
    return None
