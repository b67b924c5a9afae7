"""What an operator sees of the queue and does with it, on a real Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import redis.asyncio

from proxy.config import Settings
from proxy.mail.ids import new_id
from proxy.queue import by_command, inventory, keys
from proxy.queue.connection import open_redis
from proxy.queue.depths import read_depths
from proxy.queue.job import JobEnvelope, RelayJob, decode_envelope, encode_envelope
from proxy.queue.notes import log_by_hand
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

NOW = 1_795_169_296.0
MAIL = JobEnvelope("me@example.com", ("you@example.org",), NOW - 3600, attempts=7, waited=900.0)


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(Settings(), redis_server.data_dir, timeout=10)
    yield client
    await client.aclose()


class _Queue:
    """Puts jobs into the test's Redis in each state, as proxy and worker leave them."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()
        self._count = 0

    def _job(self, status: str, mail: JobEnvelope, stream: str, suffix: str = "") -> str:
        self._count += 1
        job_id = new_id(int((NOW - 3600) * 1000) + self._count) + suffix
        self.client.sadd(keys.QUEUES, keys.queue_key(stream))
        self.client.hset(
            keys.job_key(job_id),
            mapping={
                "status": status,
                "origin": keys.queue_name(stream),
                "envelope": encode_envelope(mail),
                "body": b"Subject: x\r\n\r\n.\r\n",
            },
        )
        return job_id

    def queued(self, mail: JobEnvelope = MAIL, stream: str = "outbound") -> str:
        job_id = self._job("queued", mail, stream)
        self.client.rpush(keys.queue_key(stream), job_id)
        return job_id

    def started(self, stream: str = "outbound") -> str:
        job_id = self._job("started", MAIL, stream)
        self.client.zadd(keys.started_key(stream), {f"{job_id}:w-1": "inf"})
        return job_id

    def deferred(self, due: float = NOW + 60, stream: str = "outbound") -> str:
        job_id = self._job("scheduled", MAIL, stream)
        self.client.zadd(keys.scheduled_key(stream), {job_id: due})
        self.client.zadd(keys.deferred_key(stream), {job_id: int((NOW - 3600) * 1000)})
        return job_id

    def dead(self, mail: JobEnvelope = MAIL, stream: str = "outbound") -> str:
        job_id = self._job("failed", mail, stream, "-1")
        self.client.hset(keys.job_key(job_id), mapping={"died": "x", "exc_info": "550 no"})
        self.client.zadd(keys.failed_key(stream), {job_id: "inf"})
        self.client.xadd(keys.results_key(job_id), {"a": "b"})
        return job_id

    def ids(self, stream: str = "outbound") -> list[str]:
        return [each.decode() for each in self.client.lrange(keys.queue_key(stream), 0, -1)]

    def mail(self, job_id: str) -> JobEnvelope:
        octets = self.client.hget(keys.job_key(job_id), "envelope")
        assert octets is not None
        return decode_envelope(octets)


@pytest.fixture
def queue(redis_server: RedisServer) -> _Queue:
    return _Queue(redis_server)


async def test_entries_tell_where_each_message_stands(queue: _Queue, store: redis.asyncio.Redis):
    first, second = queue.queued(), queue.queued()
    sending, late, lost = queue.started(), queue.deferred(NOW + 60), queue.dead()
    found = [entry async for entry in inventory.entries(store, ["outbound", "unused"])]
    assert [(entry.id, entry.state) for entry in found] == [
        (first, "queued"),
        (second, "queued"),
        (sending, "started"),
        (late, "deferred"),
        (lost, "dead"),
    ]
    assert found[0].envelope == MAIL
    assert found[0].size == len(b"Subject: x\r\n\r\n.\r\n")
    assert [entry.due for entry in found] == [None, None, None, NOW + 60, None]


async def test_entries_can_be_cut_short(queue: _Queue, store: redis.asyncio.Redis):
    ids = [queue.queued() for _ in range(5)]
    found = [entry.id async for entry in inventory.entries(store, ["outbound"], most=3)]
    assert found == ids[:3]
    assert [e async for e in inventory.entries(store, ["outbound"], most=0)] == []


async def test_more_entries_than_one_bite_all_come_in_order(
    queue: _Queue, store: redis.asyncio.Redis
):
    ids = [queue.queued() for _ in range(450)]
    assert [entry.id async for entry in inventory.entries(store, ["outbound"])] == ids


async def test_a_message_of_a_later_version_is_listed_without_its_envelope(
    queue: _Queue, store: redis.asyncio.Redis
):
    job_id = queue.queued()
    queue.client.hset(keys.job_key(job_id), "envelope", '{"v":99}')
    entry = await inventory.find(store, job_id)
    assert entry is not None
    assert (entry.id, entry.envelope) == (job_id, None)


async def test_streams_that_are_no_longer_configured_are_known_by_their_mail(
    queue: _Queue, store: redis.asyncio.Redis
):
    queue.queued(stream="old")
    queue.queued()
    queue.client.sadd(keys.QUEUES, "rq:queue:somebody-else")
    assert await inventory.known_streams(store) == ("old", "outbound")


@pytest.mark.parametrize("state", ["queued", "started", "deferred", "dead"])
async def test_one_message_is_found_in_any_state(
    queue: _Queue, store: redis.asyncio.Redis, state: str
):
    job_id = getattr(queue, state)()
    entry = await inventory.find(store, job_id)
    assert entry is not None
    assert (entry.id, entry.stream, entry.state) == (job_id, "outbound", state)
    assert await inventory.read_body(store, job_id) == b"Subject: x\r\n\r\n.\r\n"


async def test_what_is_not_there_is_not_found(store: redis.asyncio.Redis, queue: _Queue):
    assert await inventory.find(store, "nothing") is None
    assert await inventory.read_body(store, "nothing") is None
    assert await by_command.retry(store, ["nothing"], now=NOW) == {"nothing": "absent"}
    assert await by_command.delete(store, ["nothing"]) == {"nothing": "absent"}


@pytest.mark.parametrize("state", ["queued", "deferred", "dead"])
@pytest.mark.parametrize("origin", ["default", "franker", ""])
async def test_a_job_of_another_program_is_absent_and_stays_as_it_is(
    queue: _Queue, store: redis.asyncio.Redis, state: str, origin: str
):
    job_id = getattr(queue, state)()
    job = keys.job_key(job_id)
    queue.client.hset(job, "origin", origin)
    for key in ("queue", "scheduled", "failed"):
        ours, theirs = f"rq:{key}:{keys.queue_name('outbound')}", f"rq:{key}:{origin}"
        if queue.client.exists(ours):
            queue.client.rename(ours, theirs)
    before = {key: queue.client.dump(key) for key in queue.client.keys("*")}

    def judge(given: str, mail: JobEnvelope, body: bytes) -> RelayJob:
        return RelayJob(given, "bulk", mail, body)

    rerouted = {job_id: "absent" if state == "dead" else "not_dead"}
    assert await by_command.reroute(store, [job_id], judge) == rerouted
    assert await by_command.retry(store, [job_id], now=NOW) == {job_id: "absent"}
    queue.client.hdel(job, "envelope", "body")
    before[job.encode()] = queue.client.dump(job)
    assert await by_command.retry(store, [job_id], now=NOW) == {job_id: "absent"}
    assert await by_command.delete(store, [job_id]) == {job_id: "absent"}
    assert {key: queue.client.dump(key) for key in queue.client.keys("*")} == before


async def test_what_was_split_off_a_message_is_found_by_its_id(
    queue: _Queue, store: redis.asyncio.Redis
):
    lost = queue.dead()
    queue.dead()
    queue.deferred()
    assert [part.id for part in await inventory.parts(store, lost[:-2])] == [lost]


async def test_a_retried_dead_letter_goes_to_the_tail_with_a_new_clock(
    queue: _Queue, store: redis.asyncio.Redis
):
    waiting = queue.queued()
    mail = replace(MAIL, expires_at=MAIL.accepted_at + 900, replies={"you@example.org": "550 no"})
    lost = queue.dead(mail)
    assert await by_command.retry(store, [lost], now=NOW) == {lost: "retried"}
    assert queue.ids() == [waiting, lost]
    anew = queue.mail(lost)
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert anew.boot
    assert uptime + 880 < anew.expires_up <= uptime + 900
    assert replace(anew, boot="", expires_up=0.0) == replace(
        mail, accepted_at=NOW, attempts=0, waited=0.0, expires_at=NOW + 900
    )
    job = queue.client.hgetall(keys.job_key(lost))
    assert job[b"status"] == b"queued"
    assert not {b"died", b"exc_info"} & job.keys()
    assert not queue.client.exists(keys.failed_key("outbound"), keys.results_key(lost))


async def test_a_dead_letter_retried_twice_is_in_the_queue_once(
    queue: _Queue, store: redis.asyncio.Redis
):
    lost = queue.dead()
    await by_command.retry(store, [lost, lost], now=NOW)
    assert await by_command.retry(store, [lost], now=NOW) == {lost: "queued"}
    assert queue.ids() == [lost]


async def test_a_retried_deferred_message_keeps_its_clock(
    queue: _Queue, store: redis.asyncio.Redis
):
    late = queue.deferred()
    assert await by_command.retry(store, [late], now=NOW) == {late: "retried"}
    assert queue.ids() == [late]
    assert queue.mail(late) == MAIL
    assert not queue.client.exists(keys.scheduled_key("outbound"), keys.deferred_key("outbound"))


async def test_what_is_being_sent_is_neither_retried_nor_deleted(
    queue: _Queue, store: redis.asyncio.Redis
):
    sending = queue.started()
    assert await by_command.retry(store, [sending], now=NOW) == {sending: "sending"}
    assert await by_command.delete(store, [sending]) == {sending: "sending"}
    assert queue.client.exists(keys.job_key(sending))
    assert queue.ids() == []


async def _logged(
    store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str], count: int
) -> list[str]:
    """Return what a proxy logs of what commands have done: `count` lines, or more."""
    capfd.readouterr()
    said: list[str] = []

    async def all_is_said() -> bool:
        # Fetched is not written yet: who ends the reader in between loses the line.
        said.extend(capfd.readouterr().err.splitlines())
        return len(said) >= count and await _absent(store)

    reader = asyncio.create_task(log_by_hand(store, every=0.01))
    await wait_until(all_is_said, what="all notes are fetched, and logged")
    reader.cancel()
    await asyncio.wait([reader])
    return said + capfd.readouterr().err.splitlines()


async def _absent(store: redis.asyncio.Redis) -> bool:
    return not await store.exists(keys.BY_HAND)


async def test_what_is_retried_by_hand_is_in_the_proxys_log(
    queue: _Queue, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
):
    again = queue.dead()
    await by_command.retry(store, [again, "nothing"], now=NOW)
    (line,) = await _logged(store, capfd, 1)
    assert f" retried id={again} by=hand stream=outbound to=" in line


async def test_a_note_that_nobody_can_read_stops_no_other(
    queue: _Queue, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
):
    queue.client.rpush(keys.BY_HAND, b"\xff", b"[]", b'{"what": "retried"}')
    await by_command.delete(store, [queue.queued()])
    lines = await _logged(store, capfd, 4)
    assert [" notice " in line for line in lines] == [True, True, True, False]


async def test_deleted_messages_leave_nothing_but_a_log_line_and_a_count(
    queue: _Queue, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
):
    two = replace(MAIL, recipients=("a@example.org", "b@example.org"))
    ids = [queue.queued(two), queue.deferred(), queue.dead()]
    stays = queue.queued()
    assert await by_command.delete(store, ids) == dict.fromkeys(ids, "deleted")
    assert queue.ids() == [stays]
    left = {key.decode() for key in queue.client.keys("*")}
    assert left == {
        keys.QUEUES,
        keys.DISCARDED,
        keys.BY_HAND,
        keys.queue_key("outbound"),
        keys.job_key(stays),
    }
    (depth,) = await read_depths(store, ["outbound"], NOW)
    assert depth.discarded == 4
    lines = await _logged(store, capfd, 3)
    assert len(lines) == 3
    assert not queue.client.exists(keys.BY_HAND)
    assert f"discarded id={ids[0]} by=hand stream=outbound" in lines[0]
    assert "a@example.org" in lines[0]
    assert "b@example.org" in lines[0]


async def test_a_job_that_stands_nowhere_can_still_be_deleted(
    queue: _Queue, store: redis.asyncio.Redis
):
    lost = queue.queued()
    queue.client.delete(keys.queue_key("outbound"))
    assert await by_command.delete(store, [lost]) == {lost: "deleted"}
    assert not queue.client.exists(keys.job_key(lost))


async def test_a_rerouted_letter_stands_in_the_queue_that_was_chosen_and_nowhere_else(
    queue: _Queue, store: redis.asyncio.Redis
):
    job_id, waiting = queue.dead(), queue.queued()

    def judge(given: str, mail: JobEnvelope, body: bytes) -> RelayJob:
        return RelayJob(given, "bulk", replace(mail, rule="new"), b"anew " + body)

    answer = await by_command.reroute(store, [job_id, waiting, "none"], judge)
    assert answer == {job_id: "retried", waiting: "not_dead", "none": "absent"}
    assert queue.ids("bulk") == [job_id]
    assert queue.client.zcard(keys.failed_key("outbound")) == 0
    job = queue.client.hgetall(keys.job_key(job_id))
    assert job[b"origin"] == keys.queue_name("bulk").encode()
    assert job[b"body"] == b"anew Subject: x\r\n\r\n.\r\n"
    assert not {b"died", b"exc_info"} & job.keys()
    assert queue.mail(job_id).rule == "new"


async def test_a_letter_that_changed_while_it_was_judged_stays(
    queue: _Queue, store: redis.asyncio.Redis
):
    job_id = queue.dead()

    def judge(given: str, mail: JobEnvelope, body: bytes) -> RelayJob:
        queue.client.hset(keys.job_key(job_id), "envelope", b"another")
        return RelayJob(given, "bulk", mail, body)

    assert await by_command.reroute(store, [job_id], judge) == {job_id: "changed"}
    assert queue.ids("bulk") == []


async def test_the_words_of_a_judge_who_says_no_are_told(queue: _Queue, store: redis.asyncio.Redis):
    job_id = queue.dead()
    assert await by_command.reroute(store, [job_id], lambda *_: "no") == {job_id: "no"}
    assert queue.client.zcard(keys.failed_key("outbound")) == 1
