"""Claims while Redis is killed, stalled, or its replies are lost: nothing twice, nothing lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.connection import open_redis
from proxy.queue.wire import Wire as RedisWire
from proxy.queue.wire import pack
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
from tests.support.wire import Wire, wire_to
from worker.claims import Claims, Settlement
from worker.claims import claims as module
from worker.claims.link import Line
from worker.claims.scripts import BEAT, CLAIM, REAP, REGISTER, SETTLE, SWEEP


@asynccontextmanager
async def claims_over_wire(server: RedisServer) -> AsyncIterator[tuple[Claims, Wire]]:
    """Open claims whose connections can be broken, all scripts known to Redis."""
    async with wire_to(server.socket, server.data_dir / "wire.sock") as wire:
        settings = Settings.model_validate({"redis": {"url": wire.url}})
        async with claims_on(server.data_dir, settings=settings) as claims:
            client = server.client()
            put(client)
            [claim] = await claim_all(claims, 1)
            await claims.settle(claim, Settlement("gone"))
            yield claims, wire


async def test_a_claim_whose_reply_is_lost_is_repeated_and_returns_the_same_messages(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        ids = put(client, 5)
        wire.lose_reply_to(CLAIM.sha.encode())
        got = await claims.claim({"outbound": 3})
        assert wire.lost == 1
        assert sorted(claim.id for claim in got) == ids[:3]
        assert {claim.body for claim in got} == {b"Subject: hello\r\n\r\nhello\r\n"}
        assert queued(client) == ids[3:]
        assert [claim.id for claim in await claims.claim({"outbound": 5})] == ids[3:]


async def test_messages_of_a_cancelled_claim_are_returned_by_the_next(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        ids = put(client, 2)
        wire.hold_request(CLAIM.sha.encode())
        claiming = asyncio.create_task(claims.claim({"outbound": 2}))
        await wait_until(lambda: wire.held)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        wire.release()
        await wait_until(lambda: started(client) == ids)
        assert sorted(claim.id for claim in await claims.claim({"outbound": 2})) == ids


LARGE = b"Subject: large\r\n\r\n" + b"x" * 200_000
READING = b"$4\r\nbody\r\n$5\r\nclaim\r\n"
"""What stands only in the request that reads a large body."""


async def test_a_large_body_whose_reply_is_lost_is_read_again(redis_server: RedisServer) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        ids = put(client, 2, body=LARGE) + put(client)
        wire.lose_reply_to(READING)
        got = await claims.claim({"outbound": 3})
        assert wire.lost == 1
        assert [claim.id for claim in got] == ids
        assert [claim.body == LARGE for claim in got] == [True, True, False]


async def test_messages_whose_reading_was_cancelled_are_returned_by_the_next_claim(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        ids = put(client, body=LARGE) + put(client)
        wire.hold_request(READING)
        claiming = asyncio.create_task(claims.claim({"outbound": 2}))
        await wait_until(lambda: wire.held)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        wire.release()
        got = await claims.claim({"outbound": 2})
        assert sorted(claim.id for claim in got) == ids
        assert {claim.id: claim.body for claim in got}[ids[0]] == LARGE


async def a_look_whose_reading_failed(
    claims: Claims, wire: Wire, client: redis.Redis, stream: str = "outbound"
) -> tuple[str, bytes]:
    """Claim a large message out of turn, and lose what is read of it; return id and envelope."""
    [message_id] = put(client, stream=stream, body=LARGE)
    envelope = job(client, message_id)["envelope"]
    wire.lose_reply_to(READING)
    with pytest.raises(RedisConnectionError):
        await claims.take(stream, {message_id: envelope})
    return message_id, envelope


async def test_a_large_message_out_of_turn_whose_reading_failed_comes_with_the_next_claim(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        message_id, _ = await a_look_whose_reading_failed(claims, wire, client)
        [claim] = await claims.claim({"outbound": 1})
        assert (claim.id, claim.body) == (message_id, LARGE)


@pytest.mark.parametrize("fate", ["deleted", "another's", "without body"])
async def test_a_large_message_taken_away_before_it_was_read_is_not_relayed(
    redis_server: RedisServer, fate: str
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        [message_id] = put(client, body=LARGE)
        [other] = put(client)
        key, claimed = keys.job_key(message_id), keys.started_key("outbound")
        wire.hold_request(READING)
        claiming = asyncio.create_task(claims.claim({"outbound": 2}))
        await wait_until(lambda: wire.held)
        execution = job(client, message_id)["claim"].decode()
        if fate == "deleted":
            client.delete(key)
        elif fate == "without body":
            client.hdel(key, "body")
        else:
            client.zrem(claimed, f"{message_id}:{execution}")
            client.zadd(claimed, {f"{message_id}:another-1": float("inf")})
            client.hset(key, "claim", "another-1")
        wire.release()
        assert [claim.id for claim in await claiming] == [other]
        await claims._flusher.drained()
        if fate == "deleted":
            assert started(client) == [other]
            assert not client.exists(key)
        elif fate == "without body":
            assert scheduled(client) == [message_id]
        else:
            assert job(client, message_id)["claim"] == b"another-1"
            assert started(client) == sorted([message_id, other])
        assert job(client, other)["claim"].decode() == execution


@pytest.mark.parametrize("served_meanwhile", [True, False])
async def test_a_claim_that_lay_in_a_socket_takes_nothing_when_it_is_delivered_late(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, served_meanwhile: bool
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 1.0)
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        ids = put(client, 1) if served_meanwhile else []
        wire.hold_request(CLAIM.sha.encode())
        first = await claims.claim({"outbound": 1})
        assert [claim.id for claim in first] == ids
        assert wire.held == 1
        ids += put(client, 3)
        if served_meanwhile:
            await claims.settle(first[0], Settlement("gone"))
            got = await claim_all(claims, 3)
            assert [claim.id for claim in got] == ids[1:]
            [last] = put(client)
            wire.release()
            await wait_until(lambda: wire.delivered == 1)
            assert all(client.ping() for _ in range(3))  # Redis has read what came before
            assert queued(client) == [last]
            assert len(await claims.claim({"outbound": 5})) == 1
        else:
            # The late call takes one; nobody but the next call has its number, and returns it.
            wire.release()
            await wait_until(lambda: len(started(client)) == 1)
            got = await claim_all(claims, 3)
            assert sorted(claim.id for claim in got) == ids
        assert queued(client) == []


@pytest.mark.parametrize("then", ["gone", "defer", "back", "keep", "dead"])
async def test_a_settle_whose_reply_is_lost_is_repeated_and_counts_once(
    redis_server: RedisServer, then: str
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        [message_id] = put(client)
        [claim] = await claims.claim({"outbound": 1})
        settlement = {
            "gone": Settlement("gone"),
            "defer": Settlement("defer", delay=60),
            "back": Settlement("back"),
            "keep": Settlement("keep", claim.envelope, dead=claim.envelope),
            "dead": Settlement("gone", dead=claim.envelope),
        }[then]
        wire.lose_reply_to(SETTLE.sha.encode())
        assert await claims.settle(claim, settlement)
        assert wire.lost == 1
        assert scheduled(client) == ([message_id] if then == "defer" else [])
        assert queued(client) == ([message_id] if then == "back" else [])
        assert started(client) == ([message_id] if then == "keep" else [])
        assert dead(client) == ([f"{message_id}-1"] if then in ("keep", "dead") else [])
        assert len(client.keys("rq:job:*")) == {"gone": 0, "keep": 2}.get(then, 1)


async def test_a_mark_whose_reply_is_lost_is_repeated_and_true(redis_server: RedisServer) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        [message_id] = put(client)
        [claim] = await claims.claim({"outbound": 1})
        wire.lose_reply_to(SETTLE.sha.encode())
        assert await claims.mark(claim, ("you@example.net",))
        assert wire.lost == 1
        assert job(client, message_id)["dot"] == b'["you@example.net"]'


async def test_a_mark_that_lay_in_a_socket_is_refused_after_what_followed_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 1.0)
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        put(client)
        [claim] = await claims.claim({"outbound": 1})
        wire.hold_request(SETTLE.sha.encode())
        assert await claims.mark(claim, ("you@example.net",))
        assert wire.held == 1
        assert await claims.settle(claim, Settlement("keep"))
        wire.release()
        await wait_until(lambda: wire.delivered == 1)
        assert all(client.ping() for _ in range(3))  # Redis has read what came before
        assert "dot" not in job(client, claim.id)


@pytest.mark.parametrize("script", [BEAT, SWEEP, REAP], ids=lambda script: script.sha[:4])
async def test_lost_replies_to_upkeep_are_repeated_without_harm(
    redis_server: RedisServer, script: object
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        [message_id] = put(client)
        [claim] = await claims.claim({"outbound": 1})
        name = claims.name
        if script is REAP:
            # A worker that was never here: nothing moves its counter.
            client.hset("franker:workers", "ghost", 1)
            client.hset("franker:processes", "ghost", "")
            client.hset("franker:worker:ghost", mapping={"name": "ghost", "claim": 1, "flush": 1})
            client.zrem(keys.started_key("outbound"), f"{message_id}:{claim.execution}")
            client.zadd(keys.started_key("outbound"), {f"{message_id}:ghost-1": "inf"})
        else:
            assert await claims.settle(claim, Settlement("back"))
        assert isinstance(script, type(BEAT))
        wire.lose_reply_to(script.sha.encode())
        claims._pulse._next_sweep = 0.0
        await wait_until(lambda: wire.lost == 1)
        await wait_until(lambda: queued(client) == [message_id])
        await wait_until(claims.may_send)
        assert claims.name == name


async def test_a_lost_reply_to_the_registration_registers_once(redis_server: RedisServer) -> None:
    client = redis_server.client()
    async with wire_to(redis_server.socket, redis_server.data_dir / "wire.sock") as wire:
        settings = Settings.model_validate({"redis": {"url": wire.url}})
        async with claims_on(redis_server.data_dir, settings=settings):
            pass  # so that Redis knows the script
        wire.lose_reply_to(REGISTER.sha.encode())
        async with claims_on(redis_server.data_dir, settings=settings):
            assert wire.lost == 1
            assert client.hlen("franker:workers") == 1
            assert client.scard("rq:workers") == 1


async def test_settles_wait_for_a_killed_redis_and_are_written_when_it_is_back(
    redis_server: RedisServer,
) -> None:
    put(redis_server.client(), 3)
    async with claims_on(redis_server.data_dir) as claims:
        first, second, third = await claim_all(claims, 3)
        redis_server.kill()
        marked = claims.mark(first, ("you@example.net",))
        gone = claims.settle(second, Settlement("gone"))
        deferred = claims.settle(third, Settlement("defer", delay=60))
        claiming = asyncio.create_task(claims.claim({"outbound": 1}))
        await wait_until(lambda: not claims.may_send())
        assert not any(each.done() for each in (marked, gone, deferred, claiming))
        redis_server.start()
        assert [await marked, await gone, await deferred] == [True, True, True]
        assert await claiming == []
        await wait_until(claims.may_send)
        client = redis_server.client()
        assert started(client) == [first.id]
        assert scheduled(client) == [third.id]
        assert not client.exists(keys.job_key(second.id))


async def test_a_worker_starts_as_soon_as_redis_does(redis_server: RedisServer) -> None:
    redis_server.kill()
    claims = Claims(Settings(), redis_server.data_dir, ("outbound",), number=1)
    starting = asyncio.create_task(claims.start())
    done, _ = await asyncio.wait([starting], timeout=0.2)
    assert not done
    redis_server.start()
    await asyncio.wait_for(starting, 10)
    assert claims.share == 10
    await claims.close()


async def test_closing_while_redis_is_away_ends(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GOODBYE_S", 0.2)
    put(redis_server.client())
    claims = Claims(Settings(), redis_server.data_dir, ("outbound",), number=1)
    await claims.start()
    [claim] = await claim_all(claims, 1)
    redis_server.kill()
    marked = claims.mark(claim, claim.envelope.recipients)
    await wait_until(lambda: not claims._flusher._waiting)  # it is on its way, in vain
    settled = claims.settle(claim, Settlement("gone"))
    await asyncio.wait_for(claims.close(give_back=[claim]), 10)
    assert await asyncio.wait_for(marked, 1) is False
    assert await asyncio.wait_for(settled, 1) is False
    assert await asyncio.wait_for(claims.mark(claim, ("you@example.net",)), 1) is False


async def test_who_stops_claiming_does_not_wait_for_redis_to_come_back(
    redis_server: RedisServer,
) -> None:
    async with claims_on(redis_server.data_dir) as claims:
        redis_server.kill()
        claiming = asyncio.create_task(claims.claim({"outbound": 1}))
        done, _ = await asyncio.wait([claiming], timeout=0.3)
        assert not done
        claims.stop_claiming()
        assert await asyncio.wait_for(claiming, 5) == []
        redis_server.start()
        put(redis_server.client())
        assert await claims.claim({"outbound": 1}) == []


async def test_the_outage_of_redis_is_said_once_and_its_return_once(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with claims_on(redis_server.data_dir) as claims:
        redis_server.kill()
        await wait_until(lambda: not claims.may_send())
        redis_server.start()
        await wait_until(claims.may_send)
    log = capfd.readouterr().err
    assert (log.count(" store_away "), log.count(" store_back")) == (1, 1)


async def test_redis_killed_at_random_moments_under_load_loses_and_doubles_nothing(
    redis_server: RedisServer,
) -> None:
    ids = put(redis_server.client(), 400)
    seen: list[str] = []
    async with claims_on(redis_server.data_dir) as claims:

        async def relay() -> None:
            while len(seen) < len(ids):
                for claim in await claims.claim({"outbound": 10}):
                    assert await claims.mark(claim, claim.envelope.recipients)
                    assert await claims.settle(claim, Settlement("gone"))
                    seen.append(claim.id)

        relaying = asyncio.create_task(relay())
        for done in (50, 150, 250):
            await wait_until(lambda done=done: len(seen) >= done or relaying.done(), 60)
            redis_server.kill()
            redis_server.start()
        await asyncio.wait_for(relaying, 60)
    assert sorted(seen) == ids
    assert not redis_server.client().keys("rq:job:*")


@pytest.mark.slow
async def test_a_redis_that_stalls_makes_nobody_reap_anybody(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    put(redis_server.client(), 2)
    async with (
        claims_on(redis_server.data_dir) as one,
        claims_on(redis_server.data_dir, number=2) as two,
    ):
        [first] = await claim_all(one, 1)
        [second] = await claim_all(two, 1)
        names = (one.name, two.name)
        redis_server.pause()
        try:
            settled = two.settle(second, Settlement("gone"))
            await wait_until(lambda: not one.may_send() and not two.may_send())
            # Longer than a worker lives without a heartbeat.
            done, _ = await asyncio.wait([settled], timeout=6)
            assert not done
        finally:
            redis_server.resume()
        assert await settled
        await wait_until(lambda: one.may_send() and two.may_send())
        assert await one.mark(first, ("you@example.net",))
        assert (one.name, two.name) == names
    assert "worker_reaped" not in capfd.readouterr().err


class _Asked:
    """A command for the server on the other end of a line."""

    def __init__(self, *words: str) -> None:
        self._words = words

    async def call(self, wire: RedisWire, *_: bytes | str | float) -> Any:
        return await wire.call(pack(*self._words))


async def test_a_server_that_is_no_longer_the_master_is_left(
    redis_server: RedisServer, data_dir: Path
) -> None:
    line = Line(open_redis(Settings(), data_dir, timeout=5.0), 5.0)
    who, write = _Asked("CLIENT", "ID"), _Asked("SET", "key", "value")
    first = await line.run(who)
    redis_server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(ReadOnlyError):
        await line.run(write)
    assert await line.run(who) != first
    await line.close()


async def test_a_foreign_key_in_a_job_s_place_costs_no_other_message(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, _):
        first, foreign, last = put(client, 3)
        client.delete(keys.job_key(foreign))
        client.set(keys.job_key(foreign), "somebody's")
        assert [claim.id for claim in await claims.claim({"outbound": 3})] == [first, last]
        assert client.get(keys.job_key(foreign)) == b"somebody's"


async def test_what_was_claimed_out_of_turn_comes_though_its_stream_is_no_longer_asked_for(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        message_id, _ = await a_look_whose_reading_failed(claims, wire, client, "gone")
        [claim] = await claims.claim({"outbound": 1})
        assert (claim.id, claim.stream) == (message_id, "gone")


async def test_a_second_look_out_of_turn_gets_what_the_first_one_claimed(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        message_id, envelope = await a_look_whose_reading_failed(claims, wire, client)
        [claim] = await claims.take("outbound", {message_id: envelope})
        assert claim.body == LARGE


async def test_a_claim_whose_messages_others_took_away_does_not_stop_the_next(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_over_wire(redis_server) as (claims, wire):
        message_id, _ = await a_look_whose_reading_failed(claims, wire, client)
        client.delete(keys.started_key("outbound"), keys.job_key(message_id))
        [other] = put(client)
        assert await claims.claim({"outbound": 1}) == []
        assert [claim.id for claim in await claims.claim({"outbound": 1})] == [other]
