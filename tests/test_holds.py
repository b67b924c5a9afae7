"""Mail that is held by hand: nothing of it is claimed, and released it goes in order, once."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config import Settings
from proxy.queue import by_command, flushing, holds, inventory, keys, releases
from proxy.queue.connection import open_redis
from proxy.queue.depths import read_depths
from proxy.queue.holds import Hold, HoldError
from proxy.queue.notes import log_by_hand
from proxy.queue.scripts import load
from proxy.queue.selection import Selection
from tests.support.far_end import FarEnd
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
from tests.support.relaying import relay_at_work, settings_for
from tests.support.waiting import wait_until
from worker.claims import Settlement

PAYROLL = envelope(reverse_path="Payroll@Shop.example", rule="payroll")
NEWS = envelope(reverse_path="", rule="news")


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(Settings(), redis_server.data_dir, timeout=5)
    yield client
    await client.aclose()


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as there:
        yield there


def aside(queue: redis.Redis, stream: str = "outbound") -> list[str]:
    return [each.decode() for each in queue.zrange(keys.held_key(stream), 0, -1)]


async def hold(store: redis.asyncio.Redis, name: str = "", **selects: object) -> Hold:
    made, _ = await holds.hold(store, Hold(name, Selection(**selects), time.time(), "me"))  # type: ignore[arg-type]  # given as words
    return made


async def release(store: redis.asyncio.Redis, *names: str, **selects: object) -> int:
    selection = Selection(**selects)  # type: ignore[arg-type]  # given as words
    done = await releases.release(store, time.time(), names=names, selection=selection)
    return done.back


async def test_a_held_stream_is_not_claimed_while_others_are(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    ids = put(queue, 3)
    [other] = put(queue, stream="broadcasts")
    await hold(store, stream="outbound")
    streams = ("outbound", "broadcasts")
    async with claims_on(data_dir, streams, settings=BROADCASTS) as claims:
        assert [each.id for each in await claim_all(claims, 1, "broadcasts")] == [other]
        for _ in range(3):
            assert await claims.claim({"outbound": 10}) == []
        assert queued(queue) == ids
        await release(store, stream="outbound")
        assert [each.id for each in await claim_all(claims, 3)] == ids


async def test_what_matches_is_set_aside_and_what_does_not_goes(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    held = put(queue, 2, mail=PAYROLL)
    free = put(queue, 2, mail=NEWS)
    later = put(queue, 2, mail=PAYROLL)
    await hold(store, sender="payroll@*.EXAMPLE")
    async with claims_on(data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 2)] == free
        assert await claims.claim({"outbound": 9}) == []
        assert aside(queue) == sorted(held + later)
        assert {job(queue, each)["status"] for each in held + later} == {b"deferred"}
        assert started(queue) == sorted(free)


async def test_new_mail_that_matches_waits_until_the_release(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    made = await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        [held] = put(queue, mail=PAYROLL)
        [free] = put(queue, mail=NEWS)
        assert [each.id for each in await claim_all(claims, 1)] == [free]
        assert aside(queue) == [held]
        assert await release(store, made.name) == 1
        assert [each.id for each in await claim_all(claims, 1)] == [held]
    assert not queue.exists(keys.HOLDS)


async def test_a_hold_by_age_takes_what_was_accepted_before_and_nothing_later(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    now = time.time()
    [old] = put(queue, mail=envelope(accepted_at=now - 7300))
    [young] = put(queue, mail=envelope(accepted_at=now - 7100))
    [at_it] = put(queue, mail=envelope(accepted_at=now - 7200))
    await hold(store, before=now - 7200)
    async with claims_on(data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 1)] == [young]
        assert await claims.claim({"outbound": 1}) == []
        assert aside(queue) == sorted([old, at_it])


async def test_the_null_sender_is_written_with_brackets(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [null] = put(queue, mail=NEWS)
    [named] = put(queue, mail=PAYROLL)
    await hold(store, sender="<>")
    async with claims_on(data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 1)] == [named]
        assert aside(queue) == [null]


async def test_a_message_is_held_while_it_fits_everything_that_a_hold_says(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [both] = put(queue, mail=PAYROLL)
    [one] = put(queue, mail=replace(PAYROLL, rule="other"))
    await hold(store, sender="payroll@*", rule="payroll", stream="outbound")
    async with claims_on(data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 1)] == [one]
        assert aside(queue) == [both]


async def test_released_mail_goes_before_all_others_in_order(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    first = put(queue, 450, mail=PAYROLL)
    made = await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
        assert aside(queue) == first
        rest = put(queue, 2, mail=NEWS)
        assert await release(store, made.name) == 450
        assert queued(queue) == first + rest
        assert {job(queue, each)["status"] for each in first} == {b"queued"}
        assert [each.id for each in await claim_all(claims, 452)] == first + rest


async def test_two_thousand_held_messages_stop_nobody_behind_them(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    for _ in range(5):
        put(queue, 900, mail=PAYROLL)
    [free] = put(queue, mail=NEWS)
    await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        async with asyncio.timeout(10):
            while not (got := await claims.claim({"outbound": 3})):
                await claims.wait_for_work(60)  # woken, not timed out
        assert [each.id for each in got] == [free]


async def test_of_two_holds_mail_waits_for_both(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [both] = put(queue, mail=PAYROLL)
    [one] = put(queue, mail=replace(PAYROLL, rule="other"))
    by_sender, by_rule = await hold(store, sender="payroll@*"), await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 2}) == []
        assert await release(store, by_sender.name) == 1
        assert [each.id for each in await claim_all(claims, 1)] == [one]
        assert aside(queue) == [both]
        assert await release(store, by_rule.name) == 1
        assert [each.id for each in await claim_all(claims, 1)] == [both]


async def test_part_of_a_hold_can_be_released_for_good(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [wages, news] = put(queue, mail=PAYROLL) + put(queue, mail=NEWS)
    made = await hold(store, stream="outbound")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 9}) == []
        await release(store, rule="payroll")
        assert [each.id for each in await claim_all(claims, 1)] == [wages]
        [again] = put(queue, mail=PAYROLL)
        assert [each.id for each in await claim_all(claims, 1)] == [again]
        assert aside(queue) == [news]
        [standing] = await holds.standing_holds(store)
        assert (standing.name, standing.released) == (made.name, (Selection(rule="payroll"),))
        await release(store)
        assert [each.id for each in await claim_all(claims, 1)] == [news]


async def test_a_release_of_another_stream_or_rule_changes_nothing(
    store: redis.asyncio.Redis,
) -> None:
    made = await hold(store, stream="outbound", rule="payroll")
    await release(store, stream="broadcasts")
    await release(store, rule="news")
    assert await holds.standing_holds(store) == (made,)
    await release(store, stream="outbound")
    assert await holds.standing_holds(store) == ()


async def test_the_same_hold_twice_is_one_and_a_taken_name_is_refused(
    store: redis.asyncio.Redis,
) -> None:
    first = await hold(store, stream="outbound")
    assert (await hold(store, stream="outbound")).name == first.name
    await hold(store, "mine", rule="a")
    with pytest.raises(HoldError, match="another hold of the name 'mine'"):
        await hold(store, "mine", rule="b")
    with pytest.raises(HoldError, match="no hold 'other'"):
        await release(store, "other")


async def test_a_release_that_was_broken_off_is_finished_by_a_worker(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    ids = put(queue, 3, mail=PAYROLL)
    await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 3}) == []
        # What a release writes first; then its command is killed.
        queue.delete(keys.HOLDS)
        queue.hset(keys.HOLDS, "release-1", json.dumps({"returning": time.time() - 60}))
        await store.incr(keys.TURN)
        rest = put(queue, 1, mail=NEWS)
        assert await claims.claim({"outbound": 9}) == []  # first all is back, for the order
        assert [each.id for each in await claim_all(claims, 4)] == ids + rest
    assert not queue.exists(keys.HOLDS)


async def test_a_hold_changes_neither_attempts_nor_age_nor_replies_nor_the_mark(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=replace(PAYROLL, attempts=3, waited=99.0))
    queue.hset(keys.job_key(message_id), "dot", '["you@example.net"]')
    before = job(queue, message_id)
    made = await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
        await release(store, made.name)
        assert job(queue, message_id) == before


async def test_a_deferred_message_is_held_when_it_is_due(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=PAYROLL)
    async with claims_on(data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        assert await claims.settle(claim, Settlement("defer", delay=0.05))
        await hold(store, rule="payroll")
        async with asyncio.timeout(5):
            while aside(queue) != [message_id]:
                assert await claims.claim({"outbound": 1}) == []
                await claims.wait_for_work(0.1)


async def test_workers_give_back_what_they_had_claimed_and_say_that_they_keep_to_the_hold(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    put(queue, 300, body=b"X-PM-Metadata-franker-id: {id}\r\nSubject: x\r\n\r\nx\r\n")
    async with (
        FarEnd(latency=0.01) as far_end,
        relay_at_work(settings_for(far_end, data_dir, postmark={"connections": 1}), data_dir),
    ):
        await far_end.until(20)
        _, turn = await holds.hold(store, Hold("", Selection(stream="outbound"), 0.0))
        assert await holds.kept_to(store, turn, 10) == ()
        held = set(queued(queue))
        assert held
        await wait_until(lambda: started(queue) == [])  # what was on the wire
        gone = {field for field, _ in far_end.counts()}
        assert not gone & held
        assert set(queued(queue)) == held
        await release(store)
        await wait_until(lambda: not unsettled(queue))
        assert set(far_end.counts().values()) == {1}
        assert len(far_end.counts()) == 300


async def test_a_worker_that_does_not_answer_is_named(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    queue.hset(keys.WORKERS, "abc", 1)
    queue.hset(keys.worker_key("abc"), "name", "there.1.abc")
    _, turn = await holds.hold(store, Hold("", Selection(stream="outbound"), 0.0))
    assert await holds.kept_to(store, turn, 0.1) == ("there.1.abc",)
    queue.hset(keys.worker_key("abc"), "turn", turn)
    assert await holds.kept_to(store, turn, 0.1) == ()


async def test_without_a_hold_a_claim_sets_nothing_aside(
    queue: redis.Redis, data_dir: Path
) -> None:
    ids = put(queue, 5, mail=PAYROLL)
    async with claims_on(data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 5)] == ids


async def test_listing_and_looking_know_what_is_held_before_a_worker_has_come_by(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [wages] = put(queue, mail=PAYROLL)
    [news] = put(queue, mail=NEWS)
    await hold(store, "mine", rule="payroll")

    async def states() -> dict[str, tuple[str, str]]:
        found = inventory.entries(store, ("outbound",))
        return {entry.id: (entry.state, entry.hold) async for entry in found}

    assert await states() == {wages: ("held", "mine"), news: ("queued", "")}
    entry = await inventory.find(store, wages)
    assert entry is not None
    assert (entry.state, entry.hold) == ("held", "mine")
    async with claims_on(data_dir) as claims:
        await claim_all(claims, 1)
    assert await states() == {wages: ("held", "mine"), news: ("queued", "")}
    assert queued(queue) == [news]


async def test_a_held_message_can_be_deleted_but_not_retried_out_of_its_hold(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=PAYROLL)
    await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
    assert await by_command.retry(store, [message_id], now=1.0) == {message_id: "held"}
    assert await by_command.delete(store, [message_id]) == {message_id: "deleted"}
    assert aside(queue) == []
    assert not queue.exists(keys.job_key(message_id))


async def test_the_depths_count_what_is_held_and_leave_it_out_of_the_age(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    put(queue, 2, mail=PAYROLL)
    [free] = put(queue, mail=NEWS)
    made = await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        assert claim.id == free
        await claims.settle(claim, Settlement("gone"))
        [depth] = await read_depths(store, ("outbound",), time.time() + 100)
        assert depth.messages == {"queued": 0, "started": 0, "deferred": 0, "held": 2, "dead": 0}
        assert depth.oldest_age == 0.0
    await release(store, made.name)
    await hold(store, stream="outbound")
    [depth] = await read_depths(store, ("outbound",), time.time() + 100)
    assert (depth.messages["queued"], depth.messages["held"]) == (0, 2)
    assert depth.oldest_age == 0.0


async def test_flush_makes_deferred_mail_due_and_changes_nothing_else(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    wages = put(queue, mail=replace(PAYROLL, attempts=2))
    news, asked = put(queue, 1, mail=NEWS), put(queue, mail=replace(PAYROLL, asked=2.0))
    async with claims_on(data_dir) as claims:
        for claim in await claim_all(claims, 3):
            left = replace(claim.envelope, waited=600.0)
            assert await claims.settle(claim, Settlement("defer", left, delay=600))
        done = await flushing.flush(store, ("outbound",), Selection(sender="payroll@*"))
        assert done == flushing.Flushed(due=1, asked=1)
        [claim] = await claim_all(claims, 1)
        assert (claim.id, claim.envelope.attempts, claim.envelope.waited) == (wages[0], 2, 600.0)
        assert set(scheduled(queue)) == {*news, *asked}


async def test_flush_leaves_what_is_held(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    put(queue, mail=PAYROLL)
    async with claims_on(data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        assert await claims.settle(claim, Settlement("defer", delay=600))
    await hold(store, rule="payroll")
    assert await flushing.flush(store, ("outbound",), Selection()) == flushing.Flushed(held=1)


async def test_flush_lets_a_paused_route_be_tried_at_once(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path, far_end: FarEnd
) -> None:
    config = settings_for(far_end, data_dir)
    (data_dir / "token").write_text("wrong")
    async with relay_at_work(config, data_dir) as relay:
        # Refused so often that the next try is far.
        await wait_until(lambda: bool(queue.hlen(keys.ROUTES)))
        [name] = queue.hkeys(keys.ROUTES)
        await wait_until(lambda: relay.channels[0].gate.reason is not None)
        logins = len(far_end.logins)
        record = queue.hget(keys.ROUTES, name)
        assert record is not None
        far = re.sub(rb'"probe_at":[0-9.e+]+', b'"probe_at":%d' % (time.time() + 600), record)
        far = re.sub(rb'"prober":"[^"]*"', b'"prober":""', far)
        queue.hset(keys.ROUTES, name, far)
        done = await flushing.flush(store, ("outbound",), Selection(stream="outbound"))
        assert done.routes == 1
        await wait_until(lambda: len(far_end.logins) > logins)
        other = await flushing.flush(store, ("outbound",), Selection(stream="broadcasts"))
        assert other.routes == 0


PATTERNS = st.text("ab*.", max_size=8)
VALUES = st.text("ab.", max_size=8)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    from tests.support.redis_server import new_data_dir, remove_data_dir

    folder = new_data_dir()
    server = RedisServer(folder)
    server.start()
    yield server.client()
    server.stop()
    remove_data_dir(folder)


_number = itertools.count()


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(PATTERNS, VALUES)
def test_a_sender_pattern_takes_what_its_stars_can_stand_for(
    judge: redis.Redis, pattern: str, value: str
) -> None:
    key = f"id{next(_number)}"
    judge.hset(keys.job_key(key), "envelope", f'{{"rp":"{value}x","f":"{value}x","at":1}}')
    asked = f'[{{"name":"it","sender":"{pattern}x"}}]'
    said = judge.eval(load("taken_by").text, 0, asked, "outbound", key)
    judge.delete(keys.job_key(key))
    wanted = ".*".join(map(re.escape, f"{pattern}x".split("*")))
    assert (said == [b"it"]) == bool(re.fullmatch(wanted, f"{value}x"))


async def test_an_envelope_that_nobody_can_read_is_held_only_with_its_stream(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    [message_id] = put(queue)
    queue.hset(keys.job_key(message_id), "envelope", "{no json")
    by_rule = Hold("a", Selection(rule="payroll"), 0.0)
    whole = Hold("b", Selection(stream="outbound"), 0.0)
    assert await holds.taken_by(store, "outbound", [message_id], [by_rule]) == [""]
    assert await holds.taken_by(store, "outbound", [message_id], [by_rule, whole]) == ["b"]


async def test_mail_that_expires_while_it_is_held_dies_there_and_other_mail_lives_on(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path, far_end: FarEnd
) -> None:
    password = envelope(rule="password", expires_at=time.time() + 5)
    [message_id] = put(queue, mail=password)
    [other] = put(queue, mail=envelope("other@example.net", rule="password", waited=1e6))
    made = await hold(store, rule="password")
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: aside(queue) == sorted([message_id, other]))
        await wait_until(lambda: dead(queue) == [f"{message_id}-1"])
        assert aside(queue) == [other]
        await release(store, made.name)
        await wait_until(lambda: not queue.exists(keys.job_key(other)))
    assert far_end.recipients() == ["other@example.net"]


async def test_a_held_message_whose_client_was_told_no_can_be_taken_back(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=PAYROLL)
    await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
    withdraw = load("withdraw").text
    assert queue.eval(withdraw, 0, keys.queue_name("outbound"), message_id) == []
    assert aside(queue) == []
    assert not queue.exists(keys.job_key(message_id))


async def test_what_is_claimed_and_not_begun_is_back_before_the_command_returns(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path, far_end: FarEnd
) -> None:
    far_end.fail("mail", do="delay", seconds=6.0)
    ids = put(queue, 10)
    config = settings_for(far_end, data_dir, postmark={"connections": 1})
    async with relay_at_work(config, data_dir):
        await wait_until(lambda: len(started(queue)) == 4)  # two on the wire, two behind them
        _, turn = await holds.hold(store, Hold("", Selection(stream="outbound"), 0.0))
        assert await holds.kept_to(store, turn, 10) == ()
        on_the_wire = started(queue)
        assert len(on_the_wire) <= 2
        assert sorted(queued(queue) + on_the_wire) == sorted(ids)
        far_end.mend()
        await wait_until(lambda: started(queue) == [])
        assert queued(queue) == ids[len(on_the_wire) :]


@pytest.mark.parametrize("name", ["restored", "restored2"])
async def test_the_names_for_a_restored_backup_are_not_for_holds_by_hand(
    store: redis.asyncio.Redis, name: str
) -> None:
    with pytest.raises(HoldError, match="kept for mail of a restored backup"):
        await hold(store, name, rule="a")
    await hold(store, "restored-x", rule="a")


@pytest.mark.parametrize("name", ["-x", "A", "a b", "x" * 41, "a\n", "ä"])
async def test_a_name_that_a_terminal_or_an_option_would_misread_is_refused(
    store: redis.asyncio.Redis, name: str
) -> None:
    with pytest.raises(HoldError, match="a name is 1 to 40 of"):
        await hold(store, name, rule="a")


async def test_a_release_that_meets_nothing_leaves_the_hold_as_it_is(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    put(queue, mail=PAYROLL)
    made = await hold(store, stream="outbound")
    done = await releases.release(store, 1.0, selection=Selection(sender="nobody@*"))
    assert done.holds == ()
    assert await holds.standing_holds(store) == (made,)


async def test_what_is_released_by_age_again_and_again_does_not_grow(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    now = time.time()
    await hold(store, stream="outbound")
    for hours in (9, 8, 7):
        put(queue, mail=envelope(accepted_at=now - hours * 3600 - 1))
        for _ in range(2):
            await release(store, before=now - hours * 3600)
    [standing] = await holds.standing_holds(store)
    assert standing.released == (Selection(before=now - 7 * 3600),)
    assert "; " not in str(standing)
    assert ", except mail taken before " in str(standing)


async def test_a_release_says_what_goes_on_and_what_another_hold_keeps(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    put(queue, 2, mail=PAYROLL)
    put(queue, 3, mail=NEWS)
    whole = await hold(store, stream="outbound")
    await hold(store, "wages", rule="payroll")
    done = await releases.release(store, time.time(), names=(whole.name,))
    assert done == releases.Released((whole.name,), 0, queued=3, kept=("wages",))


async def test_a_release_that_loses_redis_in_the_middle_says_that_it_goes_on(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=PAYROLL)
    made = await hold(store, rule="payroll")
    async with claims_on(data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
    queue.execute_command("ACL", "SETUSER", "default", "-hmget")  # which only putting back needs
    with pytest.raises(releases.ReleaseBegun):
        await release(store, made.name)
    queue.execute_command("ACL", "SETUSER", "default", "+hmget")
    with pytest.raises(HoldError, match="is being released already"):
        await release(store, made.name)
    assert await releases.finish_releases(store, time.time() + 60) == 1
    assert queued(queue) == [message_id]


async def test_a_hold_that_is_being_released_is_said_to_be(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    queue.hset(keys.HOLDS, "release-1", json.dumps({"returning": 1.0, "names": ["mine"]}))
    with pytest.raises(HoldError, match="'mine' is being released already"):
        await release(store, "mine")
    with pytest.raises(HoldError, match="there is no hold 'yours'"):
        await release(store, "yours")


@pytest.mark.parametrize(
    "record",
    [
        '{"stream": 1, "sender": {}, "rule": [], "before": "x", "except": 7}',
        '{"stream": null, "except": [1, {"sender": 3}, {"before": "y"}]}',
        '{"returning": "x", "stream": 7}',
        "[1]",
        "{",
    ],
)
async def test_a_record_that_makes_no_sense_stops_no_command_and_lets_nothing_go(
    queue: redis.Redis, store: redis.asyncio.Redis, data_dir: Path, record: str
) -> None:
    ids = put(queue, 2, mail=PAYROLL)
    queue.hset(keys.HOLDS, "odd", record)
    [only] = await holds.standing_holds(store) or [None]
    async with claims_on(data_dir) as claims:
        if only is None:  # no hold at all
            assert [each.id for each in await claim_all(claims, 2)] == ids
            return
        assert await claims.claim({"outbound": 2}) == []
        await release(store, "odd")
        assert [each.id for each in await claim_all(claims, 2)] == ids


async def test_the_log_says_who_holds_and_releases_what(
    queue: redis.Redis, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    put(queue, mail=PAYROLL)
    made, _ = await holds.hold(store, Hold("mine", Selection(stream="outbound"), 1.0, "me", "why"))
    await releases.release(store, 1.0, selection=Selection(rule="payroll"), by="you")
    await releases.release(store, 1.0, names=(made.name,), by="you")
    task = asyncio.create_task(log_by_hand(store, every=0.01))
    said: list[str] = []

    def all_said() -> bool:
        said.extend(capfd.readouterr().err.splitlines())
        return len(said) >= 3

    await wait_until(all_said)
    task.cancel()
    words = [line.partition(" ")[2] for line in said]
    assert words == [
        'held by=hand hold=mine mail="mail of stream outbound" user=me reason=why',
        'released by=hand hold=mine mail="all mail by rule payroll" user=you',
        'released by=hand hold=mine mail="mail of stream outbound" user=you',
    ]


async def test_flush_of_some_mail_probes_only_the_routes_of_streams_that_have_it(
    queue: redis.Redis, store: redis.asyncio.Redis
) -> None:
    put(queue, mail=PAYROLL)
    for name in ("outbound", "broadcasts"):
        queue.hset(keys.ROUTES, name, json.dumps({"streams": [name], "probe_at": 9e9}))
    streams = ("outbound", "broadcasts")
    done = await flushing.flush(store, streams, Selection(sender="nobody@*"))
    assert done == flushing.Flushed()
    done = await flushing.flush(store, streams, Selection(sender="payroll@*"))
    assert done == flushing.Flushed(routes=1)
    assert json.loads(queue.hget(keys.ROUTES, "broadcasts") or b"")["probe_at"] == 9e9
    assert (await flushing.flush(store, streams, Selection())).routes == 2
