"""Workers that live, die, and are taken for dead; what is suspended; who may hold connections."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from proxy.config import Settings
from proxy.queue import keys
from tests.support import claiming
from tests.support.mail_queue import (
    claim_all,
    claims_on,
    dead,
    job,
    put,
    queued,
    scheduled,
    started,
)
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from worker.claims import Settlement
from worker.claims.identity import Registration
from worker.claims.liveness import BEAT_S, DEAD_AFTER_S, SAFE_S, Observer
from worker.claims.process import has_ended, identity
from worker.claims.scripts import REAP


def _watch(observer: Observer, times: list[float], counters: dict[str, int]) -> list[str]:
    found: list[str] = []
    for now in times:
        found = observer.observe(now, counters)
    return found


def test_a_counter_that_stands_for_eight_seconds_means_death() -> None:
    observer = Observer()
    assert _watch(observer, [at * 0.5 for at in range(16)], {"w": 4}) == []
    assert observer.observe(8.0, {"w": 4}) == ["w"]


def test_a_counter_that_moves_means_life() -> None:
    observer = Observer()
    for at in range(100):
        assert observer.observe(at * 0.5, {"w": at // 10}) == []


def test_time_in_which_redis_did_not_answer_kills_nobody() -> None:
    observer = Observer()
    observer.observe(0.0, {"w": 1})
    assert observer.observe(3600.0, {"w": 1}) == []
    assert observer.observe(7200.0, {"w": 1}) == []


def test_a_clock_that_runs_backwards_kills_nobody() -> None:
    observer = Observer()
    assert _watch(observer, [1e9 - at for at in range(50)], {"w": 1}) == []


def test_a_worker_first_seen_has_all_its_time_before_it() -> None:
    observer = Observer()
    _watch(observer, [at * 0.5 for at in range(15)], {"old": 1})
    assert observer.observe(8.0, {"old": 1, "new": 1}) == ["old"]
    assert observer.observe(8.5, {"new": 1}) == []


def test_no_dot_is_sent_when_others_may_take_the_worker_for_dead() -> None:
    assert SAFE_S + 1 < DEAD_AFTER_S
    assert DEAD_AFTER_S + 3 * BEAT_S < 10


def test_this_process_has_not_ended() -> None:
    assert not has_ended(identity())


def test_a_process_that_ended_is_known_to_have_ended() -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from worker.claims.process import identity; print(identity())",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        told = process.stdout.readline().strip()
    assert has_ended(told)


def test_another_process_with_the_same_number_is_not_that_process() -> None:
    place, _, _started = identity().rpartition(" ")
    assert has_ended(f"{place} 1")


@pytest.mark.parametrize("other", ["", "nonsense", "boot pid:[1] 1 1"])
def test_a_process_elsewhere_is_never_known_to_have_ended(other: str) -> None:
    assert not has_ended(other)


async def test_messages_of_a_killed_worker_are_back_at_the_head_at_once_on_the_same_host(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client = redis_server.client()
    ids = put(client, 6)
    process = claiming.start(redis_server.data_dir, 4, 2)
    try:
        assert queued(client) == ids[4:]
    finally:
        claiming.end(process)
    began = time.monotonic()
    async with claims_on(redis_server.data_dir) as claims:
        got = await claim_all(claims, 6)
        assert time.monotonic() - began < DEAD_AFTER_S
        assert [claim.id for claim in got] == ids
        assert [bool(claim.dot) for claim in got] == [True, True, False, False, False, False]
        assert client.hlen("franker:workers") == client.scard("rq:workers") == 1
    assert "worker_reaped" in capfd.readouterr().err


@pytest.mark.slow
async def test_messages_of_a_worker_killed_on_another_host_are_back_within_ten_seconds(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 3)
    process = claiming.start(redis_server.data_dir, 2, 1, far=True)
    async with claims_on(redis_server.data_dir) as claims:
        assert len(await claim_all(claims, 1)) == 1
        claiming.end(process)
        began = time.monotonic()
        await wait_until(lambda: queued(client) == ids[:2], 15)
        took = time.monotonic() - began
        assert SAFE_S < took < 10
        got = await claim_all(claims, 2)
        assert [claim.dot for claim in got] == [("you@example.net",), ()]
        assert [claim.envelope.attempts for claim in got] == [0, 0]
        await wait_until(lambda: claims.share == 10)


@pytest.mark.slow
async def test_a_worker_stopped_for_long_is_reaped_and_refused_and_goes_on_under_a_new_name(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client, 1)
    process = claiming.start(redis_server.data_dir, 1, 1, far=True)
    try:
        [old_name] = [each for each in client.smembers("rq:workers") if b".9." in each]
        async with claims_on(redis_server.data_dir) as claims:
            os.kill(process.pid, signal.SIGSTOP)
            [claim] = await claim_all(claims, 1)
            assert claim.dot == ("you@example.net",)
            os.kill(process.pid, signal.SIGCONT)
            answer = await asyncio.to_thread(claiming.ask, process)
            assert answer[:2] == ["False", "False"]
            assert old_name.decode() != f"rq:worker:{answer[3]}"
            assert started(client) == [claim.id]
            assert job(client, claim.id)["dot"] == b'["you@example.net"]'
            assert client.hlen("franker:workers") == 2
            assert await claims.settle(claim, Settlement("gone"))
    finally:
        claiming.end(process)


async def test_a_worker_taken_for_dead_has_its_late_marks_and_settles_refused(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 2)
    async with claims_on(redis_server.data_dir) as claims:
        first, second = await claim_all(claims, 2)
        name = claims.name
        incarnation = first.execution.partition("-")[0]
        await claims._living.ask(REAP, incarnation, "")
        marked = claims.mark(first, ("you@example.net",))
        settled = claims.settle(second, Settlement("gone", dead=second.envelope))
        assert [await marked, await settled] == [False, False]
        assert not claims.holds(first)
        await wait_until(lambda: claims.name != name)
        assert dead(client) == []
        again = await claim_all(claims, 2)
        assert [claim.id for claim in again] == ids
        assert not await claims.mark(first, ("you@example.net",))
        assert await claims.mark(again[0], ("you@example.net",))
        await wait_until(claims.may_send)
        assert [each.decode() for each in client.smembers("rq:workers")] == [
            f"rq:worker:{claims.name}"
        ]


async def test_a_worker_taken_for_dead_says_how_many_of_its_messages_others_have(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    put(redis_server.client(), 2)
    async with claims_on(redis_server.data_dir) as claims:
        await claim_all(claims, 2)
        name = claims.name
        await claims._living.ask(REAP, claims.incarnation, "")
        await wait_until(lambda: claims.name != name)
    assert f"worker {name} was taken for dead; its 2 messages are with" in capfd.readouterr().err


async def test_after_a_restore_no_worker_is_said_to_be_dead_or_a_stock_one(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        name = claims.name
        # As the look that finds a backup does it: what tools are shown of the worker stays.
        client.delete(keys.WORKERS, keys.PROCESSES, keys.GRANTS)
        await wait_until(lambda: claims.name != name)
        assert client.exists(f"rq:worker:{name}")
        assert client.sismember(keys.workers_key("outbound"), f"rq:worker:{name}")
        claims._pulse._next_sweep = 0.0
        await claims._pulse._sweep()
    log = capfd.readouterr().err
    assert f"Redis no longer knows worker {name}; it had no mail in hand" in log
    assert "taken for dead" not in log
    assert "serves a queue of mail" not in log


async def test_a_worker_taken_for_dead_may_send_no_dot_until_it_is_known_anew(
    redis_server: RedisServer,
) -> None:
    async with claims_on(redis_server.data_dir) as claims:
        assert claims.may_send()
        registered = asyncio.Event()
        register = claims._register

        async def held_back(me: Registration) -> None:
            await registered.wait()
            await register(me)

        claims._register = held_back  # type: ignore[method-assign] # only to see the moment
        await claims._living.ask(REAP, claims._me.incarnation, "")
        await wait_until(lambda: not claims.may_send())
        registered.set()
        await wait_until(claims.may_send)


async def test_only_the_claims_of_the_dead_worker_come_back(redis_server: RedisServer) -> None:
    client = redis_server.client()
    put(client, 4)
    async with (
        claims_on(redis_server.data_dir) as one,
        claims_on(redis_server.data_dir, number=2) as two,
    ):
        mine = await claim_all(one, 2)
        others = await claim_all(two, 2)
        await one._living.ask(REAP, two._me.incarnation, "")
        assert started(client) == [claim.id for claim in mine]
        assert queued(client) == [claim.id for claim in others]


async def test_a_worker_whose_heart_moved_meanwhile_is_not_reaped(
    redis_server: RedisServer,
) -> None:
    async with claims_on(redis_server.data_dir) as claims:
        struck = await claims._living.ask(REAP, claims._me.incarnation, 0)
        assert struck[0] == 0
        assert redis_server.client().hlen("franker:workers") == 1


async def test_claims_whose_owner_nobody_knows_come_back(redis_server: RedisServer) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    client.lrem(keys.queue_key("outbound"), 0, message_id)
    client.hset(keys.job_key(message_id), "status", "started")
    client.zadd(keys.started_key("outbound"), {f"{message_id}:forgotten-7": "inf"})
    async with claims_on(redis_server.data_dir) as claims:
        assert [claim.id for claim in await claim_all(claims, 1)] == [message_id]


async def test_mail_for_a_stream_that_no_worker_serves_is_told_once(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    put(redis_server.client(), 2, stream="forgotten")
    put(redis_server.client(), 2)
    async with claims_on(redis_server.data_dir) as claims:
        for _ in range(2):
            claims._pulse._next_sweep = 0.0
            await wait_until(lambda: claims._pulse._next_sweep > 0)
        await wait_until(lambda: claims._pulse._unserved)
    log = capfd.readouterr().err
    assert log.count("which no worker serves") == 1
    assert "2 messages wait for the stream 'forgotten'" in log


async def test_connections_are_shared_by_the_living(redis_server: RedisServer) -> None:
    async with claims_on(redis_server.data_dir) as one:
        assert one.share == 10
        async with claims_on(redis_server.data_dir, number=2) as two:
            assert two.share == 0
            await wait_until(lambda: (one.share, two.share) == (5, 5))
            async with claims_on(redis_server.data_dir, number=3) as three:
                living = (one, two, three)
                await wait_until(lambda: sorted(each.share for each in living) == [3, 3, 4])
        await wait_until(lambda: one.share == 10)


async def test_a_share_waits_for_the_connections_of_others_to_close(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as one:
        open_ = 8
        one.connections_in_use = lambda: open_
        async with claims_on(redis_server.data_dir, number=2) as two:
            await wait_until(lambda: one.share == 5)
            await wait_until(lambda: two.share == 2)
            assert sum(map(int, client.hvals("franker:grants"))) == 10
            open_ = 4
            await wait_until(lambda: two.share == 5)


async def test_more_workers_than_connections_leave_some_without(
    redis_server: RedisServer,
) -> None:
    settings = Settings.model_validate({"postmark": {"connections": 1}})
    async with (
        claims_on(redis_server.data_dir, settings=settings) as one,
        claims_on(redis_server.data_dir, settings=settings, number=2) as two,
    ):
        await wait_until(lambda: one.share + two.share == 1)


async def test_nothing_is_claimed_while_suspended(redis_server: RedisServer) -> None:
    client = redis_server.client()
    ids = put(client, 2)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        client.set(keys.SUSPENDED, 1)
        assert await claims.claim({"outbound": 1}) == []
        assert claims.suspended
        assert await claims.settle(claim, Settlement("gone"))
        await wait_until(lambda: claims._pulse.suspended)
        client.delete(keys.SUSPENDED)
        await claims.wait_for_work(10)
        assert [each.id for each in await claim_all(claims, 1)] == ids[1:]
        assert not claims.suspended


async def test_due_messages_wake_the_worker(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    client.lrem(keys.queue_key("outbound"), 0, message_id)
    client.hset(keys.job_key(message_id), "status", "scheduled")
    async with claims_on(redis_server.data_dir) as claims:
        await wait_until(lambda: client.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1)
        assert await claims.claim({"outbound": 1}) == []
        # As a stock tool schedules: by its own clock, in seconds.
        client.zadd(keys.scheduled_key("outbound"), {message_id: time.time() + 0.5})
        await claims.wait_for_work(10)
        assert [claim.id for claim in await claims.claim({"outbound": 1})] == [message_id]
        assert scheduled(client) == []
