"""What becomes of mail whose client heard no, or went, while the journal and Redis both had it."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.queue.batch import Batch, Waiting
from proxy.queue.commit import NotKept
from proxy.queue.fates import Fates
from proxy.queue.fence import Fence
from proxy.queue.job import encode_envelope
from proxy.queue.journal.file import JournalFile
from proxy.queue.journal.record import Record, pack_record
from proxy.queue.keys import queue_key
from proxy.queue.refusal import away
from tests.support.jobs import a_job, a_large_job
from tests.support.journaling import Committers, keep, moved, queued, ready
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Committers]:
    """A maker of committers with a journal in `data_dir`, all closed at the end."""
    committers = Committers(data_dir)
    yield committers
    await committers.close()


class Disk:
    """A disk that hangs at the next fsync until it is told what to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = os.fdatasync
        self._free = threading.Event()
        self._broken = False
        self.hangs = threading.Event()
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.hangs.set()
        assert self._free.wait(20)
        if self._broken:
            raise OSError(5, "Input/output error")
        self._real(descriptor)

    def goes_on(self) -> None:
        self._free.set()

    def breaks(self) -> None:
        self._broken = True
        self._free.set()


async def test_mail_that_redis_took_and_the_journal_could_not_is_withdrawn_when_its_client_heard_no(
    redis_server: RedisServer, build: Committers, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = await ready(build())
    disk = Disk(monkeypatch)
    redis_server.pause()
    flying = asyncio.create_task(committer.commit(a_job()))
    await wait_until(disk.hangs.is_set, what="it is being written to the journal")
    redis_server.resume()
    await wait_until(lambda: len(queued(redis_server)) == 1, what="Redis has it, too")
    before = committer._fates.fence.epoch
    await wait_until(lambda: committer._fates.fence.epoch != before, what="the fence is raised")
    assert not flying.done()
    disk.breaks()
    with pytest.raises(NotKept):
        await flying
    await wait_until(lambda: queued(redis_server) == [], what="it is withdrawn")


async def test_mail_whose_client_went_before_it_was_written_is_not_written(
    redis_server: RedisServer, build: Committers, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = await ready(build())
    disk = Disk(monkeypatch)
    redis_server.pause()
    await wait_until(lambda: committer._outage.lasts, what="it stands still, and nothing flies")
    stays = a_job()
    waiting = asyncio.create_task(committer.commit(stays))
    await wait_until(disk.hangs.is_set, what="it is being written to the journal")
    goes = asyncio.create_task(committer.commit(a_job()))
    journal = committer.journal
    assert journal is not None
    writer = journal._writer
    assert writer is not None
    await wait_until(lambda: len(writer._waiting) == 1)
    goes.cancel()
    await asyncio.wait([goes])
    disk.goes_on()
    await waiting
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [stays.id]


async def test_mail_of_a_batch_that_is_answered_after_its_client_heard_no_is_to_be_withdrawn() -> (
    None
):
    loop = asyncio.get_running_loop()
    told_no, gone, waits = (Waiting(a_job(), loop.create_future()) for _ in range(3))
    told_no.done.set_exception(away())
    gone.done.cancel()
    fates = Fates(Fence("0123456789abcdef"))
    fates.kept(Batch(1, (told_no, gone, waits)))
    assert waits.done.result() is None
    assert list(fates._regretted) == [told_no]
    with pytest.raises(NotKept):
        told_no.done.result()


def leave(data_dir: Path, name: str, count: int, size: int = 100, age: float = 0.0) -> list[str]:
    """Leave a dead process's journal of `count` messages, last written `age` seconds ago."""
    left = JournalFile.create(data_dir / "journal", name)
    jobs = [a_large_job(size) for _ in range(count)]
    for number, job in enumerate(jobs, 1):
        record = Record(number, job.id, job.stream, encode_envelope(job.envelope), job.body)
        left.append(b"".join(pack_record(left.mark, number, record)))
    left.close()
    written = left.path.stat().st_mtime - age
    os.utime(left.path, (written, written))
    return [job.id for job in jobs]


async def test_journals_of_several_dead_processes_move_the_oldest_first(
    redis_server: RedisServer, build: Committers, data_dir: Path
) -> None:
    middle = leave(data_dir, "1" * 16, 3, age=20)
    youngest = leave(data_dir, "2" * 16, 3, age=10)
    oldest = leave(data_dir, "3" * 16, 3, age=30)
    committer = await ready(build())
    (own,) = await keep(committer, 1)
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [*oldest, *middle, *youngest, own]


async def test_new_mail_does_not_wait_until_all_that_a_dead_process_left_is_moved(
    redis_server: RedisServer, build: Committers, data_dir: Path
) -> None:
    left = leave(data_dir, "1" * 16, 30, size=1_000_000)
    committer = build()
    await committer.start()
    (own,) = await keep(committer, 1)
    journal = committer.journal
    assert journal is not None
    assert journal.heritage > 10_000_000
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [*left, own]


async def test_a_journal_that_could_not_be_emptied_is_not_used_again_and_makes_no_copies(
    redis_server: RedisServer,
    build: Committers,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    committer = await ready(build(patience=1.0))
    redis_server.pause()
    ids = await keep(committer, 3)
    real, broken = os.fsync, True

    def sync(descriptor: int) -> None:
        if broken:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    assert "journal_failed" in capfd.readouterr().err
    ids += await keep(committer, 1)
    assert queued(redis_server) == ids
    redis_server.pause()
    with pytest.raises(NotKept):
        await committer.commit(a_job())
    redis_server.resume()
    broken = False
    await wait_until(lambda: not committer.unready)
    await wait_until(lambda: queued(redis_server) == ids, what="what was refused is not there")


async def test_what_the_disk_spoils_in_our_own_journal_is_said_and_holds_nothing_up(
    redis_server: RedisServer, build: Committers, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    committer = await ready(build())
    for spoiled in (1, 2):  # in the middle, and at the end
        redis_server.kill()
        ids = await keep(committer, 3)
        (path,) = (data_dir / "journal").glob("*.journal")
        at = path.read_bytes().index(ids[spoiled].encode())
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"#")
        redis_server.start()
        await wait_until(lambda: moved(committer))
        left = [each for place, each in enumerate(ids) if place != spoiled]
        assert queued(redis_server)[-2:] == left
        assert f"journal_damaged journal={path}" in capfd.readouterr().err


async def test_our_own_journal_is_moved_though_its_fence_is_taken_from_us_meanwhile(
    redis_server: RedisServer, build: Committers
) -> None:
    committer = await ready(build())
    redis_server.kill()
    jobs = [a_job() for _ in range(3000)]
    await asyncio.gather(*map(committer.commit, jobs))
    redis_server.start()
    client = redis_server.client()
    await wait_until(lambda: client.llen(queue_key("outbound")))
    client.hset(committer._fates.fence.key, "epoch", "another")
    assert client.llen(queue_key("outbound")) < 3000
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [job.id for job in jobs]


async def test_a_fence_outlives_a_year_in_which_nobody_reads_the_journal(
    redis_server: RedisServer, build: Committers
) -> None:
    committer = await ready(build())
    await keep(committer, 1)
    left = redis_server.client().ttl(committer._fates.fence.key)
    assert left > 366 * 86400
