"""The numbers behind the queue's metrics, read from a real Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry

from proxy.config import Settings
from proxy.mail.ids import new_id
from proxy.metrics.depths import QueueDepths
from proxy.queue import keys
from proxy.queue.connection import open_redis
from proxy.queue.depths import all_depths, feed_depths, read_depths
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

NOW = 1_795_169_296.0


def _id(age: float) -> str:
    return new_id(int((NOW - age) * 1000))


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(Settings(), redis_server.data_dir, timeout=2)
    yield client
    await client.aclose()


async def test_each_state_is_counted_by_stream(
    store: redis.asyncio.Redis, redis_server: RedisServer
):
    client = redis_server.client()
    client.rpush(keys.queue_key("outbound"), _id(3), _id(2), _id(1))
    client.zadd(keys.started_key("outbound"), {f"{_id(4)}:w-1": "inf", f"{_id(4)}:w-2": "inf"})
    client.zadd(keys.scheduled_key("news"), {_id(5): NOW})
    client.zadd(keys.failed_key("news"), {f"{_id(9)}-1": "inf"})
    outbound, news, idle = await read_depths(store, ["outbound", "news", "idle"], NOW)
    assert outbound.messages == {"queued": 3, "started": 2, "deferred": 0, "held": 0, "dead": 0}
    assert news.messages == {"queued": 0, "started": 0, "deferred": 1, "held": 0, "dead": 1}
    assert idle.messages == {"queued": 0, "started": 0, "deferred": 0, "held": 0, "dead": 0}


async def test_the_oldest_message_counts_wherever_it_stands(
    store: redis.asyncio.Redis, redis_server: RedisServer
):
    client = redis_server.client()

    async def oldest() -> float:
        return (await read_depths(store, ["outbound"], NOW))[0].oldest_age

    assert await oldest() == 0
    client.rpush(keys.queue_key("outbound"), _id(10), _id(5))
    assert await oldest() == pytest.approx(10, abs=0.01)
    client.rpush(keys.queue_key("outbound"), _id(20))  # deferred once, back at the tail
    assert await oldest() == pytest.approx(20, abs=0.01)
    client.zadd(keys.started_key("outbound"), {f"{_id(30)}:w-1": "inf"})
    assert await oldest() == pytest.approx(30, abs=0.01)
    client.zadd(keys.deferred_key("outbound"), {_id(40): int((NOW - 40) * 1000)})
    assert await oldest() == pytest.approx(40, abs=0.01)


async def test_a_dead_letter_and_one_that_is_retried_have_no_age(
    store: redis.asyncio.Redis, redis_server: RedisServer
):
    client = redis_server.client()
    client.zadd(keys.failed_key("outbound"), {f"{_id(900)}-1": "inf"})
    client.rpush(keys.queue_key("outbound"), f"{_id(900)}-2", "not-one-of-our-ids")
    assert (await read_depths(store, ["outbound"], NOW))[0].oldest_age == 0


async def test_a_clock_set_back_makes_no_negative_age(
    store: redis.asyncio.Redis, redis_server: RedisServer
):
    redis_server.client().rpush(keys.queue_key("outbound"), _id(-50))
    assert (await read_depths(store, ["outbound"], NOW))[0].oldest_age == 0


async def test_a_stream_that_is_not_configured_is_counted_for_as_long_as_it_has_mail(
    store: redis.asyncio.Redis, redis_server: RedisServer
):
    client = redis_server.client()
    client.sadd(keys.QUEUES, *map(keys.queue_key, ("outbound", "gone", "empty", "aside")))
    client.sadd(keys.QUEUES, "rq:queue:somebody-elses", b"rq:queue:franker-\xff")
    client.rpush(keys.queue_key("gone"), _id(900))
    client.zadd(keys.held_key("aside"), {_id(5): 0})
    outbound, *others = await all_depths(store, ["outbound"], NOW)
    assert (outbound.stream, outbound.unserved) == ("outbound", False)
    aside, gone = others
    assert (aside.stream, aside.messages["held"], aside.unserved) == ("aside", 1, True)
    assert (gone.stream, gone.messages["queued"], gone.unserved) == ("gone", 1, True)
    assert gone.oldest_age == pytest.approx(900, abs=0.01)
    client.delete(keys.queue_key("gone"))
    client.sadd(keys.workers_key("aside"), "rq:worker:elsewhere")
    assert [one.unserved for one in await all_depths(store, ["outbound"], NOW)] == [False, False]


async def test_while_redis_is_away_no_depth_is_shown(
    store: redis.asyncio.Redis, redis_server: RedisServer
):
    registry = CollectorRegistry()
    shown = QueueDepths(registry)
    redis_server.client().rpush(keys.queue_key("outbound"), _id(1))
    labels = {"stream": "outbound", "state": "queued"}

    def queued() -> float | None:
        return registry.get_sample_value("franker_queue_messages", labels)

    task = asyncio.create_task(
        feed_depths(shown, store, ["outbound"], clock=lambda: NOW, every=0.05)
    )
    await wait_until(lambda: queued() == 1)
    redis_server.stop()
    await wait_until(lambda: queued() is None)
    redis_server.start()
    await wait_until(lambda: queued() == 1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
