"""An account that refuses everything: however many workers meet it, few messages die of it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.queue import keys
from proxy.queue.job import decode_envelope
from tests.support.far_end import FarEnd
from tests.support.mail_queue import (
    claim_all,
    claims_on,
    dead,
    envelope,
    job,
    put,
    started,
    unsettled,
)
from tests.support.processes import Installation, Program
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.relaying import relay_at_work, sample, settings_for
from tests.support.waiting import wait_until
from worker.board import ANY_ROW, Board
from worker.claims import Claim, Claims, Leave, Settlement
from worker.gate import Gate
from worker.pauses import Reason

SUSPENDED = "550 5.0.0 account suspended"
ROUTE = "a-route"


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def row(queue: redis.Redis, route: str = ROUTE) -> dict[str, Any]:
    found = queue.hget(keys.REFUSALS, route)
    return json.loads(found) if found else {}


async def refused(claims: Claims, claim: Claim, reply: str = "550 5.0.0") -> Leave:
    return await claims.refused(claim, ROUTE, reply)


async def taken(claims: Claims, claim: Claim, name: str) -> None:
    claims.passed(claim, ROUTE, name)
    assert await claims.settle(claim, Settlement("gone"))


# -- the count alone ------------------------------------------------------------------------------


async def test_of_messages_refused_alike_by_several_workers_four_may_die(
    queue: redis.Redis, data_dir: Path
) -> None:
    put(queue, 9)
    async with claims_on(data_dir) as one, claims_on(data_dir, number=2) as two:
        first, second = await claim_all(one, 5), await claim_all(two, 4)
        asked = [(one, each) for each in first] + [(two, each) for each in second]
        leaves = await asyncio.gather(*(refused(claims, claim) for claims, claim in asked))
    assert leaves.count(Leave.DIES) == 4
    assert leaves.count(Leave.WAITS) == 5
    assert row(queue)["closed"]


async def test_one_message_refused_often_counts_once(queue: redis.Redis, data_dir: Path) -> None:
    put(queue)
    async with claims_on(data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        for _ in range(7):
            assert await refused(claims, claim) is Leave.DIES


async def test_another_reply_starts_a_new_count(queue: redis.Redis, data_dir: Path) -> None:
    put(queue, 5)
    async with claims_on(data_dir) as claims:
        *four, last = await claim_all(claims, 5)
        for claim in four:
            assert await refused(claims, claim) is Leave.DIES
        assert await refused(claims, last, "552 5.3.4") is Leave.DIES
    assert len(row(queue)["messages"]) == 1


async def test_while_everything_is_refused_none_dies_of_another_reply_either(
    queue: redis.Redis, data_dir: Path
) -> None:
    put(queue, 6)
    async with claims_on(data_dir) as claims:
        *five, last = await claim_all(claims, 6)
        for claim in five:
            await refused(claims, claim)
        assert await refused(claims, last, "554 5.0.0") is Leave.WAITS


async def test_a_message_that_is_taken_ends_the_row_whichever_worker_sent_it(
    queue: redis.Redis, data_dir: Path
) -> None:
    put(queue, 6)
    async with claims_on(data_dir) as one, claims_on(data_dir, number=2) as two:
        first, [good] = await claim_all(one, 5), await claim_all(two, 1)
        for claim in first[:4]:
            assert await refused(one, claim) is Leave.DIES
        await taken(two, good, row(queue)["id"])
        assert not row(queue)
        assert await refused(one, first[4]) is Leave.DIES


async def test_what_proves_an_earlier_row_over_does_not_end_a_later_one(
    queue: redis.Redis, data_dir: Path
) -> None:
    put(queue, 4)
    async with claims_on(data_dir) as claims:
        bad, worse, good, better = await claim_all(claims, 4)
        await refused(claims, bad)
        earlier = row(queue)["id"]
        await taken(claims, good, earlier)
        await refused(claims, worse)
        await taken(claims, better, earlier)
    assert len(row(queue)["messages"]) == 1


async def test_what_is_refused_again_after_others_were_taken_dies_and_speaks_against_nobody(
    queue: redis.Redis, data_dir: Path
) -> None:
    put(queue, 12)
    async with claims_on(data_dir) as claims:
        *many, good = await claim_all(claims, 12)
        leaves = [await refused(claims, claim) for claim in many]
        waiting = [c for c, leave in zip(many, leaves, strict=True) if leave is Leave.WAITS]
        assert len(waiting) == 7
        await taken(claims, good, ANY_ROW)
        for claim in waiting:
            assert await refused(claims, claim) is Leave.DIES
    assert not row(queue)


async def test_a_row_outlives_the_workers_that_met_it(queue: redis.Redis, data_dir: Path) -> None:
    put(queue, 8)
    for expected in (3, 1, 0):
        async with claims_on(data_dir) as claims:
            held = await claim_all(claims, 8)
            new = [claim for claim in held if claim.id not in row(queue).get("messages", ())]
            leaves = [await refused(claims, claim) for claim in new[:3]]
            assert leaves.count(Leave.DIES) == expected


async def test_a_message_that_another_has_now_is_not_judged(
    queue: redis.Redis, data_dir: Path
) -> None:
    put(queue)
    async with claims_on(data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        await claims.settle(claim, Settlement("back"))
        assert await refused(claims, claim) is Leave.LOST
    assert not row(queue)


async def test_a_row_that_cannot_be_read_kills_nobody_for_ever(
    queue: redis.Redis, data_dir: Path
) -> None:
    queue.hset(keys.REFUSALS, ROUTE, '{"id": 7, "messages": 3}')
    put(queue, 2)
    async with claims_on(data_dir) as claims:
        bad, good = await claim_all(claims, 2)
        assert await refused(claims, bad, "x") is Leave.DIES
        queue.hset(keys.REFUSALS, ROUTE, '{"id": 7, "reply": "x", "messages": 3}')
        assert await refused(claims, bad, "x") is Leave.WAITS
        await taken(claims, good, ANY_ROW)
    assert not row(queue)


async def test_mail_that_is_taken_while_nothing_is_refused_says_nothing_of_rows(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr(Claims, "passed", lambda *words: said.append(words))
    put(queue, 30)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await far_end.until(30)
    assert not said


# -- what a 250 proves ----------------------------------------------------------------------------


def test_mail_under_way_when_the_refusals_began_proves_nothing() -> None:
    board = Board()
    gate = Gate(("refusals-test",), lambda: 0.0, board, name="r", where="h")
    before = gate.proof
    board.heard_rows([b"r", b'{"id": "row-1"}'])
    assert gate.accepted(before) == ""
    assert gate.proof == "row-1"
    assert gate.accepted(gate.proof) == "row-1"
    assert gate.proof == ""


def test_mail_taken_by_a_closed_route_that_was_begun_before_makes_the_probe_due() -> None:
    gate = Gate(("refusals-test",), lambda: 0.0, Board(), name="r", where="h")
    gate.close(Reason.REFUSING, "550")
    assert not gate.probe_due
    assert gate.accepted("") == ""
    assert gate.reason is Reason.REFUSING
    assert gate.probe_due


def test_a_row_of_another_route_is_none_of_a_gates_business() -> None:
    board = Board()
    gate = Gate(("refusals-test",), lambda: 0.0, board, name="r", where="h")
    board.heard_rows([b"other", b'{"id": "row-1"}'])
    assert gate.proof == ""
    for damaged in (b"no JSON", b'{"id": 7}', b"[]", b"7"):
        board.heard_rows([b"r", damaged])
        assert gate.proof == ANY_ROW
    board.heard_rows([])
    assert gate.proof == ""


# -- whole workers --------------------------------------------------------------------------------


def refusing() -> bool:
    return sample("franker_route_paused", stream="outbound", reason="refusing") == 1


async def test_of_mail_on_ten_connections_few_die_when_the_account_is_suspended_in_the_midst(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    # What was let in before is taken all the while: late 250s prove nothing.
    far_end.fail("dot", do="delay", seconds=0.3)
    fault = far_end.fail("mail", SUSPENDED, skip=60)
    put(queue, 200)
    settings = settings_for(far_end, data_dir, retry={"first": 0.5})
    async with relay_at_work(settings, data_dir):
        await wait_until(refusing)
        await wait_until(lambda: far_end.store.count == 60 and not started(queue))
        assert 0 < len(dead(queue)) < 5
        assert len(dead(queue)) + len(unsettled(queue)) == 140
        far_end.mend()
        await far_end.until(200 - len(dead(queue)))
        await wait_until(lambda: not queue.exists(keys.REFUSALS) and not refusing())
    assert fault
    assert len(dead(queue)) < 5


async def test_a_late_250_to_mail_begun_before_the_refusals_opens_nothing(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("dot", do="delay", seconds=5.0, address="slow@*")
    far_end.fail("mail", SUSPENDED, address="bad@*")
    settings = settings_for(far_end, data_dir, retry={"first": 0.2})
    async with relay_at_work(settings, data_dir) as relay:
        [slow] = put(queue, mail=envelope("slow@example.net"))
        await wait_until(lambda: far_end.faults.listed()[0]["met"] == 1)
        put(queue, 8, mail=replace(envelope(), mail_from="bad@shop.example"))
        await wait_until(refusing)
        assert far_end.store.count == 0
        route = relay.channels[0].gate.name
        refusals = row(queue, route)
        await wait_until(lambda: not queue.exists(keys.job_key(slow)), what="it is taken")
        tried = far_end.faults.listed()[1]["met"]
        await wait_until(lambda: far_end.faults.listed()[1]["met"] > tried, what="a probe")
        await wait_until(lambda: not started(queue))
        assert refusing()
        assert row(queue, route)["id"] == refusals["id"]
    assert len(dead(queue)) == 4


async def test_bad_mail_amid_good_mail_dies_and_does_not_stop_it(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("mail", "550 5.1.8 unknown sender", address="bad@*")
    bad = replace(envelope(), mail_from="bad@shop.example")
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        for count in range(1, 9):
            put(queue)
            await far_end.until(count)
            put(queue, mail=bad)
            await wait_until(lambda count=count: len(dead(queue)) == count)
    assert len(dead(queue)) == 8


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_data_dir()
    yield folder
    remove_data_dir(folder)


@asynccontextmanager
async def workers(
    folder: Path, far_end: FarEnd, count: int
) -> AsyncIterator[tuple[redis.Redis, list[Program]]]:
    """Start Redis and `count` workers, each a process of its own."""
    sections = {"postmark": far_end.postmark(), "retry": {"first": "1s", "cap": "2s"}}
    one = Installation(folder, sections)
    one.environ |= {"POSTMARK_SERVER_TOKEN": far_end.token, "FRANKER_WORKER__HTTP": ""}
    try:
        store = one.start("redis")
        await asyncio.to_thread(store.wait_for, "started process=redis")
        with redis.Redis(unix_socket_path=str(one.data_dir / "redis.sock")) as client:
            programs = [one.start("worker", "--number", str(n + 1)) for n in range(count)]
            for program in programs:
                await asyncio.to_thread(program.wait_for, "started process=worker")
            yield client, programs
    finally:
        await asyncio.to_thread(one.close)


def dying_words(queue: redis.Redis) -> Counter[str]:
    letters = [decode_envelope(job(queue, each)["envelope"]) for each in dead(queue)]
    return Counter(reply for letter in letters for reply in letter.replies.values())


@pytest.mark.parametrize("count", [2, 3])
async def test_of_200_messages_to_a_suspended_account_few_die_by_many_workers_and_the_rest_goes(
    folder: Path, count: int
) -> None:
    async with FarEnd() as far_end, workers(folder, far_end, count) as (queue, programs):
        far_end.fail("mail", SUSPENDED)
        put(queue, 10, mail=replace(envelope(), mail_from="bad@shop.example"))
        put(queue, 190)
        for program in programs:
            await asyncio.to_thread(program.wait_for, "route_paused stream=outbound")
        await wait_until(lambda: not started(queue))
        early = dead(queue)
        assert len(early) < 5
        assert len(early) + len(unsettled(queue)) == 200
        assert all("suspended" in words for words in dying_words(queue))
        far_end.mend()
        far_end.fail("mail", "550 5.1.8 unknown sender", address="bad@*")
        await wait_until(lambda: not unsettled(queue), 40)
        words = dying_words(queue)
        assert far_end.store.count == 190 - len(early) + early_bad(queue, early)
        assert words["550 5.1.8 unknown sender"] == 10 - early_bad(queue, early)


def early_bad(queue: redis.Redis, early: list[str]) -> int:
    """How many of those that died early were bad."""
    senders = [decode_envelope(job(queue, each)["envelope"]).mail_from for each in early]
    return senders.count("bad@shop.example")


async def test_a_worker_killed_and_started_over_and_over_kills_no_more_mail(folder: Path) -> None:
    async with FarEnd() as far_end, workers(folder, far_end, 1) as (queue, [program]):
        far_end.fail("mail", SUSPENDED)
        put(queue, 100)
        await asyncio.to_thread(program.wait_for, "route_paused stream=outbound")
        config = str(folder / "franker.toml")
        environ = {
            "POSTMARK_SERVER_TOKEN": far_end.token,
            "FRANKER_WORKER__HTTP": "",
            "XDG_STATE_HOME": str(folder / "state"),
        }
        for _ in range(2):
            program.kill()
            program = Program("worker", "--config", config, folder=folder, environ=environ)
            try:
                await asyncio.to_thread(program.wait_for, "route_paused stream=outbound")
            finally:
                await wait_until(lambda: not started(queue))
        program.stop()
        assert len(dead(queue)) < 5
        assert len(dead(queue)) + len(unsettled(queue)) == 100
