"""The journal: no client is refused while Redis is away, and nothing enters Redis twice."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.queue import keys
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.job import encode_envelope
from proxy.queue.journal.file import JournalFile
from proxy.queue.journal.folder import Bounds
from proxy.queue.journal.record import Record, pack_record
from tests.support.jobs import a_job, a_large_job
from tests.support.journaling import Committers, in_journal, keep, moved, queued, ready
from tests.support.keeper import Keeper
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.redis_wire import RedisWire
from tests.support.waiting import wait_for, wait_until

Build = Callable[..., GroupCommit]


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Committers]:
    """A maker of committers with a journal in `data_dir`, all closed at the end."""
    committers = Committers(data_dir)
    yield committers
    await committers.close()


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[tuple[RedisWire, Path]]:
    """A bad wire to the test's Redis, and the folder of its socket."""
    folder = new_data_dir()
    async with RedisWire(folder, redis_server.socket) as made:
        yield made, folder
    remove_data_dir(folder)


# When it takes mail.


async def test_mail_is_kept_while_redis_is_dead_and_moved_in_order_when_it_is_back(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    before = await keep(committer, 3)
    redis_server.kill()
    meanwhile = await keep(committer, 5)
    assert in_journal() == 5
    redis_server.start()
    await wait_until(lambda: moved(committer))
    after = await keep(committer, 3)
    assert queued(redis_server) == before + meanwhile + after
    assert in_journal() == 0


async def test_mail_is_kept_by_a_process_that_never_saw_redis(
    redis_server: RedisServer, build: Build
) -> None:
    redis_server.stop()
    committer = build()
    await committer.start()
    ids = await keep(committer, 3)
    assert committer.unready == ""
    redis_server.start()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids


async def test_mail_is_kept_while_redis_stands_still_and_its_clients_wait_no_longer_than_the_stall(
    redis_server: RedisServer, build: Build
) -> None:
    stall = 2.0  # far more than the disk takes for a message on a busy machine
    committer = await ready(build(stall=stall))
    loop = asyncio.get_running_loop()
    redis_server.pause()
    began = loop.time()
    flying = asyncio.create_task(committer.commit(a_job()))
    await wait_until(lambda: committer._fates.flying)
    late = asyncio.create_task(committer.commit(a_job()))
    await asyncio.gather(flying, late)
    assert stall <= loop.time() - began < 2 * stall
    began = loop.time()
    await keep(committer, 3)
    assert loop.time() - began < stall
    assert committer.unready == ""
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    assert len(queued(redis_server)) == len(set(queued(redis_server))) == 5


async def test_mail_is_kept_while_redis_reads_its_file(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    before = await keep(committer, 20)
    redis_server.kill()
    redis_server.options["key-load-delay"] = "100000"
    starting = asyncio.create_task(asyncio.to_thread(redis_server.start))
    meanwhile = await keep(committer, 3)
    assert not starting.done()
    assert in_journal() == 3
    await starting
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == before + meanwhile


async def test_mail_is_kept_while_redis_has_no_memory_left(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    client = redis_server.client()
    client.config_set("maxmemory", 1)
    ids = await keep(committer, 3)
    assert in_journal() == 3
    assert queued(redis_server) == []
    await wait_until(lambda: committer._watch.server_is_short, what="its limit is seen")
    ids += await keep(committer, 3)
    assert committer.unready == ""
    client.config_set("maxmemory", 0)
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids


async def test_mail_goes_to_the_journal_when_the_servers_own_limit_is_seen_first(
    redis_server: RedisServer, build: Build
) -> None:
    client = redis_server.client()
    client.config_set("maxmemory", 6_000_000)
    committer = await ready(build())
    jobs = [a_large_job(100_000) for _ in range(80)]
    for job in jobs:
        await committer.commit(job)
    assert in_journal() > 20
    client.set("franker:settled", "1")  # as the worker writes when it settles
    client.config_set("maxmemory", 0)
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [job.id for job in jobs]


async def test_our_own_limit_still_refuses_mail_as_full(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build(max_memory=1_000))
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "full"
    assert in_journal() == 0


async def test_a_store_that_is_not_durable_is_no_reason_for_the_journal(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    redis_server.kill()
    ids = await keep(committer, 2)
    redis_server.options["appendfsync"] = "everysec"
    redis_server.start()
    await wait_until(lambda: committer.trouble, what="it is seen")
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "not_durable"
    assert (queued(redis_server), in_journal()) == ([], 2)
    redis_server.client().config_set("appendfsync", "always")
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids


async def test_mail_is_refused_as_full_when_the_journal_is(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build(bounds=Bounds(max_size=250_000, disk_floor=0)))
    redis_server.kill()
    jobs = [a_large_job(100_000) for _ in range(2)]
    for job in jobs:
        await committer.commit(job)
    with pytest.raises(NotKept) as told:
        await committer.commit(a_large_job(100_000))
    assert told.value.kind == "full"
    assert (
        told.value.text == "the mail store takes no mail and its journal is full; try again later"
    )
    redis_server.start()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [job.id for job in jobs]
    redis_server.kill()
    await committer.commit(a_large_job(100_000))


async def test_the_floor_of_the_disk_is_kept(redis_server: RedisServer, build: Build) -> None:
    committer = await ready(build(bounds=Bounds(disk_floor=1 << 60)))
    redis_server.kill()
    with pytest.raises(NotKept):
        await committer.commit(a_job())
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "full"
    await wait_until(lambda: committer.unready, what="it is said that no mail can be kept")
    assert committer.unready.startswith("the mail store does not answer; the disk of the journal")
    assert "(journal.disk_floor)" in committer.unready


async def test_a_journal_that_cannot_be_made_is_said_and_mail_refused(
    redis_server: RedisServer, build: Build, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data_dir / "journal").write_text("a file in the way")
    committer = await ready(build(patience=1.0))
    await keep(committer, 1)
    redis_server.pause()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "unknown"
    redis_server.resume()
    assert "journal_failed" in capfd.readouterr().err
    await wait_until(lambda: len(queued(redis_server)) == 1, what="the other is withdrawn")


async def test_what_the_disk_did_not_take_is_refused_and_does_not_enter_later(
    redis_server: RedisServer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = await ready(build())
    redis_server.pause()
    real, broken = os.fdatasync, True

    def sync(descriptor: int) -> None:
        if broken:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    for _ in range(2):
        with pytest.raises(NotKept) as told:
            await committer.commit(a_job())
        assert told.value.kind == "away"
    broken = False
    with pytest.raises(NotKept):  # after a failed fsync nothing is believed any more
        await committer.commit(a_job())
    redis_server.resume()
    await wait_until(lambda: not committer.unready)
    await wait_until(lambda: moved(committer))
    (last,) = await keep(committer, 1)
    assert queued(redis_server) == [last]


# Once, whatever became of the batch in flight.


async def test_a_batch_that_redis_applied_before_it_stood_still_is_not_moved(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    committer = await ready(build(folder))
    bad.swallow_replies()
    jobs = [a_job() for _ in range(3)]
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    ids = [job.id for job in jobs]
    assert queued(redis_server) == ids
    assert in_journal() == 3
    ids += await keep(committer, 2)
    bad.mend()
    bad.cut()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids


async def test_a_batch_that_was_relayed_and_deleted_meanwhile_is_not_moved(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    committer = await ready(build(folder))
    bad.swallow_replies()
    await keep(committer, 1)
    client = redis_server.client()
    client.delete(keys.queue_key("outbound"), *client.keys("rq:job:*"))
    bad.mend()
    bad.cut()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == []
    assert client.keys("rq:job:*") == []


async def test_a_batch_that_arrives_after_it_was_moved_from_the_journal_is_refused(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    committer = await ready(build(folder))
    bad.hold_requests()
    ids = await keep(committer, 3)
    assert bad.held
    assert queued(redis_server) == []
    bad.mend()
    bad.cut()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids
    await run_late(redis_server, bad)
    assert queued(redis_server) == ids
    ids += await keep(committer, 1)
    assert queued(redis_server) == ids


async def test_a_batch_that_arrives_before_the_fence_is_raised_counts(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    committer = await ready(build(folder))
    bad.hold_requests()
    ids = await keep(committer, 3)
    await run_late(redis_server, bad)
    assert queued(redis_server) == ids[:1]
    bad.mend()
    bad.cut()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids


async def run_late(redis_server: RedisServer, wire: RedisWire) -> None:
    """Deliver what the wire holds, and return when Redis has run it."""
    client = redis_server.client()
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    await wire.deliver()
    await wait_until(
        lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] > calls,
        what="Redis ran the late call",
    )


async def test_a_late_answer_on_the_same_connection_is_understood(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    for _ in range(3):
        redis_server.pause()
        await asyncio.gather(*(committer.commit(a_job()) for _ in range(20)))
        redis_server.resume()
        await wait_until(lambda: moved(committer))
    there = queued(redis_server)
    assert len(there) == len(set(there)) == 60


async def test_a_drain_whose_answers_are_lost_moves_each_message_once(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    committer = await ready(build(folder))
    redis_server.kill()
    jobs = [a_job() for _ in range(2000)]  # more than is moved between two looks
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    redis_server.start()
    client = redis_server.client()
    for size in (1, 201):
        await wait_until(lambda size=size: client.llen(keys.queue_key("outbound")) >= size)
        bad.lose_replies()
        await wait_until(lambda: bad.lost)
        bad.lost = 0
        bad.mend()
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == [job.id for job in jobs]


async def test_a_server_emptied_during_the_drain_is_taken_up_anew(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    redis_server.pause()
    (first,) = await keep(committer, 1)
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    redis_server.client().flushall()
    ids = await keep(committer, 2)
    assert first not in queued(redis_server)
    assert queued(redis_server) == ids


async def test_a_client_that_goes_away_before_the_journal_has_its_mail_leaves_nothing(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    redis_server.pause()
    gone, stays = (asyncio.create_task(committer.commit(a_job())) for _ in range(2))
    await wait_until(lambda: committer._fates.flying)
    gone.cancel()
    await stays
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    # Redis had been given both when it stood still: what it applied is withdrawn.
    assert len(queued(redis_server)) == 1


async def test_mail_that_comes_during_the_drain_goes_behind_it_and_the_drain_ends(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    kept: list[str] = []
    ending = asyncio.Event()

    async def client() -> None:
        while not ending.is_set():
            job = a_job()
            await committer.commit(job)
            kept.append(job.id)

    async def more(count: int) -> None:
        wanted = len(kept) + count
        await wait_until(lambda: len(kept) >= wanted)

    clients = [asyncio.create_task(client()) for _ in range(20)]
    for stop in (redis_server.pause, redis_server.kill):
        await more(100)
        stop()
        await wait_until(lambda: in_journal() > 500, what="mail flows on")
        (redis_server.resume if stop == redis_server.pause else redis_server.start)()
        await wait_until(lambda: moved(committer), what="the journal is empty under load")
    await more(100)
    ending.set()
    await asyncio.gather(*clients)
    assert queued(redis_server) == kept


async def test_large_mail_moves_too(redis_server: RedisServer, build: Build) -> None:
    committer = await ready(build())
    redis_server.kill()
    jobs = [a_large_job(3_000_000), a_job(), a_large_job(10_000_000), a_job(stream="broadcasts")]
    for job in jobs:
        await committer.commit(job)
    redis_server.start()
    await wait_until(lambda: moved(committer))
    client = redis_server.client()
    assert queued(redis_server) == [job.id for job in jobs[:3]]
    assert queued(redis_server, "broadcasts") == [jobs[3].id]
    for job in jobs:
        assert client.hget(keys.job_key(job.id), "body") == job.body


async def test_an_error_of_the_script_moves_nothing_and_loses_nothing(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    redis_server.kill()
    ids = await keep(committer, 3)
    redis_server.start()
    client = redis_server.client()
    await wait_until(lambda: moved(committer))
    client.rename(keys.queue_key("outbound"), "kept")
    client.set(keys.queue_key("outbound"), "not a list")
    redis_server.pause()
    late = await keep(committer, 2)
    redis_server.resume()
    await wait_until(lambda: "WRONGTYPE" in str(client.info("errorstats")), what="it was tried")
    assert in_journal() == 2
    client.rename("kept", keys.queue_key("outbound"))
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids + late


# From process to process.


async def test_closing_while_redis_is_away_keeps_what_waits_for_the_next_process(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build(stall=60.0, patience=61.0))
    redis_server.pause()
    jobs = [a_job() for _ in range(2)]
    waiting = [asyncio.create_task(committer.commit(jobs[0]))]
    await wait_until(lambda: committer._fates.flying)
    waiting.append(asyncio.create_task(committer.commit(jobs[1])))
    await wait_until(lambda: len(committer._lanes))
    await committer.close(grace=0.2)
    await asyncio.gather(*waiting)
    redis_server.resume()
    heir = await ready(build())
    await wait_until(lambda: moved(heir))
    assert queued(redis_server) == [job.id for job in jobs]


async def test_an_orderly_end_leaves_neither_file_nor_fence(
    redis_server: RedisServer, build: Build, data_dir: Path
) -> None:
    committer = await ready(build())
    redis_server.pause()
    await keep(committer, 2)
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    await committer.close()
    assert list((data_dir / "journal").iterdir()) == []
    assert redis_server.client().keys("franker:commit:*") == []


async def test_a_kill_between_drain_and_truncation_makes_no_copies(
    redis_server: RedisServer, build: Build, data_dir: Path
) -> None:
    committer = await ready(build())
    redis_server.pause()
    ids = await keep(committer, 10)
    (path,) = (data_dir / "journal").iterdir()
    before = path.read_bytes()
    redis_server.resume()
    await wait_until(lambda: moved(committer))
    ids += await keep(committer, 1)
    # As it would stand there: nothing was truncated, and the process is gone.
    (data_dir / "journal" / "left.journal").write_bytes(before)
    heir = await ready(build())
    await wait_until(lambda: moved(heir) and not (data_dir / "journal" / "left.journal").exists())
    assert queued(redis_server) == ids
    assert in_journal() == 0


async def test_mail_of_a_dead_process_goes_before_that_of_its_heir(
    redis_server: RedisServer, build: Build, data_dir: Path
) -> None:
    redis_server.stop()
    dead = Keeper(data_dir, data_dir)
    dead.until_more(1500)
    dead.kill()
    heir = build()
    await heir.start()
    later = [asyncio.create_task(heir.commit(a_job())) for _ in range(10)]
    await asyncio.to_thread(redis_server.start)
    await asyncio.gather(*later)
    await wait_until(lambda: moved(heir))
    there = queued(redis_server)
    assert len(there) == len(set(there))
    told = set(dead.kept)
    assert [each for each in there if each in told] == dead.kept
    assert not told & set(there[-10:])
    assert [path.name for path in (data_dir / "journal").iterdir()] == [f"{heir_id(heir)}.journal"]
    await wait_until(
        lambda: redis_server.client().keys("franker:commit:*") == [fence_of(heir)],
        what="the fence of the dead is removed",
        timeout=40,
    )


def heir_id(committer: GroupCommit) -> str:
    return committer._fates.fence.key.rpartition(":")[2]


def fence_of(committer: GroupCommit) -> bytes:
    return committer._fates.fence.key.encode()


async def test_a_batch_in_flight_of_a_killed_process_is_moved_by_its_heir_if_it_was_not_applied(
    redis_server: RedisServer, build: Build, data_dir: Path, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    dead = Keeper(folder, data_dir, sessions=4)
    await asyncio.to_thread(dead.until_more, 20)
    bad.hold_requests()
    await asyncio.to_thread(dead.until_more, 20)
    dead.kill()
    bad.mend()
    told = dead.kept
    heir = await ready(build())
    await wait_until(lambda: moved(heir))
    there = queued(redis_server)
    assert [each for each in there if each in set(told)] == told
    await run_late(redis_server, bad)
    assert queued(redis_server) == there


async def test_a_batch_in_flight_of_a_killed_process_is_left_by_its_heir_if_it_was_applied(
    redis_server: RedisServer, build: Build, data_dir: Path, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    dead = Keeper(folder, data_dir, sessions=4)
    await asyncio.to_thread(dead.until_more, 20)
    bad.swallow_replies()
    await asyncio.to_thread(dead.until_more, 20)
    dead.kill()
    heir = await ready(build())
    await wait_until(lambda: moved(heir))
    there = queued(redis_server)
    assert len(there) == len(set(there))
    assert [each for each in there if each in set(dead.kept)] == dead.kept


async def test_a_process_killed_when_redis_has_taken_its_journal_and_it_does_not_know_yet(
    redis_server: RedisServer, build: Build, data_dir: Path, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    redis_server.kill()
    dead = Keeper(folder, data_dir, sessions=4)
    await asyncio.to_thread(dead.until_more, 300)
    bad.swallow_replies(once_sent=b"franker-outbound")
    await asyncio.to_thread(redis_server.start)
    await wait_until(lambda: queued(redis_server), what="a part of it is moved")
    dead.kill()
    heir = await ready(build())
    await wait_until(lambda: moved(heir))
    there = queued(redis_server)
    assert len(there) == len(set(there))
    assert [each for each in there if each in set(dead.kept)] == dead.kept


@pytest.mark.parametrize("change", ["epoch", "SCRIPT FLUSH"])
async def test_a_drain_goes_on_after_the_fence_or_the_scripts_were_lost(
    redis_server: RedisServer, build: Build, data_dir: Path, change: str
) -> None:
    left = JournalFile.create(data_dir / "journal", "0123456789abcdef")
    jobs = [a_job() for _ in range(4000)]
    for number, job in enumerate(jobs):
        octets = encode_envelope(job.envelope)
        record = Record(number + 1, job.id, job.stream, octets, job.body)
        left.append(b"".join(pack_record(left.mark, record.number, record)))
    left.close()
    heir = build()
    await heir.start()
    client = redis_server.client()
    await wait_until(lambda: client.llen(keys.queue_key("outbound")))
    if change == "epoch":
        client.hset(keys.fence_key("0123456789abcdef"), "epoch", "another")
    else:
        client.script_flush()
    assert client.llen(keys.queue_key("outbound")) < 4000
    await wait_until(lambda: moved(heir))
    assert queued(redis_server) == [job.id for job in jobs]


async def test_two_processes_share_a_folder_and_do_not_touch_each_others_journal(
    redis_server: RedisServer, build: Build
) -> None:
    one, other = await ready(build()), await ready(build())
    redis_server.kill()
    ids = await keep(one, 3)
    others = await keep(other, 3)
    redis_server.start()
    await wait_until(lambda: moved(one) and moved(other))
    there = queued(redis_server)
    assert sorted(there) == sorted(ids + others)
    assert [each for each in there if each in ids] == ids


async def test_processes_killed_again_and_again_around_a_redis_that_comes_and_goes_lose_nothing(
    redis_server: RedisServer, data_dir: Path
) -> None:
    chance = random.Random(20261120)
    told: list[str] = []
    keeper = Keeper(data_dir, data_dir)
    paused = False
    for _ in range(12):
        await asyncio.to_thread(keeper.until_more, chance.randrange(1, 400))
        match chance.choice(["kill keeper", "kill redis", "pause redis"]):
            case "kill keeper":
                keeper.kill()
                told += keeper.kept
                keeper = Keeper(data_dir, data_dir)
            case "kill redis" if redis_server.running:
                redis_server.kill()
                paused = False
            case "pause redis" if redis_server.running and not paused:
                redis_server.pause()
                paused = True
            case _ if paused:
                redis_server.resume()
                paused = False
            case _:
                await asyncio.to_thread(redis_server.start)
    await asyncio.to_thread(keeper.until_more, 10)
    if paused:
        redis_server.resume()
    if not redis_server.running:
        await asyncio.to_thread(redis_server.start)
    await asyncio.to_thread(keeper.until_more, 2000)
    assert keeper.refused == []
    keeper.end()
    told += keeper.kept
    folder = data_dir / "journal"
    before = set(folder.iterdir())  # what was not moved when it ended, too
    last = Keeper(data_dir, data_dir, sessions=0)
    wait_for(lambda: not before & set(folder.iterdir()), what="only its own is there")
    last.end()
    there = queued(redis_server)
    assert len(there) == len(set(there)), "copies"
    wanted = set(told)
    assert [each for each in there if each in wanted] == told
