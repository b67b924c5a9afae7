"""`expires` of a rule: real time since the 250, whatever state mail is in, whatever the clock."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from proxy.config import Settings
from proxy.queue import holds, keys, releases
from proxy.queue.connection import open_redis
from proxy.queue.expiry import Instant, boot_name, has_expired, read_clocks, stamped
from proxy.queue.holds import Hold
from proxy.queue.job import JobEnvelope, decode_envelope
from proxy.queue.selection import Selection
from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.mail_queue import (
    MARKED,
    dead,
    envelope,
    job,
    put,
    queued,
    scheduled,
    started,
    unsettled,
)
from tests.support.processes import Installation
from tests.support.redis_server import RedisServer
from tests.support.relaying import login_without_api, relay_at_work, sample, settings_for
from tests.support.waiting import wait_until

YEAR = 365 * 86_400.0
NOW = Instant(wall=1_795_167_781.0, uptime=5000.0, boot="here")
OTP = stamped(
    envelope(accepted_at=NOW.wall, expires_at=NOW.wall + 900, owner="desk@example.com"), NOW
)


def later(seconds: float, *, step: float = 0.0, boot: str = "here") -> Instant:
    """The moment `seconds` after NOW, when the system clock was set by `step` meanwhile."""
    return Instant(NOW.wall + seconds + step, NOW.uptime + seconds, boot)


@pytest.mark.parametrize("step", [0.0, YEAR, -YEAR])
def test_a_step_of_the_system_clock_neither_expires_mail_nor_lets_it_live(step: float) -> None:
    assert not has_expired(OTP, later(899, step=step))
    assert has_expired(OTP, later(901, step=step))


@pytest.mark.parametrize("boot", ["", "after the reboot", "elsewhere"])
def test_after_a_reboot_or_on_another_host_the_system_clock_has_to_do(boot: str) -> None:
    assert not has_expired(OTP, Instant(NOW.wall + 899, 1e9, boot))
    assert has_expired(OTP, Instant(NOW.wall + 901, 0.0, boot))


def test_mail_whose_boot_is_not_known_goes_by_the_system_clock() -> None:
    unknown = replace(OTP, boot="", expires_up=0.0)
    assert not has_expired(unknown, Instant(NOW.wall + 899, 1e9, ""))
    assert has_expired(unknown, Instant(NOW.wall + 901, 0.0, ""))


def test_mail_without_such_a_rule_never_expires() -> None:
    mail = stamped(envelope(accepted_at=0.0), NOW)
    assert (mail.boot, mail.expires_up) == ("", 0.0)
    assert not has_expired(mail, later(100 * YEAR))


def test_a_boot_has_a_name_and_keeps_it() -> None:
    name = boot_name()
    assert len(name) == 12
    boot_name.cache_clear()
    assert boot_name() == name


def otp(lasts: float, recipient: str = "you@example.net") -> JobEnvelope:
    """A message accepted now that is not to be sent after `lasts` seconds."""
    mail = envelope(recipient, owner="desk@example.com")
    return stamped(replace(mail, expires_at=mail.accepted_at + lasts), read_clocks())


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def words(queue: redis.Redis) -> str:
    """What the only dead letter says."""
    [letter] = dead(queue)
    return decode_envelope(job(queue, letter)["envelope"]).replies["you@example.net"]


def owner_is_to_be_told(queue: redis.Redis) -> bool:
    return [each.decode() for each in queue.zrange("franker:untold:desk@example.com", 0, -1)] == (
        dead(queue)
    )


async def died_in_time(queue: redis.Redis, began: float, lasts: float) -> None:
    await wait_until(lambda: dead(queue), lasts + 8)
    assert time.monotonic() - began >= lasts
    assert owner_is_to_be_told(queue)
    assert not queued(queue)
    assert not started(queue)
    assert not scheduled(queue)
    assert not queue.exists("franker:deferred:outbound")


async def test_queued_mail_that_expired_while_no_worker_ran_dies_unsent(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    put(queue, mail=otp(-1.0))
    put(queue, mail=otp(60.0))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: dead(queue))
        await far_end.until(1)
    assert words(queue) == "it expired before it could be sent"
    assert owner_is_to_be_told(queue)
    assert far_end.store.count == 1


async def test_mail_of_a_paused_route_dies_when_its_time_is_over(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("connect", do="refuse")
    began = time.monotonic()
    waiting = put(queue, 3)
    put(queue, mail=otp(2.0))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="unreachable") == 1
        )
        await wait_until(lambda: dead(queue))
        assert time.monotonic() - began >= 2.0
        assert queued(queue) == waiting
        assert owner_is_to_be_told(queue)
        far_end.mend()
        await far_end.until(3)
    assert words(queue) == "it expired before it could be sent"


async def test_deferred_mail_dies_when_its_time_is_over_and_not_when_it_is_due(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("dot", "451 4.3.0 not now")
    began = time.monotonic()
    put(queue, mail=otp(5.0))  # enough for the first attempt on a busy machine
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: scheduled(queue))
        await died_in_time(queue, began, 5.0)
    assert words(queue) == (
        "it expired before it could be sent; the last reply was: 451 4.3.0 not now"
    )


async def test_mail_that_waits_for_a_connection_is_not_sent_after_its_time(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    settings = settings_for(far_end, data_dir, postmark={"connections": 1})
    hang = far_end.fail("dot", do="hang", times=2)
    async with relay_at_work(settings, data_dir):
        put(queue, 2)
        await wait_until(lambda: far_end.faults.listed()[0]["met"] >= 1)
        put(queue, mail=otp(1.5, "late@example.net"))
        await wait_until(lambda: dead(queue))
        far_end.mend(hang)
        far_end.cut()
        put(queue, mail=otp(60.0, "timely@example.net"))
        await wait_until(lambda: far_end.to("timely@example.net"))
    assert not far_end.to("late@example.net")


async def test_expired_mail_with_an_unknown_outcome_is_not_sent_again(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop")
    streams = login_without_api(data_dir)
    settings = settings_for(far_end, data_dir, streams=streams, retry={"first": 4.5, "cap": 4.5})
    put(queue, mail=otp(4.0))  # enough for the first attempt on a busy machine
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: dead(queue))
    assert far_end.store.count == 1
    assert "outcome is unknown" in words(queue)


async def test_expired_mail_of_a_worker_that_died_is_not_sent_again(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=otp(-1.0))
    queue.hset(f"rq:job:{message_id}", "dot", '["you@example.net"]')
    settings = settings_for(far_end, data_dir, streams=login_without_api(data_dir))
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: dead(queue))
    assert far_end.store.count == 0
    assert words(queue).endswith("whether an earlier attempt arrived is unknown")


async def test_mail_asked_for_is_sent_if_postmark_has_it_and_else_dies_once_its_time_is_over(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)  # Postmark has the first
    far_end.fail("dot", do="drop", times=1)  # and not the second
    settings = settings_for(
        far_end, data_dir, retry={"first": 0.2}, postmark={"ask_for": 5.0, "connections": 1}
    )
    put(queue, 2, mail=otp(4.0), body=MARKED)
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: dead(queue), 30)
        await wait_until(lambda: not unsettled(queue))
    assert far_end.store.count == 1
    assert len(dead(queue)) == 1
    assert owner_is_to_be_told(queue)


async def test_mail_held_by_hand_dies_when_its_time_is_over(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    store = open_redis(Settings(), data_dir, timeout=5)
    await holds.hold(store, Hold("", Selection(sender="app@*"), time.time(), "me"))
    await store.aclose()
    [message_id] = put(queue)
    put(queue, mail=otp(1.5))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: dead(queue))
        assert [each.decode() for each in queue.zrange(keys.held_key("outbound"), 0, -1)] == [
            message_id
        ]
    assert far_end.store.count == 0
    assert owner_is_to_be_told(queue)


@pytest.mark.parametrize("name", [holds.RESTORED, f"{holds.RESTORED}2"])
async def test_what_a_backup_brought_back_is_no_dead_letter_before_a_person_has_seen_it(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, name: str
) -> None:
    old = put(queue, 2, mail=otp(-1.0))
    store = open_redis(Settings(), data_dir, timeout=5)
    made = Hold(name, Selection(before=time.time()), time.time(), "Franker")
    # As the look that finds the backup writes it: by hand there is no such hold.
    queue.hset(keys.HOLDS, made.name, json.dumps(made.record()))
    # New mail is held by hand, so that it dies by the same look over what waits.
    await holds.hold(store, Hold("", Selection(sender="app@*"), time.time(), "me"))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        [fresh] = put(queue, mail=otp(1.5))
        await wait_until(lambda: dead(queue))
        assert dead(queue) == [f"{fresh}-1"]
        await wait_until(lambda: not started(queue))
        await releases.release(store, time.time(), names=(name,))
        await wait_until(lambda: len(dead(queue)) == 3)
    await store.aclose()
    assert {letter[:-2] for letter in dead(queue)} == {*old, fresh}
    assert far_end.store.count == 0


async def test_of_many_that_wait_only_those_whose_time_is_over_die(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("connect", do="refuse")
    over = []
    for _ in range(3):
        put(queue, 700)
        over += put(queue, 60, mail=otp(-1.0))
        put(queue, 20, mail=otp(3600.0))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: len(dead(queue)) == len(over))
        await wait_until(lambda: not started(queue))
        left = queued(queue)
    assert {letter.rpartition("-")[0] for letter in dead(queue)} == set(over)
    assert len(left) == len(set(left)) == 3 * 720


async def test_mail_that_expired_in_the_journal_dies_unsent_when_redis_is_back(
    far_end: FarEnd, data_dir: Path
) -> None:
    rule = {"name": "code", "expires": "3s", "owner": "desk@example.com"}
    sections = {"postmark": far_end.postmark(), "rules": [rule], "journal": {"disk_floor": "1MB"}}
    office = Installation(data_dir, sections)
    office.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    try:
        for part in ("redis", "proxy", "worker"):
            program = office.start(part)
            await asyncio.to_thread(program.wait_for, f"started process={part}")
        store = office.programs[0]
        store.signal(signal.SIGSTOP)
        load = Load(office.smtp_port, sessions=1, count=1)
        await load.run()
        assert load.accepted == ["r1@example.net"]
        [(began, kept)] = load.moments.values()
        assert kept - began > 1.5  # Redis was waited for: it is in the journal
        await wait_until(lambda: time.monotonic() > kept + 3.5)
        store.signal(signal.SIGCONT)
        client = redis.Redis(unix_socket_path=str(office.data_dir / "redis.sock"))
        await wait_until(lambda: dead(client))
        assert owner_is_to_be_told(client)
        client.close()
    finally:
        await asyncio.to_thread(office.close)
    assert far_end.store.count == 0
