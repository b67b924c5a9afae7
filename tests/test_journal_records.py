"""A journal's file, octet by octet: what a crash or damage leaves, and who may have it."""

import fcntl
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.queue.journal.file import JournalFile, NoHeaderError
from proxy.queue.journal.folder import Bounds, JournalFolder, Orphans
from proxy.queue.journal.record import (
    FRAME_OCTETS,
    HEADER_OCTETS,
    Record,
    frame_octets,
    pack_header,
    pack_record,
    read_records,
    unpack_header,
)

ID = "0123456789abcdef"
MARK = b"\x00mark\xff\x01\x02"


def record(number: int, body: bytes = b"body", stream: str = "outbound") -> Record:
    return Record(number, f"id{number:024}", stream, b'{"v":1}', body)


def framed(*records: Record) -> tuple[bytes, list[int]]:
    """Return a whole file with `records`, and where each one ends."""
    octets, ends = pack_header(ID, MARK), []
    for each in records:
        octets += b"".join(pack_record(MARK, each.number, each))
        ends.append(len(octets))
    return octets, ends


def read_all(octets: bytes) -> tuple[list[Record], int, bool]:
    """Return the records of a whole file, the octets of damage, and whether its end was torn."""
    found: list[Record] = []
    at, damaged = HEADER_OCTETS, 0
    while at < len(octets):
        window = read_records(lambda p, n: octets[p : p + n], MARK, at, len(octets), 3, 1000)
        found += window.records
        damaged += window.damaged
        if window.torn:
            return found, damaged, True
        assert window.next > at
        at = window.next
    return found, damaged, False


RECORDS = (
    record(7, b""),
    record(7, b"second of a batch\r\n"),
    record(8, os.urandom(300), "broadcasts"),
    record(9, b"\r\n.\r\n"),
    record(12, b"x" * 100),
)


def test_a_record_comes_out_as_it_went_in() -> None:
    octets, _ = framed(*RECORDS)
    assert unpack_header(octets) == (ID, MARK)
    assert read_all(octets) == (list(RECORDS), 0, False)


def test_cut_at_every_octet_exactly_the_whole_records_before_it_are_there() -> None:
    octets, ends = framed(*RECORDS)
    for cut in range(HEADER_OCTETS, len(octets) + 1):
        found, damaged, torn = read_all(octets[:cut])
        assert found == [each for each, end in zip(RECORDS, ends, strict=True) if end <= cut], cut
        assert damaged == 0
        assert torn == (cut not in (HEADER_OCTETS, *ends)), cut


def test_no_octet_of_the_header_can_be_changed_without_being_noticed() -> None:
    header = pack_header(ID, MARK)
    assert unpack_header(header) == (ID, MARK)
    for place in range(len(header)):
        for bit in range(8):
            changed = bytearray(header)
            changed[place] ^= 1 << bit
            assert unpack_header(bytes(changed)) is None, place


def test_cut_within_the_header_there_is_nothing() -> None:
    octets, _ = framed()
    for cut in range(HEADER_OCTETS):
        assert unpack_header(octets[:cut]) is None


def test_no_octet_can_be_changed_without_being_noticed_and_the_other_records_stay() -> None:
    octets, ends = framed(*RECORDS)
    starts = [HEADER_OCTETS, *ends[:-1]]
    for place in range(HEADER_OCTETS, len(octets)):
        for bit in (0x01, 0x80):
            broken = bytearray(octets)
            broken[place] ^= bit
            found, damaged, torn = read_all(bytes(broken))
            hit = next(i for i, end in enumerate(ends) if place < end)
            assert found == [each for i, each in enumerate(RECORDS) if i != hit], place
            last = hit == len(RECORDS) - 1
            assert torn == last
            assert damaged == (0 if last else ends[hit] - starts[hit])


def test_a_tail_of_zeros_or_of_an_older_use_of_the_disk_is_torn_off() -> None:
    octets, _ = framed(*RECORDS)
    chance = random.Random(3)
    for tail in (bytes(5000), chance.randbytes(5000), MARK * 40, octets[-50:]):
        assert read_all(octets + tail) == (list(RECORDS), 0, True)


def test_a_frame_in_somebodys_mail_is_no_record_of_ours() -> None:
    forged = b"".join(pack_record(b"guessed!", 99, record(99)))
    octets, ends = framed(record(1, forged), record(2))
    broken = bytearray(octets)
    broken[HEADER_OCTETS + 9] ^= 1  # of the first frame's number: its body is searched for another
    found, damaged, _ = read_all(bytes(broken))
    assert found == [record(2)]
    assert damaged == ends[0] - HEADER_OCTETS


def test_a_length_that_lies_reads_nothing_beyond_the_file() -> None:
    octets, _ = framed(record(1))
    broken = bytearray(octets)
    broken[HEADER_OCTETS + 16 : HEADER_OCTETS + 20] = b"\xff\xff\xff\xff"
    assert read_all(bytes(broken)) == ([], 0, True)


def test_records_of_one_number_are_never_parted() -> None:
    octets, _ = framed(record(1), *(record(2, b"z" * 500) for _ in range(5)), record(3))

    def read(at: int, most: int, limit: int) -> tuple[list[int], int]:
        window = read_records(lambda p, n: octets[p : p + n], MARK, at, len(octets), most, limit)
        return [each.number for each in window.records], window.next

    first, at = read(HEADER_OCTETS, 1, 0)
    second, at = read(at, 2, 600)
    third, at = read(at, 2, 600)
    assert (first, second, third) == ([1], [2] * 5, [3])


def test_a_frame_is_no_larger_than_was_reckoned() -> None:
    one = record(1, b"x" * 100)
    length = len(b"".join(pack_record(MARK, 1, one)))
    assert FRAME_OCTETS < length <= frame_octets(one)


# The file.


def append(file: JournalFile, *records: Record) -> None:
    frames = [pack_record(file.mark, each.number, each) for each in records]
    file.append(b"".join(part for frame in frames for part in frame))


def test_what_was_written_is_there_for_who_takes_it_over(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path / "new", ID)
    append(file, *RECORDS[:2])
    append(file, *RECORDS[2:])
    file.close()
    taken = JournalFile.take(file.path)
    assert taken is not None
    assert taken.id == ID
    assert taken.check().records == len(RECORDS)
    assert taken.read(HEADER_OCTETS, 100, 10_000).records == RECORDS
    taken.close()


def test_files_are_for_nobody_elses_eyes(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path / "new", ID)
    assert file.path.stat().st_mode & 0o077 == 0
    assert file.path.parent.stat().st_mode & 0o077 == 0
    file.close()


def test_a_file_torn_at_any_octet_is_cut_once_and_can_be_written_on(tmp_path: Path) -> None:
    whole = JournalFile.create(tmp_path, ID)
    append(whole, *RECORDS)
    octets = whole.path.read_bytes()
    whole.remove()
    path = tmp_path / f"{ID}.journal"
    for cut in range(HEADER_OCTETS + 1, len(octets), 7):
        path.write_bytes(octets[:cut])
        file = JournalFile.take(path)
        assert file is not None
        checked = file.check()
        kept = RECORDS[: checked.records]
        assert path.stat().st_size == file.end == cut - checked.torn
        append(file, record(20))
        assert file.read(HEADER_OCTETS, 100, 10_000).records == (*kept, record(20))
        file.close()


def found(folder: Path) -> Orphans:
    """Look into a folder as a process does."""
    return JournalFolder(folder, Bounds()).orphans()


def test_nobody_gets_the_journal_of_a_process_that_lives(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path, ID)
    append(file, record(1))
    assert JournalFile.take(file.path) is None
    assert not found(tmp_path).journals
    file.close()
    orphans = found(tmp_path)
    assert [(one.id, count) for one, count in orphans.journals] == [(ID, 1)]
    assert orphans.empty == []
    orphans.journals[0][0].close()


def test_the_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from proxy.queue.journal.file import JournalFile;"
        f"file = JournalFile.create(Path(sys.argv[1]), '{ID}');"
        "print('made', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"made\n"
        path = tmp_path / f"{ID}.journal"
        assert JournalFile.take(path) is None
        owner.kill()
        owner.wait()
    taken = JournalFile.take(path)
    assert taken is not None
    taken.close()


def test_empty_journals_of_the_dead_are_removed_and_named(tmp_path: Path) -> None:
    JournalFile.create(tmp_path, ID).close()
    (tmp_path / "half.journal").write_bytes(pack_header(ID, MARK)[:20])
    assert found(tmp_path) == Orphans((), [ID], [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_journal_is_set_aside_and_not_removed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.journal").write_bytes(b"z" * 1000)
    with pytest.raises(NoHeaderError):
        JournalFile.take(tmp_path / "x.journal")
    assert not found(tmp_path).journals
    assert [path.name for path in tmp_path.iterdir()] == ["x.damaged"]
    assert "journal_damaged" in capfd.readouterr().err


def test_a_journal_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile.create(tmp_path, ID)
    append(file, record(1))
    file.close()

    def broken(_self: JournalFile) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "check", broken)
        assert found(tmp_path).troubles == [f"{file.path}: Input/output error"]
    assert len(found(tmp_path).journals) == 1  # its lock was given up


def test_a_damaged_journal_is_kept_aside_after_its_mail_has_moved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = JournalFile.create(tmp_path, ID)
    append(file, *RECORDS)
    file.close()
    octets = bytearray(file.path.read_bytes())
    octets[HEADER_OCTETS + FRAME_OCTETS + 3] ^= 1
    file.path.write_bytes(octets)
    ((taken, count),) = found(tmp_path).journals
    assert count == len(RECORDS) - 1
    assert "journal_damaged" in capfd.readouterr().err
    taken.remove()
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.damaged"]


def test_one_that_was_removed_while_another_came_for_it_is_not_taken(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path, ID)
    taken: list[JournalFile | None] = []
    opened, came, removed = os.open, threading.Event(), threading.Event()

    def slow_open(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        if str(path).endswith(".journal"):
            came.set()
            removed.wait(30)
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", slow_open)
        other = threading.Thread(target=lambda: taken.append(JournalFile.take(file.path)))
        other.start()
        assert came.wait(30)
        patch.setattr(os, "open", opened)
        file.remove()
        removed.set()
        other.join()
    assert taken == [None]


def test_a_new_journal_that_somebody_caught_unlocked_is_made_again(tmp_path: Path) -> None:
    lock = fcntl.flock
    caught: list[bytes] = []

    def stolen(descriptor: int, how: int) -> None:
        if not caught:
            path = tmp_path / f"{ID}.journal"
            caught.append(path.read_bytes())
            path.unlink()
        lock(descriptor, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", stolen)
        file = JournalFolder(tmp_path, Bounds()).create(ID)
    assert caught == [b""]
    assert file.path.exists()
    append(file, record(1))
    file.close()


@contextmanager
def file_size_limit(octets: int) -> Iterator[None]:
    """No file of this process may grow above `octets` meanwhile (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_disk_has_no_room_for_leaves_what_was_there(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path, ID)
    append(file, record(1))
    with file_size_limit(file.end + 1000), pytest.raises(OSError, match="File too large"):
        append(file, record(2, b"x" * 5000))
    assert file.whole
    assert file.path.stat().st_size == file.end
    append(file, record(3))
    assert file.read(HEADER_OCTETS, 9, 9999).records == (record(1), record(3))
    file.close()


def test_after_a_sync_that_failed_nothing_on_the_disk_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile.create(tmp_path, ID)

    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output"):
        append(file, record(1))
    assert not file.whole
    assert file.path.stat().st_size == HEADER_OCTETS
    file.close()


@pytest.mark.parametrize(
    ("bounds", "own", "others", "free", "room"),
    [
        (Bounds(1000, 200), 0, 0, 10_000, 1000),
        (Bounds(1000, 200), 300, 0, 10_000, 700),
        (Bounds(1000, 200), 300, 500, 10_000, 200),
        (Bounds(1000, 200), 0, 0, 500, 300),
        (Bounds(1000, 200), 0, 0, 100, -100),
        (Bounds(1000, 200, moves_here=True), 0, 0, 1200, 500),
        (Bounds(1000, 200, moves_here=True), 300, 0, 900, 200),
        (Bounds(1000, 200, moves_here=True), 300, 300, 900, 50),
    ],
)
def test_a_journal_grows_within_its_size_and_above_the_disks_floor(
    bounds: Bounds, own: int, others: int, free: int, room: int
) -> None:
    assert bounds.room(own, others, free) == room
