"""Postmark's API gives no answer: how long mail in doubt waits for one, and what is known of it.

Real Redis, real TLS, the sandbox's SMTP, and its API behind a door that can be shut in many ways.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from aiohttp import web

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.job import decode_envelope
from tests.support.far_end import FarEnd
from tests.support.mail_queue import MARKED, job, put, unsettled
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, sample, settings_for
from tests.support.waiting import wait_until
from worker.board import Board
from worker.outcomes.api import Api
from worker.outcomes.silence import Silence, after_failure, holds


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("asking", "outcomes", "silence"):
        monkeypatch.setattr(f"worker.outcomes.{module}.FIRST_S", 0.1)


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def settings_of(far_end: FarEnd, data_dir: Path, **postmark: Any) -> Settings:
    return settings_for(far_end, data_dir, postmark=postmark, retry={"first": 0.2})


def nothing_left(queue: redis.Redis) -> bool:
    return not unsettled(queue)


def look_ups(result: str) -> float:
    return sample("franker_look_ups_total", stream="outbound", result=result)


def unanswered(queue: redis.Redis, message_id: str) -> float:
    kept = job(queue, message_id)
    return decode_envelope(kept["envelope"]).unanswered if kept else -1.0


async def waited_longer_than(queue: redis.Redis, message_id: str, seconds: float) -> None:
    await wait_until(lambda: not 0 <= unanswered(queue, message_id) < seconds)


# -- whether there is a way to it -----------------------------------------------------------------


async def test_a_worker_finds_the_api_before_any_mail_is_in_doubt_and_without_a_token(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text("11111111-2222-3333-4444-555555555555")
    async with relay_at_work(settings_of(far_end, data_dir), data_dir):
        await wait_until(lambda: queue.smembers(keys.APIS))
    assert far_end.web.url not in str(queue.smembers(keys.APIS))


async def test_a_new_worker_knows_of_its_forerunners_that_the_api_is_only_silent(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    settings = settings_of(far_end, data_dir, ask_for=2.0)  # 0.5 s where there never was a way
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: queue.smembers(keys.APIS))
    await far_end.web.close()
    far_end.fail("taken", do="drop", times=1)
    [message_id] = put(queue, body=MARKED)
    async with relay_at_work(settings, data_dir):
        await far_end.until(1)
        await waited_longer_than(queue, message_id, 1.5)
        await far_end.api_returns()
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1


async def test_where_there_never_was_a_way_to_the_api_mail_waits_a_short_time_only(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    await far_end.web.close()
    far_end.fail("taken", do="drop", times=1)
    put(queue, body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir, ask_for=4.0), data_dir):
        await far_end.until(2)  # after 1 s, and not after 48
        await wait_until(lambda: nothing_left(queue))
    assert not queue.smembers(keys.APIS)


async def test_an_api_that_is_gone_for_good_holds_mail_up_for_twelve_times_as_long(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    settings = settings_of(far_end, data_dir, ask_for=0.5)
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: queue.smembers(keys.APIS))
        await far_end.web.close()
        far_end.fail("taken", do="drop", times=1)
        [message_id] = put(queue, body=MARKED)
        await waited_longer_than(queue, message_id, 2.0)  # of 6
        assert far_end.store.count == 1
        await far_end.until(2)


async def test_nothing_is_given_up_for_a_silence_from_before(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.outcomes.silence.FIRST_S", 60.0)  # nobody asks again for so long
    monkeypatch.setattr("worker.outcomes.reach.FIRST_S", 60.0)
    await far_end.web.close()
    far_end.fail("taken", do="drop", times=1)
    silent = look_ups("unanswered")
    put(queue, body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir, ask_for=4.0), data_dir):
        await wait_until(lambda: look_ups("unanswered") >= silent + 2)
        await far_end.api_returns()
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1


# -- an API that is there and does not answer -----------------------------------------------------


class Door:
    """Stands before the sandbox's API: lets questions through, or treats them as `way` says."""

    def __init__(self, behind: str) -> None:
        self.way: int | str = "open"
        self.questions = 0
        self.released = asyncio.Event()
        self._behind = behind

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.questions += 1
        if self.way == "slow":
            await self.released.wait()
        elif isinstance(self.way, int):
            return web.json_response({"Message": "no"}, status=self.way)
        headers = {"X-Postmark-Server-Token": request.headers.get("X-Postmark-Server-Token", "")}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._behind}{request.rel_url}", headers=headers) as found,
        ):
            return web.Response(
                body=await found.read(), status=found.status, content_type="application/json"
            )


@asynccontextmanager
async def door_before(far_end: FarEnd) -> AsyncIterator[tuple[Door, str]]:
    door = Door(far_end.web.url)
    application = web.Application()
    application.router.add_get("/{path:.*}", door.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield door, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        door.released.set()
        await runner.cleanup()


@pytest.mark.parametrize("way", [401, 403, 429, 500, 503, "slow"])
async def test_an_api_in_trouble_is_no_message_that_is_not_there(
    queue: redis.Redis,
    far_end: FarEnd,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    way: int | str,
) -> None:
    monkeypatch.setitem(Api.__init__.__kwdefaults__, "timeout", 1.0 if way == "slow" else 20.0)
    far_end.fail("taken", do="drop", times=1)
    async with door_before(far_end) as (door, url):
        door.way = way
        [message_id] = put(queue, body=MARKED)
        settings = settings_of(far_end, data_dir, api_url=url, ask_for=2.0)
        async with relay_at_work(settings, data_dir):
            await far_end.until(1)
            await waited_longer_than(queue, message_id, 2.5)
            assert far_end.store.count == 1
            door.way = "open"
            door.released.set()
            await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1
    [said] = [line for line in capfd.readouterr().err.splitlines() if " look_ups_silent " in line]
    assert way == "slow" or f"answers {way}: no" in said


async def test_a_token_that_is_missing_is_no_firewall(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(far_end.token)
    missing = data_dir / "api-token"
    streams = {
        "outbound": {
            "token": {"file": str(data_dir / "token")},
            "api_token": {"file": str(missing)},
        }
    }
    far_end.fail("taken", do="drop", times=1)
    [message_id] = put(queue, body=MARKED)
    settings = settings_for(far_end, data_dir, streams=streams, postmark={"ask_for": 2.0})
    async with relay_at_work(settings, data_dir):
        await far_end.until(1)
        await waited_longer_than(queue, message_id, 1.5)
        missing.write_text(far_end.token)
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1


# -- a silence alone ------------------------------------------------------------------------------


def failed(before: Silence | None, asked_at: float, now: float) -> Silence:
    return after_failure(before, "503", refused=False, asked_at=asked_at, now=now)


def test_questions_that_fail_together_double_the_pause_once() -> None:
    quiet = failed(None, 0.0, 1.0)
    first = quiet.pause
    for now in (1.0, 1.01, 1.02):
        quiet = failed(quiet, 0.0, now)
    assert (quiet.pause, quiet.until) == (first, 1.0 + first)
    asked_at = quiet.until + 1.0
    quiet = failed(quiet, asked_at, asked_at + 1.0)
    for _ in range(3):
        quiet = failed(quiet, asked_at, asked_at + 1.5)
    assert quiet.pause == 2 * first
    assert quiet.until == asked_at + 1.0 + 2 * first


def test_slow_questions_begun_before_the_silence_was_noted_are_part_of_it() -> None:
    quiet = failed(None, 0.0, 30.0)
    assert failed(quiet, 25.0, 55.0).pause == quiet.pause


def test_the_pause_grows_to_a_minute() -> None:
    quiet = None
    for _ in range(20):
        asked_at = quiet.until if quiet else 0.0
        quiet = failed(quiet, asked_at, asked_at)
    assert quiet is not None
    assert quiet.pause == 60.0


def test_what_would_be_given_up_asks_unless_somebody_did_since_its_turn_came() -> None:
    quiet = Silence("503", refused=False, asked_at=10.0, noted_at=11.0, pause=60.0)
    assert holds(quiet, came_at=12.0, now=12.0, last=False)
    assert not holds(quiet, came_at=12.0, now=12.0, last=True)
    assert holds(quiet, came_at=9.0, now=12.0, last=True)
    assert not holds(quiet, came_at=80.0, now=80.0, last=False)


def test_a_way_that_was_found_is_said_until_redis_knows_and_again_when_it_forgot() -> None:
    board = Board()
    hurried = []
    board.hurry = lambda: hurried.append(1)
    board.found_api("a")
    board.found_api("a")
    assert hurried == [1]
    assert json.loads(board.words())["apis"] == ["a"]
    board.heard_apis([b"a", b"b"])
    assert json.loads(board.words())["apis"] == []
    assert board.knows_api("b")
    board.heard_apis([])
    assert json.loads(board.words())["apis"] == ["a"]
    assert board.knows_api("a")
    assert not board.knows_api("b")
