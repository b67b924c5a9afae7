"""A Redis restored from an old backup: its mail waits for a person, and new mail goes out."""

import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from proxy.config import Settings
from proxy.queue import holds, keys, releases
from proxy.queue.connection import open_redis
from proxy.queue.lineage import Lineage
from proxy.queue.marks import FOLDER as MARKS
from proxy.queue.marks import Mark, Marks
from proxy.queue.selection import Selection
from proxy.queue.server import FOLDER
from tests.support.mail_queue import claim_all, claims_on, envelope, put, queued, started
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from worker.claims import Settlement
from worker.daemon import Relay


def back_up(server: RedisServer) -> None:
    """Copy the files of a server that runs, as a backup does."""
    shutil.copytree(server.data_dir / FOLDER, server.data_dir / "backup")


def restore(server: RedisServer) -> None:
    """Put the backup in the place of what the server has."""
    server.kill()
    shutil.rmtree(server.data_dir / FOLDER)
    shutil.copytree(server.data_dir / "backup", server.data_dir / FOLDER)
    server.start()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(Settings(), redis_server.data_dir, timeout=5)
    yield client
    await client.aclose()


def lineage(store: redis.asyncio.Redis, data_dir: Path, role: str = "proxy") -> Lineage:
    """Return one for which each look counts at once."""
    return Lineage(store, data_dir, role, host="here", lag=0.0)


async def look(looking: Lineage) -> str:
    """Look until Redis answers: a server that ended took the connections along."""
    while True:
        try:
            return (await looking.look()).word
        except redis.ConnectionError:
            continue


def aside(queue: redis.Redis) -> list[str]:
    return [str(each, "ascii") for each in queue.zrange(keys.held_key("outbound"), 0, -1)]


async def test_mail_of_an_older_copy_is_held_and_what_comes_later_goes(
    redis_server: RedisServer, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    looking = lineage(store, redis_server.data_dir)
    old = put(redis_server.client(), 3)
    assert await look(looking) == "first"
    back_up(redis_server)
    assert await look(looking) == "known"
    restore(redis_server)
    assert await look(looking) == "restored"
    assert await look(looking) == "known"
    [hold] = await holds.standing_holds(store)
    assert hold.name == "restored"
    assert hold.selection.before is not None
    assert "franker queue release restored" in hold.reason
    [said] = [line for line in capfd.readouterr().err.splitlines() if "store_restored" in line]
    assert "messages=3" in said
    assert "franker queue release restored" in said
    [new] = put(redis_server.client(), mail=envelope(accepted_at=time.time()))
    async with claims_on(redis_server.data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 1)] == [new]
        assert aside(redis_server.client()) == sorted(old)


async def test_a_process_that_starts_anew_knows_it_by_the_marks_of_its_host(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    put(redis_server.client())
    first = lineage(store, redis_server.data_dir, "worker-7")
    await look(first)
    back_up(redis_server)
    await look(first)
    await first.write(now=True)
    restore(redis_server)
    assert await look(lineage(store, redis_server.data_dir)) == "restored"


async def test_a_worker_claims_nothing_of_an_older_copy_before_it_is_held(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    ids = put(redis_server.client(), 2)
    looking = lineage(store, redis_server.data_dir)
    await look(looking)
    back_up(redis_server)
    await look(looking)
    await looking.write(now=True)
    restore(redis_server)
    async with claims_on(redis_server.data_dir) as claims:  # nobody else looks
        for _ in range(5):
            assert await claims.claim({"outbound": 5}) == []
        assert aside(redis_server.client()) == sorted(ids)


async def test_a_worker_that_lived_on_sends_nothing_twice_and_leaves_no_claim_behind(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 3)
    async with claims_on(redis_server.data_dir) as claims:
        keeping = claims._keeping._lineage
        keeping._marks._lag = 0.0
        [first, *_] = await claim_all(claims, 1)
        back_up(redis_server)  # with one claimed and two that wait
        rest = await claim_all(claims, 2)
        assert await claims.settle(first, Settlement("gone"))
        for claim in rest:
            assert await claims.settle(claim, Settlement("gone"))
        tick = keeping.floor[1]
        await wait_until(lambda: keeping.floor[1] > tick)
        restore(redis_server)
        client = redis_server.client()
        claims._pulse._next_sweep = 0.0

        async def all_held() -> bool:
            assert await claims.claim({"outbound": 5}) == []
            claims._pulse._next_sweep = 0.0
            return aside(client) == sorted(ids)

        await wait_until(all_held)
        assert started(client) == queued(client) == []


async def test_other_workers_of_an_older_copy_begin_anew(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    async with claims_on(redis_server.data_dir) as claims:
        looking = lineage(store, redis_server.data_dir)
        await look(looking)
        put(redis_server.client())
        back_up(redis_server)
        await look(looking)
        before = claims.incarnation
        restore(redis_server)
        await look(looking)
        await wait_until(lambda: claims.incarnation != before)


async def test_a_new_and_empty_store_is_said_once_and_nothing_is_held(
    redis_server: RedisServer, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    looking = lineage(store, redis_server.data_dir)
    await look(looking)
    redis_server.client().flushall()
    words = [await look(looking) for _ in range(3)]
    assert words == ["empty", "other", "known"] or words == ["empty", "known", "known"]
    assert capfd.readouterr().err.count("empty and new") == 1
    assert await holds.standing_holds(store) == ()
    [message_id] = put(redis_server.client())
    async with claims_on(redis_server.data_dir) as claims:
        assert [each.id for each in await claim_all(claims, 1)] == [message_id]


async def test_a_backup_of_before_there_was_a_number_is_an_older_copy_if_it_has_mail(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    looking = lineage(store, redis_server.data_dir)
    await look(looking)
    redis_server.client().flushall()
    put(redis_server.client())
    assert await look(looking) == "restored"


async def test_another_store_than_those_that_are_known_is_no_copy(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    looking = lineage(store, redis_server.data_dir)
    await look(looking)
    put(redis_server.client())
    redis_server.client().hset(keys.STORE, mapping={"id": "another", "tick": 1})
    assert await look(looking) == "other"
    assert await holds.standing_holds(store) == ()


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_server_that_is_killed_or_ended_is_no_older_copy(
    redis_server: RedisServer, store: redis.asyncio.Redis, end: str
) -> None:
    looking = lineage(store, redis_server.data_dir)
    await look(looking)
    put(redis_server.client())
    for _ in range(4):
        for _ in range(20):
            assert await look(looking) in ("known", "first")
        getattr(redis_server, end)()
        redis_server.start()  # which mends the file
        assert await look(looking) == "known"


async def test_a_file_torn_at_its_end_is_mended_and_no_older_copy(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    looking = lineage(store, redis_server.data_dir)
    await look(looking)
    await look(looking)
    redis_server.kill()
    [file] = (redis_server.data_dir / FOLDER).rglob("*.incr.aof")
    with file.open("ab") as aof:  # a write that was not answered
        aof.write(b"*1\r\n$5\r\nMULTI\r\n*4\r\n$4\r\nHSET\r\n$13\r\nfranker:st")
    redis_server.start()
    assert await look(looking) == "known"


async def test_what_a_server_may_lose_in_a_crash_does_not_count(tmp_path: Path) -> None:
    marks = Marks(tmp_path, "proxy", lag=3.0)
    marks.seen("a", Mark(5, 100.0), 10.0)
    marks.seen("a", Mark(9, 102.0), 12.0)
    assert marks.known == {}
    marks.ripen(13.0)
    assert marks.known == {"a": Mark(5, 100.0)}


async def test_marks_are_read_of_all_processes_and_the_highest_counts(tmp_path: Path) -> None:
    for role, tick in (("proxy", 4), ("worker-1", 9), ("worker-2", 7)):
        marks = Marks(tmp_path, role, lag=0.0)
        marks.seen("a", Mark(tick, float(tick)), 0.0)
        marks.write()
    (tmp_path / MARKS / "torn.json").write_text('{"a": [1')
    (tmp_path / MARKS / "odd.json").write_text("[1, 2]")
    read = Marks(tmp_path, "proxy", lag=0.0)
    read.read()
    assert read.known == {"a": Mark(9, 9.0)}
    assert not list((tmp_path / MARKS).glob("*.tmp"))


async def test_marks_that_cannot_be_written_are_said_once(
    redis_server: RedisServer, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    (redis_server.data_dir / MARKS).write_text("a file is in the way")
    looking = lineage(store, redis_server.data_dir)
    for _ in range(3):
        await look(looking)
        await looking.write(now=True)
    assert capfd.readouterr().err.count("will not be noticed") == 1


async def test_a_second_backup_is_found_too_and_widens_the_hold(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    looking = lineage(store, redis_server.data_dir)
    put(redis_server.client())
    await look(looking)
    back_up(redis_server)
    await look(looking)
    restore(redis_server)
    assert await look(looking) == "restored"
    [first] = await holds.standing_holds(store)
    await look(looking)
    restore(redis_server)
    assert await look(looking) == "restored"
    [second] = await holds.standing_holds(store)
    assert first.selection.before is not None
    assert second.selection.before is not None
    assert second.selection.before > first.selection.before


async def test_two_hosts_that_find_it_make_one_hold(
    redis_server: RedisServer, store: redis.asyncio.Redis, tmp_path: Path
) -> None:
    here, there = lineage(store, redis_server.data_dir), lineage(store, tmp_path)
    put(redis_server.client())
    await look(here)
    back_up(redis_server)
    for looking in (here, there, there, there):  # it has seen more of it
        await look(looking)
    restore(redis_server)
    assert await look(here) == "restored"
    [before] = await holds.standing_holds(store)
    assert await look(there) == "restored"
    [after] = await holds.standing_holds(store)
    assert before.selection.before is not None
    assert after.selection.before is not None
    assert after.selection.before > before.selection.before
    assert after.since == before.since


async def test_a_worker_whose_claims_a_failover_took_back_begins_anew(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client, 3)
    async with claims_on(redis_server.data_dir) as claims:
        for _ in range(3):
            await claim_all(claims, 1)
        before = claims.incarnation
        client.hset(keys.worker_key(before), "claim", 1)
        assert await claims.claim({"outbound": 1}) == []
        assert claims.incarnation != before


@pytest.mark.parametrize(
    "record",
    [
        '{"rule": "payroll", "since": 1}',
        '{"rule": "payroll", "before": 5}',
        '{"since": 1}',
        '{"before": "x", "except": 7}',
        '{"returning": 1}',
        "[1]",
        "{",
    ],
)
async def test_whatever_has_the_name_restored_all_mail_of_the_copy_is_held(
    redis_server: RedisServer, store: redis.asyncio.Redis, record: str
) -> None:
    looking = lineage(store, redis_server.data_dir)
    put(redis_server.client())
    redis_server.client().hset(keys.HOLDS, holds.RESTORED, record)
    await look(looking)
    back_up(redis_server)
    await look(looking)
    restore(redis_server)
    assert await look(looking) == "restored"
    found = {each.name: each for each in await holds.standing_holds(store)}
    made = found["restored2"]
    assert made.selection == Selection(before=made.selection.before)
    assert made.selection.before is not None
    assert "franker queue release restored2" in made.reason
    assert made.is_restored


async def test_what_was_released_of_one_copy_is_held_again_of_the_next(
    redis_server: RedisServer, store: redis.asyncio.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    looking = lineage(store, redis_server.data_dir)
    client = redis_server.client()
    mine = put(client, mail=envelope(reverse_path="x@example.com", accepted_at=1.0))
    await look(looking)
    back_up(redis_server)
    await look(looking)
    restore(redis_server)
    assert await look(looking) == "restored"
    await holds.hold(store, holds.Hold("mine", Selection(rule="a"), 5.0))
    done = await releases.release(store, 6.0, selection=Selection(sender="x@*"))
    assert done.holds == ("restored",)
    shutil.rmtree(redis_server.data_dir / "backup")
    back_up(redis_server)  # with the exception in it
    await look(looking)
    restore(redis_server)
    assert await look(looking) == "restored"
    names = await holds.taken_by(store, "outbound", mine)
    assert names == ["restored2"]
    said = capfd.readouterr().err.splitlines()[-1]
    assert "hold=restored2" in said
    assert "except what these holds take, which came back too: mine." in said


async def test_a_hold_for_a_copy_is_never_narrowed_by_one_who_saw_it_earlier(
    redis_server: RedisServer, store: redis.asyncio.Redis
) -> None:
    looking = lineage(store, redis_server.data_dir)
    put(redis_server.client())
    late = int(time.time()) + 1000
    redis_server.client().hset(keys.HOLDS, holds.RESTORED, f'{{"before": {late}}}')
    await look(looking)
    back_up(redis_server)
    await look(looking)
    restore(redis_server)
    assert await look(looking) == "restored"
    [hold] = await holds.standing_holds(store)
    assert hold.selection.before == late


async def test_a_look_that_fails_though_redis_answers_is_a_defect_and_stops_readiness(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        assert claims.store_fault == ""
        turn = client.get(keys.TURN)
        client.delete(keys.TURN)
        client.hset(keys.TURN, "not", "a number")
        await wait_until(lambda: "WRONGTYPE" in claims.store_fault)
        ready, why = Relay(Settings(), claims).ready()
        assert not ready
        assert "it cannot be told what is held" in why
        client.delete(keys.TURN)
        if turn is not None:
            client.set(keys.TURN, turn)
        await wait_until(lambda: claims.store_fault == "")
    assert capfd.readouterr().err.count(" defect ") == 1


async def test_marks_are_on_the_disk_before_they_take_the_place_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def fsync(descriptor: int) -> None:
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        written.append(file.read_text())
        assert not (tmp_path / MARKS / "proxy.json").exists()

    monkeypatch.setattr(os, "fsync", fsync)
    marks = Marks(tmp_path, "proxy", lag=0.0)
    marks.seen("a", Mark(5, 1.0), 0.0)
    marks.write()
    path = tmp_path / MARKS / "proxy.json"
    assert written == [path.read_text()]
    assert path.stat().st_mode & 0o777 == 0o600
