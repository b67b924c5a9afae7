"""Many streams on one worker: none waits for another that has no mail."""

import time
from pathlib import Path

import pytest
import redis

from proxy.queue import keys
from tests.support.far_end import FarEnd
from tests.support.mail_queue import envelope, put
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, settings_for
from tests.support.waiting import wait_until

BACKLOG = 400


async def test_a_backlog_leaves_at_full_rate_beside_a_host_without_mail(
    redis_server: RedisServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing new comes in that would wake the worker, and nothing else may be waited for.
    monkeypatch.setattr("worker.daemon.POLL_S", 600.0)
    async with FarEnd() as far_end:
        queue: redis.Redis = redis_server.client()
        for number in range(BACKLOG):
            put(queue, mail=envelope(f"r{number}@example.net"))
        token = {"file": str(data_dir / "token")}
        streams = {
            "outbound": {"token": token},
            "broadcasts": {"kind": "broadcast", "token": token},
        }
        async with relay_at_work(settings_for(far_end, data_dir, streams=streams), data_dir):
            await far_end.until(BACKLOG, timeout=60)


async def test_more_streams_than_places_and_the_last_one_gets_its_turn(
    redis_server: RedisServer, data_dir: Path
) -> None:
    async with FarEnd() as far_end:
        token = {"file": str(data_dir / "token")}
        names = [f"stream{number}" for number in range(8)]
        streams = {name: {"token": token, "id": "outbound"} for name in names}
        put(redis_server.client(), stream=names[-1])
        settings = settings_for(far_end, data_dir, streams=streams, postmark={"connections": 1})
        async with relay_at_work(settings, data_dir):
            await far_end.until(1, timeout=60)


async def test_room_for_a_stream_that_was_not_asked_for_mail_is_seen(
    redis_server: RedisServer, data_dir: Path
) -> None:
    async with FarEnd() as far_end:
        token = {"file": str(data_dir / "token")}
        streams = {name: {"token": token, "id": "outbound"} for name in ("one", "two")}
        settings = settings_for(far_end, data_dir, streams=streams)
        async with relay_at_work(settings, data_dir) as relay:
            await wait_until(lambda: relay.slots())
            assert relay.network.has_room_beyond(frozenset({"one"}))
            assert not relay.network.has_room_beyond(frozenset({"one", "two"}))


async def test_what_comes_soon_after_a_claim_is_claimed_together_and_after_a_rest_at_once(
    redis_server: RedisServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.daemon.GATHER_S", 6.0)
    queue: redis.Redis = redis_server.client()
    async with (
        FarEnd() as far_end,
        relay_at_work(settings_for(far_end, data_dir), data_dir) as relay,
    ):

        def rests() -> bool:
            claims = relay.network._claims
            asks = claims._work.is_set() or claims._one_claim.locked()
            hears = queue.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1
            return hears and bool(relay.channels[0]._pool.reached) and not asks

        await wait_until(rests)
        began = time.monotonic()
        put(queue)
        await far_end.until(1, timeout=60)
        assert time.monotonic() - began < 4.0
        for _message in range(5):
            put(queue)
        await far_end.until(6, timeout=60)
        assert time.monotonic() - began >= 6.0
        [worker] = list(queue.scan_iter("franker:worker:*"))
        assert queue.hget(worker, "claim") == b"2"
