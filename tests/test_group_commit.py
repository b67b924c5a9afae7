"""The group commit on a real Redis: what it promises when all goes well, and when nothing does."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.connection import open_redis
from proxy.queue.history import REWRITE_FROM
from proxy.queue.job import RelayJob, decode_envelope
from proxy.queue.scripts import load
from proxy.queue.watch import Demands
from tests.support.jobs import a_job, a_large_job
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.redis_wire import RedisWire
from tests.support.waiting import wait_until

Build = Callable[..., GroupCommit]


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Build]:
    """A maker of committers on the test's Redis, all closed at the end."""
    made: list[GroupCommit] = []

    def make(folder: Path = data_dir, patience: float = 10.0, **demands: Any) -> GroupCommit:
        store = open_redis(Settings(), folder, timeout=None)
        committer = GroupCommit(store, Demands(**demands), patience=patience)
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


def _queued(redis_server: RedisServer, stream: str = "outbound") -> list[str]:
    return [each.decode() for each in redis_server.client().lrange(keys.queue_key(stream), 0, -1)]


async def _ready(committer: GroupCommit) -> GroupCommit:
    await committer.start()
    await wait_until(lambda: not committer.unready, 60, "the store is ready")
    return committer


async def _first_refusal(committer: GroupCommit, make: Callable[[], RelayJob]) -> NotKept:
    for _ in range(1000):
        try:
            await committer.commit(make())
        except NotKept as refusal:
            return refusal
    raise AssertionError("never refused")


async def test_a_committed_message_is_a_job_in_its_queue(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    job = a_job(b"Subject: a\r\n\r\nbody \xff\r\n", stream="broadcasts")
    await committer.commit(job)
    client = redis_server.client()
    assert client.lrange(keys.queue_key("broadcasts"), 0, -1) == [job.id.encode()]
    fields = client.hgetall(keys.job_key(job.id))
    assert fields[b"body"] == job.body
    assert decode_envelope(fields[b"envelope"]) == job.envelope
    assert fields[b"status"] == b"queued"


async def test_messages_that_wait_together_are_kept_by_one_call(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    client = redis_server.client()
    before = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    jobs = [a_job() for _ in range(100)]
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    after = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - before == 1
    ids = [job.id.encode() for job in jobs]
    assert client.lrange(keys.queue_key("outbound"), 0, -1) == ids


async def test_a_kept_message_survives_a_killed_redis(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    jobs = [a_job() for _ in range(20)]
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    redis_server.kill()
    redis_server.start()
    client = redis_server.client()
    assert client.llen(keys.queue_key("outbound")) == 20
    assert all(client.exists(keys.job_key(job.id)) for job in jobs)


async def test_clients_wait_through_a_short_restart(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    redis_server.kill()
    waiting = asyncio.create_task(committer.commit(a_job()))
    await wait_until(lambda: committer.unready)
    redis_server.start()
    await waiting
    assert redis_server.client().llen(keys.queue_key("outbound")) == 1


async def test_when_redis_stays_away_clients_are_told_so(redis_server: RedisServer, build: Build):
    committer = await _ready(build(patience=1.0))
    redis_server.stop()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind in ("away", "unknown")
    await wait_until(lambda: committer.trouble)
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "away"
    assert told.value.text == "the mail store does not answer; try again later"
    redis_server.start()
    await wait_until(lambda: not committer.unready)
    await committer.commit(a_job())


async def test_a_message_kept_after_its_client_was_told_no_is_withdrawn(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(patience=1.0))
    redis_server.pause()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "unknown"
    redis_server.resume()
    await wait_until(lambda: not committer.unready)
    client = redis_server.client()
    assert client.llen(keys.queue_key("outbound")) == 0
    assert client.keys("rq:job:*") == []


async def test_a_large_message_travels_apart_from_small_ones(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    order: list[str] = []

    async def keep(name: str, job: Any) -> None:
        await committer.commit(job)
        order.append(name)

    large = [keep("large", a_large_job(3_000_000)) for _ in range(4)]
    await asyncio.gather(*large, *(keep("small", a_job()) for _ in range(50)))
    assert order.index("small") <= 1
    assert redis_server.client().llen(keys.queue_key("outbound")) == 54


async def test_a_batch_applied_though_its_reply_was_lost_is_confirmed_and_kept_once(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
):
    bad, folder = wire
    committer = await _ready(build(folder))
    bad.lose_replies()
    job = a_job()
    waiting = asyncio.create_task(committer.commit(job))
    await wait_until(lambda: bad.lost, what="the reply is lost")
    bad.mend()
    await waiting
    assert _queued(redis_server) == [job.id]


async def test_a_batch_that_arrives_after_its_clients_were_told_no_is_refused(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
):
    bad, folder = wire
    committer = await _ready(build(folder, patience=1.0))
    bad.hold_requests()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "unknown"
    assert bad.held
    bad.mend()
    await wait_until(lambda: not committer.unready)
    calls = redis_server.client().info("commandstats")["cmdstat_evalsha"]["calls"]
    await bad.deliver()
    await wait_until(
        lambda: redis_server.client().info("commandstats")["cmdstat_evalsha"]["calls"] > calls,
        what="Redis ran the late call",
    )
    assert _queued(redis_server) == []
    again = a_job()
    await committer.commit(again)
    assert _queued(redis_server) == [again.id]
    assert len(redis_server.client().keys("rq:job:*")) == 1


async def test_what_was_relayed_and_deleted_before_the_fate_is_asked_is_not_kept_again(
    redis_server: RedisServer, build: Build, wire: tuple[RedisWire, Path]
):
    bad, folder = wire
    committer = await _ready(build(folder))
    bad.lose_replies()
    job = a_job()
    waiting = asyncio.create_task(committer.commit(job))
    client = redis_server.client()
    await wait_until(lambda: client.lpop(keys.queue_key("outbound")), what="a worker takes it")
    client.delete(keys.job_key(job.id))
    bad.mend()
    await waiting
    assert _queued(redis_server) == []
    assert client.keys("rq:job:*") == []


async def test_a_message_that_a_worker_took_meanwhile_is_not_withdrawn(
    redis_server: RedisServer,
    build: Build,
    wire: tuple[RedisWire, Path],
    capfd: pytest.CaptureFixture[str],
):
    bad, folder = wire
    committer = await _ready(build(folder, patience=1.0))
    bad.lose_replies()
    job = a_job()
    with pytest.raises(NotKept):
        await committer.commit(job)
    client = redis_server.client()
    client.lpop(keys.queue_key("outbound"))
    client.hset(keys.job_key(job.id), "status", "started")
    bad.mend()
    await wait_until(lambda: not committer.unready)
    assert client.exists(keys.job_key(job.id))
    assert f"{job.id} goes out though its client was told 451" in capfd.readouterr().err


async def test_a_message_that_has_gone_before_it_could_be_withdrawn_is_said(
    wire: tuple[RedisWire, Path],
    redis_server: RedisServer,
    build: Build,
    capfd: pytest.CaptureFixture[str],
):
    bad, folder = wire
    committer = await _ready(build(folder, patience=1.0))
    bad.lose_replies()
    job = a_job()
    with pytest.raises(NotKept):
        await committer.commit(job)
    redis_server.client().flushdb()  # as a worker leaves it that has sent it
    redis_server.client().hset(committer._fates.fence.key, mapping={"epoch": 1, "batch": 1})
    bad.mend()
    await wait_until(lambda: not committer.unready)
    said = f"{job.id} may have gone out though its client was told 451"
    assert said in capfd.readouterr().err


async def test_two_committers_do_not_fence_each_other(redis_server: RedisServer, build: Build):
    one, other = await _ready(build()), await _ready(build())
    await asyncio.gather(*(c.commit(a_job()) for c in (one, other) for _ in range(20)))
    assert len(_queued(redis_server)) == 40


@pytest.mark.parametrize("command", ["SCRIPT FLUSH", "FLUSHALL"])
async def test_a_server_emptied_under_us_is_taken_up_anew(
    redis_server: RedisServer, build: Build, command: str
):
    committer = await _ready(build())
    redis_server.client().execute_command(*command.split())
    job = a_job()
    await committer.commit(job)
    assert _queued(redis_server) == [job.id]


async def test_every_message_confirmed_while_redis_is_killed_again_and_again_is_there(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    confirmed: list[str] = []
    refused = 0
    ending = asyncio.Event()

    async def client() -> None:
        nonlocal refused
        while not ending.is_set():
            job = a_job()
            try:
                await committer.commit(job)
            except NotKept:
                refused += 1
            else:
                confirmed.append(job.id)

    clients = [asyncio.create_task(client()) for _ in range(20)]
    for _ in range(4):
        seen = len(confirmed)
        await wait_until(lambda seen=seen: len(confirmed) > seen + 200, what="mail flows")
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(redis_server.start)
    seen = len(confirmed)
    await wait_until(lambda: len(confirmed) > seen + 50, what="mail flows again")
    ending.set()
    await asyncio.gather(*clients)
    there = _queued(redis_server)
    assert refused == 0
    assert set(confirmed) - set(there) == set()
    assert sorted(there) == sorted(confirmed)  # each once, and nothing else


async def test_after_a_stall_nothing_is_there_but_what_was_confirmed(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(patience=1.0))
    confirmed: list[str] = []

    async def client() -> None:
        for _ in range(20):
            job = a_job()
            try:
                await committer.commit(job)
            except NotKept:
                return
            confirmed.append(job.id)

    clients = [asyncio.create_task(client()) for _ in range(20)]
    await wait_until(lambda: len(confirmed) > 40)
    redis_server.pause()
    await wait_until(lambda: committer.trouble)
    redis_server.resume()
    await asyncio.gather(*clients)
    await wait_until(lambda: not committer.unready)
    assert sorted(_queued(redis_server)) == sorted(confirmed)


async def test_a_caller_that_is_cancelled_disturbs_nobody(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    redis_server.pause()
    first, gone, other = (asyncio.create_task(committer.commit(a_job())) for _ in range(3))
    await wait_until(lambda: committer._fates.flying)
    late = a_job()
    dropped = asyncio.create_task(committer.commit(late))
    await wait_until(lambda: len(committer._lanes))
    gone.cancel()
    dropped.cancel()
    redis_server.resume()
    await asyncio.gather(first, other)
    await committer.commit(a_job())
    assert late.id not in _queued(redis_server)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("appendfsync", "everysec", "appendfsync is everysec, needed is always"),
        ("appendonly", "no", "appendonly is no, needed is yes"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is yes"),
    ],
)
async def test_nothing_is_kept_in_a_store_that_could_lose_it(
    redis_server: RedisServer, build: Build, setting: str, value: str, reason: str
):
    client = redis_server.client()
    right = client.config_get(setting)[setting]
    client.config_set(setting, value)
    committer = build()
    await committer.start()
    await wait_until(lambda: committer.durability)
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "not_durable"
    assert told.value.text.startswith(f"the mail store is not durable: {reason}")
    assert reason in committer.unready
    assert _queued(redis_server) == []
    client.config_set(setting, right)
    await wait_until(lambda: not committer.unready)
    await committer.commit(a_job())


async def test_a_store_that_may_lose_mail_is_used_when_that_is_allowed(
    redis_server: RedisServer, build: Build, capfd: pytest.CaptureFixture[str]
):
    redis_server.client().config_set("appendfsync", "everysec")
    committer = await _ready(build(require_durable=False))
    await committer.commit(a_job())
    assert len(_queued(redis_server)) == 1
    assert "store_not_durable" in capfd.readouterr().err


async def test_a_store_that_stops_being_durable_is_found_out_when_it_comes_back(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    redis_server.kill()
    redis_server.options["appendfsync"] = "everysec"
    redis_server.start()
    refusal = await _first_refusal(committer, a_job)
    assert refusal.kind == "not_durable"
    assert _queued(redis_server) == []


async def test_a_server_that_hides_its_settings_is_not_trusted(
    redis_server: RedisServer, build: Build
):
    redis_server.client().execute_command("ACL", "SETUSER", "default", "-config")
    committer = build()
    await committer.start()
    await wait_until(lambda: committer.durability)
    assert "CONFIG is forbidden" in committer.unready


async def test_mail_over_the_memory_limit_is_refused_as_full(
    redis_server: RedisServer, build: Build, capfd: pytest.CaptureFixture[str]
):
    committer = await _ready(build(max_memory=1_500_000))
    await committer.commit(a_large_job(200_000))
    refusal = await _first_refusal(committer, lambda: a_large_job(200_000))
    assert refusal.kind == "full"
    words = r"the mail store is full: 1\.\d of 1\.5 MB are used \(redis\.max_memory\)"
    assert re.fullmatch(words + "; try again later", refusal.text)
    assert re.match(words, committer.unready)
    kept = _queued(redis_server)
    assert 3 <= len(kept) <= 8
    await committer.commit(a_job())  # what is small enough is taken
    redis_server.client().flushall()
    await wait_until(lambda: _fits(committer), what="there is room again")
    await wait_until(lambda: not committer.unready, what="it is said that there is room again")
    log = capfd.readouterr().err
    assert (log.count(" store_full "), log.count(" store_has_room ")) == (1, 1)


async def test_an_empty_store_holds_as_much_mail_as_it_is_asked_to(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(max_memory=800_000))  # less than an idle server uses
    await committer.commit(a_large_job(200_000))


async def test_a_store_that_is_full_when_we_start_is_said_to_be(
    redis_server: RedisServer, build: Build
):
    redis_server.client().set("franker:ballast", b"." * 2_000_000)
    committer = build(max_memory=1_500_000)
    await committer.start()
    await wait_until(lambda: "full: 2." in committer.unready, what="it is said")


async def _fits(committer: GroupCommit) -> bool:
    try:
        await committer.commit(a_large_job(200_000))
    except NotKept:
        return False
    return True


async def test_redis_own_limit_is_not_reached_so_that_mail_can_leave(
    redis_server: RedisServer, build: Build
):
    client = redis_server.client()
    client.config_set("maxmemory", 6_000_000)
    committer = await _ready(build())
    refusal = await _first_refusal(committer, lambda: a_large_job(100_000))
    assert refusal.kind == "full"
    client.set("franker:settled", "1")  # as the worker writes when it settles


async def test_a_foreign_key_in_the_way_refuses_mail_and_breaks_nothing_else(
    redis_server: RedisServer, build: Build
):
    client = redis_server.client()
    client.set(keys.queue_key("outbound"), "not a list")
    committer = await _ready(build())
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "unknown"
    client.delete(keys.queue_key("outbound"))
    await wait_until(lambda: not committer.unready)
    job = a_job()
    await committer.commit(job)
    assert _queued(redis_server) == [job.id]
    assert len(client.keys("rq:job:*")) == 1


async def test_a_server_without_its_replicas_refuses_and_nothing_is_there(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    redis_server.client().config_set("min-replicas-to-write", 1)
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "away"
    assert _queued(redis_server) == []


async def test_closing_keeps_what_waits_and_refuses_what_comes(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    redis_server.pause()
    waiting = [asyncio.create_task(committer.commit(a_job())) for _ in range(300)]
    await wait_until(lambda: committer._fates.flying and len(committer._lanes))
    closing = asyncio.create_task(committer.close())
    redis_server.resume()
    await asyncio.gather(closing, *waiting)
    assert len(_queued(redis_server)) == 300
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.text == "shutting down; try again later"


async def test_closing_while_redis_is_away_answers_those_who_wait(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    redis_server.pause()
    waiting = asyncio.create_task(committer.commit(a_job()))
    await wait_until(lambda: committer._fates.flying)
    late = asyncio.create_task(committer.commit(a_job()))
    await wait_until(lambda: len(committer._lanes))
    await committer.close(grace=0.1)
    redis_server.resume()
    for task, kind in ((waiting, "unknown"), (late, "away")):
        with pytest.raises(NotKept) as told:
            await task
        assert told.value.kind == kind


async def test_an_idle_committer_notices_that_redis_went(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    redis_server.stop()
    await wait_until(lambda: committer.unready == "the mail store does not answer")
    redis_server.start()
    await wait_until(lambda: not committer.unready)


async def test_an_idle_private_server_is_rid_of_the_history_in_its_file(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(data_dir=redis_server.data_dir))
    for _ in range(6):
        await committer.commit(a_large_job(4_000_000))
    client = redis_server.client()
    client.delete(*client.keys("rq:job:*"))
    assert client.info("persistence")["aof_current_size"] > 20_000_000
    await wait_until(lambda: client.info("persistence")["aof_current_size"] < 100_000)


def _rewrites_from(redis_server: RedisServer) -> int:
    return int(redis_server.client().config_get("auto-aof-rewrite-min-size").popitem()[1])


async def test_a_private_server_does_not_rewrite_its_file_while_all_of_it_waits(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(data_dir=redis_server.data_dir))
    for octets in (100_000_000, 50_000_000):
        for _ in range(octets // 4_000_000):
            await committer.commit(a_large_job(4_000_000))
        await wait_until(lambda: _rewrites_from(redis_server) > REWRITE_FROM)
    client = redis_server.client()
    assert REWRITE_FROM < client.info()["aof_current_size"] < _rewrites_from(redis_server)
    assert client.info()["aof_rewrites"] == 0
    client.delete(*client.keys("rq:job:*"))
    await wait_until(lambda: _rewrites_from(redis_server) == REWRITE_FROM)


async def test_a_private_server_does_not_rewrite_its_file_because_it_was_started_anew(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(data_dir=redis_server.data_dir))
    for _ in range(35):
        await committer.commit(a_large_job(4_000_000))
    await committer.close()
    redis_server.stop()
    redis_server.start()
    size = redis_server.client().info("persistence")["aof_current_size"]
    assert REWRITE_FROM < size < _rewrites_from(redis_server)


async def test_what_an_earlier_proxy_let_a_files_length_be_does_not_stay(
    redis_server: RedisServer, build: Build
):
    redis_server.client().config_set("auto-aof-rewrite-min-size", 6_000_000_000)
    await _ready(build(data_dir=redis_server.data_dir))
    await wait_until(lambda: _rewrites_from(redis_server) == REWRITE_FROM)


async def test_a_batch_number_is_applied_once(redis_server: RedisServer):
    client = redis_server.client()
    fence = keys.fence_key("one")
    client.hset(fence, mapping={"epoch": 1, "batch": 4})
    words = [1, fence, 1, 5, "now", keys.queue_name("outbound"), 1, "id", "{}", "body"]
    commit = load("commit").text
    assert client.eval(commit, *words) == 1
    assert client.eval(commit, *words) == 0
    assert client.eval(commit, *[4 if word == 5 else word for word in words]) == 0
    assert _queued(redis_server) == ["id"]


async def test_who_comes_late_in_a_stall_waits_no_longer_than_the_others(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(patience=3.0))
    loop = asyncio.get_running_loop()
    redis_server.pause()
    began = loop.time()
    first = asyncio.create_task(committer.commit(a_job()))
    await wait_until(lambda: loop.time() > began + 2)
    late = asyncio.create_task(committer.commit(a_job()))
    for task in (first, late):
        with pytest.raises(NotKept):
            await task
    assert loop.time() - began < 4.5  # 5 if it waited as long as the first
    redis_server.resume()


async def test_a_server_out_of_memory_is_full_and_has_taken_nothing(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    client = redis_server.client()
    client.config_set("maxmemory", 1)
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "full"
    client.config_set("maxmemory", 0)
    await wait_until(lambda: _fits(committer), what="there is room again")
    assert len(client.keys("rq:job:*")) == len(_queued(redis_server)) == 1
