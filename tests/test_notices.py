"""Owners hear of mail that died, leaves the queue or is late: real Redis, real far end."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from proxy.config import Settings
from proxy.mail.ids import new_id
from proxy.queue import by_command, keys
from proxy.queue.connection import open_redis
from proxy.queue.holds import Hold, hold
from proxy.queue.job import decode_envelope
from proxy.queue.selection import Selection
from tests.support.far_end import FarEnd
from tests.support.mail_queue import (
    claim_all,
    claims_on,
    dead,
    envelope,
    job,
    put,
    queued,
    started,
)
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, settings_for
from tests.support.waiting import wait_until
from worker.claims import Claims, Settlement
from worker.notices.office import Office, open_office
from worker.relay import letter

OWNER = "payroll-team@example.com"
NOTIFY: dict[str, Any] = {
    "to": "postmaster@example.com",
    "from": "franker@shop.example",
    "stream": "alerts",
}
BODY = b"From: app@shop.example\r\nSubject: =?utf-8?q?L=C3=B6hne?=\r\n\r\nhello\r\n"


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def settings_with(**sections: Any) -> Settings:
    return Settings.model_validate({"notify": NOTIFY, "streams": {"alerts": {}}, **sections})


@asynccontextmanager
async def office_of(
    settings: Settings, data_dir: Path, claims: Claims, **times: float
) -> AsyncIterator[Office]:
    """Open an office whose turns the test takes itself; everything is told without waiting."""
    store = open_redis(settings, data_dir, timeout=10)
    times = {"look": 0.0, "gathered": 0.0, **times}
    try:
        yield Office(settings, data_dir, store, lambda: claims.incarnation, **times)
    finally:
        await store.aclose()


@asynccontextmanager
async def at_work(
    data_dir: Path, settings: Settings | None = None, **times: float
) -> AsyncIterator[tuple[Claims, Office]]:
    settings = settings or settings_with()
    async with (
        claims_on(data_dir, settings=settings) as claims,
        office_of(settings, data_dir, claims, **times) as office,
    ):
        yield claims, office


async def die(
    claims: Claims, queue: redis.Redis, *, reply: str = "550 5.1.1 no such person", **mail: Any
) -> str:
    """Let a message die as the relay does; return the id of its dead letter."""
    before = set(dead(queue))
    [message_id] = put(queue, body=BODY, mail=envelope(**{"owner": OWNER, **mail}))
    [claim] = await claim_all(claims, 1)
    assert claim.id == message_id
    left = claim.envelope
    end = letter(left, dict.fromkeys(left.recipients, reply))
    assert await claims.settle(claim, Settlement("gone", dead=end))
    return (set(dead(queue)) - before).pop() if set(dead(queue)) != before else message_id


def notices(queue: redis.Redis) -> list[tuple[str, EmailMessage]]:
    """Return the recipient and the message of every notice that waits."""
    found = []
    for job_id in queued(queue, "alerts"):
        fields = job(queue, job_id)
        mail = decode_envelope(fields["envelope"])
        if mail.notice:
            message = message_from_bytes(fields["body"], policy=policy.default)
            assert isinstance(message, EmailMessage)
            found.append((mail.recipients[0], message))
    return found


async def test_an_owner_is_told_of_a_death_with_the_reply_word_for_word(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with at_work(data_dir) as (claims, office):
        job_id = await die(
            claims, queue, reply="550 5.1.1 <you@example.net>: Löhne? no such person"
        )
        await office.turn()
        [(to, notice)] = notices(queue)
    assert to == OWNER
    assert notice["To"] == OWNER
    assert notice["From"].addresses[0].addr_spec == "franker@shop.example"
    assert notice["Auto-Submitted"] == "auto-generated"
    assert notice["X-PM-Message-Stream"] == "alerts"
    assert notice["Subject"] == "1 message could not be sent"
    text = notice.get_content()
    assert job_id in text
    assert "to you@example.net: 550 5.1.1 <you@example.net>: Löhne? no such person" in text
    assert "subject: Löhne" in text


async def test_mail_without_an_owner_is_told_to_notify_to_and_together_with_its_own(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with at_work(data_dir) as (claims, office):
        await die(claims, queue, owner="")
        await die(claims, queue, owner=NOTIFY["to"])
        await office.turn()
        await office.turn()
        [(to, notice)] = notices(queue)
    assert to == NOTIFY["to"]
    assert notice["Subject"] == "2 messages could not be sent"


async def test_each_owner_hears_of_his_own_mail_only(queue: redis.Redis, data_dir: Path) -> None:
    async with at_work(data_dir) as (claims, office):
        ids = {
            owner: await die(claims, queue, owner=owner) for owner in (OWNER, "other@example.com")
        }
        await office.turn()
        found = dict(notices(queue))
    assert found.keys() == ids.keys()
    for owner, message in found.items():
        told = {each for each, job_id in ids.items() if job_id in message.get_content()}
        assert told == {owner}


async def test_an_owner_hears_at_most_once_in_15_minutes_then_of_all_that_died_since(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with at_work(data_dir) as (claims, office):
        await die(claims, queue)
        await office.turn()
        later = [await die(claims, queue) for _ in range(3)]
        await office.turn()
        assert len(notices(queue)) == 1
        queue.hincrby(keys.TOLD, OWNER, -600)
        await office.turn()
        assert len(notices(queue)) == 1
        queue.hincrby(keys.TOLD, OWNER, -300)
        await office.turn()
        second = notices(queue)[1][1]
    assert second["Subject"] == "3 messages could not be sent"
    assert all(job_id in second.get_content() for job_id in later)


async def test_what_dies_together_is_told_together(queue: redis.Redis, data_dir: Path) -> None:
    async with at_work(data_dir, gathered=30.0) as (claims, office):
        await die(claims, queue)
        await office.turn()
        assert notices(queue) == []
        await die(claims, queue)
        for job_id in dead(queue):
            queue.zincrby(keys.untold_key(OWNER), -31, job_id)
        await office.turn()
        [(_, notice)] = notices(queue)
    assert notice["Subject"] == "2 messages could not be sent"


async def test_a_clock_set_back_by_a_year_leaves_nobody_untold(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with at_work(data_dir) as (claims, office):
        await die(claims, queue)
        queue.hset(keys.TOLD, OWNER, int(time.time()) + 31_536_000)
        await office.turn()
        assert len(notices(queue)) == 1


async def test_a_death_noted_before_the_clock_was_set_back_is_told_at_once(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with at_work(data_dir, gathered=10.0) as (claims, office):
        job_id = await die(claims, queue)
        queue.zadd(keys.untold_key(OWNER), {job_id: time.time() + 31_536_000})
        await office.turn()
        assert len(notices(queue)) == 1


async def test_an_office_that_is_ended_anywhere_tells_each_death_once_all_the_same(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(dead={"max": 1}, notify={**NOTIFY, "delay": "1h"})
    owners = [f"owner{number}@example.com" for number in range(40)]
    chance = random.Random(20261120)
    ids: dict[str, str] = {}
    async with claims_on(data_dir, settings=settings) as claims:
        for owner in owners:
            ids[owner] = await die(claims, queue, owner=owner)
            async with office_of(settings, data_dir, claims) as office:
                turn = asyncio.create_task(office.turn())
                await asyncio.wait((turn,), timeout=chance.uniform(0.0, 0.02))
                turn.cancel()
                await asyncio.gather(turn, return_exceptions=True)
            files = {path.stem for path in (data_dir / "dead").glob("[!.]*.eml")}
            assert set(ids.values()) <= set(dead(queue)) | files
        async with office_of(settings, data_dir, claims) as office:
            await office.turn()
    found = notices(queue)
    assert sorted(to for to, _ in found) == sorted(owners)
    assert all(ids[to] in notice.get_content() for to, notice in found)


async def test_many_offices_open_at_once_tell_each_death_once(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with()
    async with claims_on(data_dir, settings=settings) as claims:
        ids = [await die(claims, queue) for _ in range(5)]
        async with (
            office_of(settings, data_dir, claims) as first,
            office_of(settings, data_dir, claims) as second,
            office_of(settings, data_dir, claims) as third,
        ):
            for _ in range(5):
                await asyncio.gather(first.turn(), second.turn(), third.turn())
        [(_, notice)] = notices(queue)
    assert all(notice.get_content().count(job_id) == 1 for job_id in ids)


async def test_only_the_first_of_several_workers_tells(queue: redis.Redis, data_dir: Path) -> None:
    settings = settings_with()
    async with (
        claims_on(data_dir, settings=settings) as one,
        claims_on(data_dir, settings=settings, number=2) as two,
    ):
        await die(one, queue)
        later = max((one, two), key=lambda claims: claims.incarnation)
        async with office_of(settings, data_dir, later) as office:
            await office.turn()
        assert notices(queue) == []


async def test_nobody_is_told_of_mail_that_wants_no_notices(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with at_work(data_dir) as (claims, office):
        await die(claims, queue, notify=False)
        await office.turn()
        assert notices(queue) == []


async def test_nobody_is_told_of_a_dead_letter_that_was_put_back_in_time(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with()
    async with at_work(data_dir, settings) as (claims, office):
        job_id = await die(claims, queue)
        store = open_redis(settings, data_dir, timeout=10)
        assert await by_command.retry(store, [job_id], now=time.time()) == {job_id: "retried"}
        await store.aclose()
        await office.turn()
        assert notices(queue) == []
        assert not queue.exists(keys.untold_key(OWNER))


async def test_a_letter_that_dies_again_is_told_again(queue: redis.Redis, data_dir: Path) -> None:
    settings = settings_with()
    async with at_work(data_dir, settings, least_between=0.0) as (claims, office):
        job_id = await die(claims, queue)
        await office.turn()
        store = open_redis(settings, data_dir, timeout=10)
        await by_command.retry(store, [job_id], now=time.time())
        await store.aclose()
        [claim] = await claim_all(claims, 1)
        assert claim.id == job_id
        end = letter(claim.envelope, {"you@example.net": "550 5.1.1 still not"})
        assert await claims.settle(claim, Settlement("gone", dead=end))
        await office.turn()
        [_, (_, notice)] = notices(queue)
    assert "550 5.1.1 still not" in notice.get_content()


async def test_without_an_address_to_send_from_nobody_is_told_and_nothing_grows(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = Settings.model_validate({"notify": {"to": "postmaster@example.com"}})
    async with at_work(data_dir, settings) as (claims, office):
        await die(claims, queue)
        queue.zadd(keys.untold_key(OWNER), {f"x{n}": n for n in range(10_500)})
        await office.turn()
        assert notices(queue) == []
        assert queue.zcard(keys.untold_key(OWNER)) == 10_000


async def test_a_notice_that_dies_leaves_nothing_but_its_log_line(
    queue: redis.Redis, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with FarEnd() as far_end:
        far_end.fail("rcpt", "550 5.1.1 no such person", address="*")
        settings = settings_for(far_end, data_dir, notify={**NOTIFY, "stream": "outbound"})
        async with (
            relay_at_work(settings, data_dir) as relay,
            office_of(settings, data_dir, relay._claims, least_between=0.0) as office,
        ):
            put(queue, mail=envelope(owner=OWNER))
            await wait_until(lambda: len(dead(queue)) == 1)
            for _ in range(3):
                await office.turn()
                await wait_until(lambda: not queued(queue) and not started(queue))
            assert len(dead(queue)) == 1
    told = [line for line in capfd.readouterr().err.splitlines() if " dead id=" in line]
    assert any(f"to={OWNER}" in line for line in told)
    assert len(told) == 2


async def test_a_notice_reaches_its_owner_by_the_configured_stream(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with FarEnd() as far_end:
        far_end.fail("rcpt", "550 5.1.1 no such person", address="you@*")
        token = {"token": {"file": str(data_dir / "token")}}
        settings = settings_for(
            far_end,
            data_dir,
            notify=NOTIFY,
            streams={"outbound": token, "alerts": {**token, "id": "outbound"}},
        )
        async with (
            relay_at_work(settings, data_dir) as relay,
            office_of(settings, data_dir, relay._claims) as office,
        ):
            put(queue, mail=envelope(owner=OWNER))
            await wait_until(lambda: len(dead(queue)) == 1)
            await office.turn()
            [taken] = await far_end.until(1)
    assert taken.recipients == (OWNER,)
    assert b"1 message could not be sent" in taken.content


async def test_mail_later_than_notify_delay_is_told_once(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(notify={**NOTIFY, "delay": "1h"})
    long_ago = time.time() - 3700
    async with at_work(data_dir, settings, least_between=0.0) as (_, office):
        [fresh] = put(queue, mail=envelope(owner=OWNER))
        old = new_id(int(long_ago * 1000))
        quiet = new_id(int(long_ago * 1000))
        _put_as(queue, old, envelope(owner=OWNER, accepted_at=long_ago))
        _put_as(queue, quiet, envelope(owner=OWNER, accepted_at=long_ago, notify=False))
        for _ in range(3):
            await office.turn()
        [(to, notice)] = notices(queue)
    assert to == OWNER
    assert notice["Subject"] == "1 message is late"
    text = notice.get_content()
    assert old in text
    assert fresh not in text
    assert quiet not in text


@pytest.mark.parametrize("selection", [Selection(stream="outbound"), Selection(rule="pay")])
async def test_held_mail_that_is_late_is_told_as_held_and_not_as_trouble(
    queue: redis.Redis, data_dir: Path, selection: Selection
) -> None:
    settings = settings_with(notify={**NOTIFY, "delay": "1h"})
    long_ago = time.time() - 3700
    old = new_id(int(long_ago * 1000))
    _put_as(queue, old, envelope(owner=OWNER, accepted_at=long_ago, rule="pay"))
    async with at_work(data_dir, settings) as (claims, office):
        client = open_redis(settings, data_dir, timeout=5)
        await hold(client, Hold("mine", selection, time.time()))
        await client.aclose()
        assert await claims.claim({"outbound": 1}) == []
        await office.turn()
        [(_, notice)] = notices(queue)
    assert notice["Subject"] == "1 message is held"
    text = notice.get_content()
    assert old in text
    assert "franker queue holds" in text
    assert "late" not in text


async def test_late_mail_is_told_once_by_another_office_too(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(notify={**NOTIFY, "delay": "1h"})
    long_ago = time.time() - 3700
    _put_as(queue, new_id(int(long_ago * 1000)), envelope(accepted_at=long_ago))
    async with at_work(data_dir, settings, least_between=0.0) as (claims, office):
        await office.turn()
        async with office_of(settings, data_dir, claims, least_between=0.0) as another:
            await another.turn()
        assert len(notices(queue)) == 1


async def test_deferred_mail_that_is_late_is_told_with_its_last_reply(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(notify={**NOTIFY, "delay": "1h"})
    long_ago = time.time() - 3700
    _put_as(queue, new_id(int(long_ago * 1000)), envelope(owner=OWNER, accepted_at=long_ago))
    async with at_work(data_dir, settings) as (claims, office):
        [claim] = await claim_all(claims, 1)
        left = claim.envelope.left(claim.envelope.recipients, {"you@example.net": "451 busy"})
        assert await claims.settle(claim, Settlement("defer", left, delay=600))
        await office.turn()
        [(_, notice)] = notices(queue)
    assert "to you@example.net: 451 busy" in notice.get_content()


def _put_as(queue: redis.Redis, job_id: str, mail: Any) -> None:
    """Put a message under an id of the test's choice: one taken long ago."""
    [fresh] = put(queue, body=BODY, mail=mail)
    queue.rename(keys.job_key(fresh), keys.job_key(job_id))
    queue.lrem(keys.queue_key("outbound"), 0, fresh)
    queue.rpush(keys.queue_key("outbound"), job_id)


async def test_the_oldest_letters_become_files_after_their_owner_was_told(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(dead={"max": 2000})
    async with at_work(data_dir, settings, least_between=0.0) as (claims, office):
        first = await die(claims, queue)
        await office.turn()
        others = [await die(claims, queue) for _ in range(10)]
        folder = data_dir / "dead"
        await office.turn()
        assert first in dead(queue)
        assert not folder.exists()
        text = notices(queue)[1][1].get_content()
        assert f"{folder} on" in text
        assert text.index(first) > text.index("leave the queue now")
        await office.turn()
        files = {path.name for path in folder.iterdir()}
        assert first not in dead(queue)
        assert not queue.exists(keys.job_key(first))
        assert files == {f"{job_id}.eml" for job_id in (first, *others)} - {
            f"{job_id}.eml" for job_id in dead(queue)
        }
        assert 0 < len(dead(queue)) < 11
    letter_file = message_from_bytes((folder / f"{first}.eml").read_bytes(), policy=policy.default)
    assert letter_file["X-Franker-Id"] == first
    assert letter_file["X-Franker-Recipient"] == "<you@example.net>; 550 5.1.1 no such person"
    assert (folder / f"{first}.eml").read_bytes().endswith(BODY)


async def test_a_letter_stays_until_its_owner_may_be_told_again(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(dead={"max": 10})
    async with at_work(data_dir, settings) as (claims, office):
        job_id = await die(claims, queue)
        queue.hset(keys.TOLD, OWNER, int(time.time()))
        for _ in range(3):
            await office.turn()
        assert dead(queue) == [job_id]
        queue.hincrby(keys.TOLD, OWNER, -900)
        await office.turn()
        assert [notice["Subject"] for _, notice in notices(queue)] == [
            "1 dead message becomes a file"
        ]
        await office.turn()
        assert dead(queue) == []


async def test_letters_older_than_dead_keep_become_files(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(dead={"keep": "1d"})
    async with at_work(data_dir, settings) as (claims, office):
        old, young = [await die(claims, queue, notify=False) for _ in range(2)]
        queue.hset(keys.job_key(old), "died", "2026-01-01T00:00:00.000000Z")
        await office.turn()
        assert dead(queue) == [young]
        assert [path.name for path in (data_dir / "dead").iterdir()] == [f"{old}.eml"]


async def test_a_letter_that_cannot_be_written_stays_in_redis(
    queue: redis.Redis, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data_dir / "dead").write_text("a file is in the way")
    settings = settings_with(dead={"max": 10})
    async with at_work(data_dir, settings) as (claims, office):
        job_id = await die(claims, queue, notify=False)
        await office.turn()
        await office.turn()
        assert dead(queue) == [job_id]
    assert capfd.readouterr().err.count("dead letters stay in Redis") == 1


async def test_no_letter_is_written_to_a_disk_that_is_nearly_full(
    queue: redis.Redis, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_with(dead={"max": 10}, journal={"disk_floor": 10**18})
    async with at_work(data_dir, settings) as (claims, office):
        job_id = await die(claims, queue, notify=False)
        await office.turn()
        assert dead(queue) == [job_id]
        assert not (data_dir / "dead").exists()
    assert "(journal.disk_floor)" in capfd.readouterr().err


async def test_a_letter_put_back_while_it_is_written_stays_in_the_queue(
    queue: redis.Redis, data_dir: Path
) -> None:
    settings = settings_with(dead={"max": 10})
    async with at_work(data_dir, settings) as (claims, office):
        job_id = await die(claims, queue, notify=False)
        books = office._books
        assert await books.leave([(job_id, "another death")]) == [False]
        assert dead(queue) == [job_id]


async def test_a_worker_has_an_office(queue: redis.Redis, data_dir: Path) -> None:
    settings = settings_with()
    async with claims_on(data_dir, settings=settings) as claims:
        await die(claims, queue)
        for job_id in dead(queue):
            queue.zincrby(keys.untold_key(OWNER), -60, job_id)
        async with open_office(settings, data_dir, lambda: claims.incarnation):
            await wait_until(lambda: len(notices(queue)) == 1)
