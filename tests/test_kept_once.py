"""Mail handed in again because nobody heard what became of it: kept once, on a real Redis."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Settings
from proxy.queue import inventory, keys
from proxy.queue import scripts as scripts_module
from proxy.queue.batch import Batch, Waiting
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.connection import open_redis
from proxy.queue.fates import Fates
from proxy.queue.fence import Fence
from proxy.queue.job import RelayJob, encode_envelope
from proxy.queue.journal.folder import Bounds
from proxy.queue.journal.record import Record
from proxy.queue.watch import Demands
from tests.support.jobs import a_job
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.redis_wire import RedisWire
from tests.support.waiting import wait_until

Build = Callable[..., GroupCommit]


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Build]:
    """A maker of committers, with a journal in `data_dir` if asked for, all closed at the end."""
    made: list[GroupCommit] = []

    def make(
        folder: Path = data_dir, patience: float = 10.0, *, journal: bool = False
    ) -> GroupCommit:
        store = open_redis(Settings(), folder, timeout=None)
        way = (data_dir, Bounds(disk_floor=0)) if journal else None
        committer = GroupCommit(store, Demands(), patience=patience, journal=way, stall=0.3)
        made.append(committer)
        return committer

    yield make
    for committer in made:
        await committer.close(grace=0.1)


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[tuple[RedisWire, Path]]:
    """A bad wire to the test's Redis, and the folder of its socket."""
    folder = new_data_dir()
    async with RedisWire(folder, redis_server.socket) as made:
        yield made, folder
    remove_data_dir(folder)


async def ready(committer: GroupCommit) -> GroupCommit:
    await committer.start()
    await wait_until(lambda: committer.durability, what="the store is ready")
    return committer


def once(what: str | None = None, **more: Any) -> RelayJob:
    """Return a message that is kept once under `what`."""
    job = a_job(**more)
    return replace(job, envelope=replace(job.envelope, once=what or secrets.token_hex(16)))


def again(job: RelayJob) -> RelayJob:
    """Return the same message, handed in a second time: it has another id."""
    return once(job.envelope.once)


def refused(owner: str = "", *, notify: bool = True, **more: Any) -> RelayJob:
    job = once(**more)
    replies = dict.fromkeys(job.envelope.recipients, "550 5.1.1 no")
    envelope = replace(job.envelope, refused=True, replies=replies, owner=owner, notify=notify)
    return replace(job, envelope=envelope)


def queued(redis_server: RedisServer, stream: str = "outbound") -> list[str]:
    found: list[bytes] = redis_server.client().lrange(keys.queue_key(stream), 0, -1)  # type: ignore[assignment]
    return [each.decode() for each in found]


def marks(redis_server: RedisServer) -> set[str]:
    found: list[bytes] = redis_server.client().zrange(keys.ONCE, 0, -1)  # type: ignore[assignment]
    return {each.decode() for each in found}


async def test_a_message_that_comes_again_is_kept_once_and_known(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    job = once()
    assert await committer.commit(job)
    assert not await committer.commit(again(job))
    assert queued(redis_server) == [job.id]
    assert len(redis_server.client().keys("rq:job:*")) == 1


async def test_a_part_of_what_was_kept_whole_is_known(
    redis_server: RedisServer, build: Build
) -> None:
    """Handed in again under other rules a message may be taken in parts, or refused in part."""
    committer = await ready(build())
    whole = once()
    assert await committer.commit(whole)
    assert not await committer.commit(once(f"{whole.envelope.once}-0123456789abcdef"))
    dead = refused()
    envelope = replace(dead.envelope, once=f"{whole.envelope.once}-fedcba9876543210")
    assert not await committer.commit(replace(dead, envelope=envelope))
    assert queued(redis_server) == [whole.id]
    assert redis_server.client().zcard(keys.failed_key("outbound")) == 0


async def test_parts_of_one_message_are_kept_each(redis_server: RedisServer, build: Build) -> None:
    committer = await ready(build())
    parts = [once(f"{'a' * 32}-{number:016x}") for number in range(3)]
    assert all([await committer.commit(each) for each in parts])
    assert queued(redis_server) == [each.id for each in parts]


async def test_both_in_one_batch_are_one(redis_server: RedisServer, build: Build) -> None:
    committer = await ready(build())
    job, plain = once(), a_job()
    others = [again(job), again(job)]
    kept = await asyncio.gather(*(committer.commit(each) for each in (job, plain, *others)))
    assert sorted(kept) == [False, False, True, True]
    there = queued(redis_server)
    assert plain.id in there
    assert len(there) == 2


async def test_it_is_known_after_it_was_relayed_and_by_another_process(
    redis_server: RedisServer, build: Build
) -> None:
    job = once()
    await (await ready(build())).commit(job)
    client = redis_server.client()
    client.lpop(keys.queue_key("outbound"))
    client.delete(keys.job_key(job.id))
    redis_server.kill()
    redis_server.start()
    assert not await (await ready(build())).commit(again(job))
    assert queued(redis_server) == []


async def test_a_mark_goes_when_the_client_has_heard(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    job, other = once(), once()
    await asyncio.gather(committer.commit(job), committer.commit(other))
    assert marks(redis_server) == {job.envelope.once, other.envelope.once}
    committer.heard(job.envelope.once)
    await wait_until(lambda: marks(redis_server) == {other.envelope.once})


async def test_only_the_newest_marks_stay(
    redis_server: RedisServer, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from proxy.queue import commit as commit_module

    text = scripts_module.load("commit").text.replace("MOST_ONCE = 100000", "MOST_ONCE = 3")
    sha = hashlib.sha1(text.encode()).hexdigest()
    monkeypatch.setattr(commit_module, "_COMMIT", scripts_module.Script(text, sha))
    committer = await ready(build())
    jobs = [once() for _ in range(5)]
    for job in jobs:
        await committer.commit(job)
    assert marks(redis_server) == {job.envelope.once for job in jobs[2:]}


async def test_it_is_kept_once_when_the_reply_was_lost_and_the_client_told_no(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
) -> None:
    bad, folder = wire
    committer = await ready(build(folder, patience=0.3))
    bad.lose_replies()
    job = once()
    with pytest.raises(NotKept):
        await committer.commit(job)
    bad.mend()
    await wait_until(lambda: not committer.unready)
    # It is not withdrawn: whoever was told no has it still, and hands it in again.
    assert queued(redis_server) == [job.id]
    assert not await committer.commit(again(job))
    assert queued(redis_server) == [job.id]


async def test_it_is_kept_once_when_it_never_arrived_and_the_client_was_told_no(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build(patience=0.3))
    redis_server.pause()
    job = once()
    with pytest.raises(NotKept):
        await committer.commit(job)
    redis_server.resume()
    await wait_until(lambda: not committer.unready)
    second = again(job)
    await committer.commit(second)
    assert len(queued(redis_server)) == 1


# Dead from the beginning.


async def test_refused_mail_is_a_dead_letter_at_once(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    job = refused("ann@example.com")
    assert await committer.commit(job)
    assert queued(redis_server) == []
    client = redis_server.client()
    assert client.zscore(keys.failed_key("outbound"), job.id) == float("inf")
    fields = client.hgetall(keys.job_key(job.id))
    assert fields[b"status"] == b"failed"
    assert fields[b"exc_info"] == b"you@example.org: 550 5.1.1 no"
    assert fields[b"died"]
    assert client.zscore(keys.untold_key("ann@example.com"), job.id)
    assert client.hget(keys.TOLD, "ann@example.com") == b"0"
    store = open_redis(Settings(), redis_server.data_dir, timeout=5)
    found = await inventory.find(store, job.id)
    await store.aclose()
    assert found is not None
    assert (found.state, found.envelope) == ("dead", job.envelope)


async def test_nobody_is_told_of_refused_mail_that_asked_for_silence(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    await committer.commit(refused("ann@example.com", notify=False))
    assert not redis_server.client().exists(keys.TOLD)


async def test_refused_mail_that_comes_again_is_one_dead_letter(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    job = refused()
    await committer.commit(job)
    second = refused()
    second = replace(second, envelope=replace(second.envelope, once=job.envelope.once))
    assert not await committer.commit(second)
    assert redis_server.client().zcard(keys.failed_key("outbound")) == 1


async def test_refused_mail_goes_through_the_journal(
    redis_server: RedisServer, build: Build
) -> None:
    redis_server.stop()
    committer = build(journal=True)
    await committer.start()
    job = refused("ann@example.com")
    await committer.commit(job)
    redis_server.start()
    await wait_until(lambda: committer.journal and not committer.journal.pending)
    client = redis_server.client()
    assert client.zscore(keys.failed_key("outbound"), job.id) == float("inf")
    assert client.zscore(keys.untold_key("ann@example.com"), job.id)


async def test_a_foreign_key_in_the_way_of_dead_letters_leaves_nothing_behind(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await ready(build())
    client = redis_server.client()
    client.set(keys.failed_key("outbound"), "foreign")
    with pytest.raises(NotKept):
        await committer.commit(refused())
    assert client.keys("rq:job:*") == []
    assert marks(redis_server) == set()
    client.delete(keys.failed_key("outbound"))
    await wait_until(lambda: not committer.unready)
    await committer.commit(refused())
    assert client.zcard(keys.failed_key("outbound")) == 1


def test_a_record_of_the_journal_says_of_itself_what_its_message_said() -> None:
    for job in (a_job(), once(), refused("ann@example.com")):
        envelope = encode_envelope(job.envelope)
        record = Record(1, job.id, job.stream, envelope, job.body)
        assert bool(record.apart) == bool(job.envelope.once)
    assert not Record(1, "id", "outbound", b'{"one":', b"").apart


async def test_what_will_be_handed_in_again_is_never_regretted() -> None:
    """Withdrawn, its mark would stay, and the second one would be taken for known."""
    fates = Fates(Fence("0" * 16))
    loop = asyncio.get_running_loop()
    for job, regretted in ((once(), 0), (refused(), 0), (a_job(), 1)):
        waiting = Waiting(job, loop.create_future())
        fates.regret(Batch(1, (waiting,)))
        assert isinstance(waiting.done.exception(), NotKept)
        assert fates.regretted == regretted
