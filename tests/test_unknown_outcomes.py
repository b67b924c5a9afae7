"""The final dot is out and no reply came: Postmark is asked, and nobody gets a message twice.

Real Redis, real TLS, the sandbox's SMTP and its HTTP API; questions follow each other faster.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web

from proxy.config import Settings
from proxy.queue import by_command, inventory
from proxy.queue.connection import open_redis
from proxy.queue.job import decode_envelope
from tests.support.far_end import FarEnd
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
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, sample, settings_for
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.outcomes.asking.FIRST_S", 0.1)
    monkeypatch.setattr("worker.outcomes.outcomes.FIRST_S", 0.1)
    monkeypatch.setattr("worker.outcomes.silence.FIRST_S", 0.1)


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def settings_of(far_end: FarEnd, data_dir: Path, **postmark: Any) -> Settings:
    sections = {"retry": {"first": 0.2}, **postmark.pop("sections", {})}
    return settings_for(far_end, data_dir, postmark={"ask_for": 3.0, **postmark}, **sections)


def nothing_left(queue: redis.Redis) -> bool:
    return not unsettled(queue)


def verdicts(verdict: str) -> float:
    return sample("franker_recipients_total", stream="outbound", verdict=verdict)


def look_ups(result: str) -> float:
    return sample("franker_look_ups_total", stream="outbound", result=result)


def tokens_refused() -> float:
    return sample("franker_look_up_token_refused_total", stream="outbound")


async def test_a_message_that_postmark_has_is_not_sent_again(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    sent, attempts = verdicts("sent"), far_end.store.count
    put(queue, body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir), data_dir):
        await far_end.until(1)
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == attempts + 1
    assert verdicts("sent") == sent + 1
    assert not dead(queue)


async def test_a_message_that_postmark_has_not_is_sent_again_when_it_was_asked_for_long_enough(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("dot", do="drop", times=1)
    absent = look_ups("absent")
    [message_id] = put(queue, body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir, ask_for=3.0), data_dir):
        await wait_until(lambda: look_ups("absent") > absent)
        assert far_end.store.count == 0
        await far_end.until(1)
        await wait_until(lambda: nothing_left(queue))
    assert far_end.recipients() == ["you@example.net"]
    assert not queue.exists(f"rq:job:{message_id}")


async def test_a_message_that_is_found_only_after_a_while_is_not_sent_again(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with FarEnd(indexing_delay=3.0) as far_end:
        far_end.fail("taken", do="drop", times=1)
        absent = look_ups("absent")
        put(queue, body=MARKED)
        async with relay_at_work(settings_of(far_end, data_dir, ask_for=10.0), data_dir):
            await far_end.until(1)
            await wait_until(lambda: nothing_left(queue))
        assert far_end.store.count == 1
    assert look_ups("absent") > absent


async def test_of_120_recipients_those_of_the_lost_reply_are_asked_for_and_each_gets_it_once(
    queue: redis.Redis, data_dir: Path
) -> None:
    everybody = [f"r{number}@example.net" for number in range(120)]
    async with FarEnd(indexing_delay=1.0) as far_end:
        far_end.fail("taken", do="drop", skip=1, times=1)
        [message_id] = put(queue, mail=envelope(*everybody), body=MARKED)
        async with relay_at_work(settings_of(far_end, data_dir), data_dir):
            # The third transaction does not wait for what became of the second.
            await far_end.until(3)
            await wait_until(lambda: not queue.exists(f"rq:job:{message_id}"))
            apart = job(queue, f"{message_id}-1")
            assert decode_envelope(apart["envelope"]).recipients == tuple(everybody[50:100])
            await wait_until(lambda: nothing_left(queue))
        assert sorted(far_end.recipients()) == sorted(everybody)
        assert [len(one.recipients) for one in far_end.messages] == [50, 50, 20]
    assert not dead(queue)


async def test_of_120_recipients_only_those_of_the_lost_transaction_are_sent_again(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    everybody = [f"r{number}@example.net" for number in range(120)]
    far_end.fail("dot", do="drop", skip=1, times=1)
    put(queue, mail=envelope(*everybody), body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir, ask_for=0.5), data_dir):
        await wait_until(lambda: len(far_end.recipients()) >= 120)
        await wait_until(lambda: nothing_left(queue))
    assert sorted(far_end.recipients()) == sorted(everybody)


async def test_while_it_is_asked_for_a_message_is_listed_with_the_reason(
    queue: redis.Redis, data_dir: Path
) -> None:
    async with FarEnd(indexing_delay=60.0) as far_end:
        far_end.fail("taken", do="drop", times=1)
        [message_id] = put(queue, body=MARKED)
        settings = settings_of(far_end, data_dir, ask_for=60.0)
        async with relay_at_work(settings, data_dir):
            await wait_until(lambda: scheduled(queue) == [message_id])
        kept = job(queue, message_id)
    assert kept["dot"] == b'["you@example.net"]'
    store = open_redis(settings, data_dir, timeout=5)
    entry = await inventory.find(store, message_id)
    await store.aclose()
    assert entry is not None
    assert entry.envelope is not None
    assert entry.envelope.asked > 0
    assert entry.envelope.replies["you@example.net"].startswith("the outcome is unknown")
    assert entry.envelope.attempts == 0


async def test_what_postmark_refused_after_all_is_a_dead_letter_with_its_words(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    far_end.store.suppress("outbound", "you@example.net", "HardBounce")
    [message_id] = put(queue, body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir), data_dir):
        await wait_until(lambda: dead(queue))
    assert dead(queue) == [f"{message_id}-1"]
    kept = decode_envelope(job(queue, f"{message_id}-1")["envelope"])
    assert "406" in kept.replies["you@example.net"]
    assert kept.settled == (far_end.messages[0].id,)
    assert far_end.store.count == 1


async def test_a_dead_letter_that_was_refused_once_is_judged_anew_after_a_retry(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=2)
    far_end.store.suppress("outbound", "you@example.net", "HardBounce")
    [message_id] = put(queue, body=MARKED)
    settings = settings_of(far_end, data_dir)
    store = open_redis(settings, data_dir, timeout=5)
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: dead(queue))
        far_end.store.release("outbound", "you@example.net")
        await by_command.retry(store, dead(queue), now=2.0)
        await far_end.until(2)
        await wait_until(lambda: nothing_left(queue))
    await store.aclose()
    assert not dead(queue)
    assert not queue.exists(f"rq:job:{message_id}-1")
    assert far_end.store.count == 2


async def test_of_two_recipients_one_was_refused_after_all_and_the_other_has_it(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    far_end.store.suppress("outbound", "no@example.net", "HardBounce")
    sent = verdicts("sent")
    [message_id] = put(queue, mail=envelope("no@example.net", "yes@example.net"), body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir), data_dir):
        await wait_until(lambda: dead(queue) and nothing_left(queue))
    letter = decode_envelope(job(queue, f"{message_id}-1")["envelope"])
    assert letter.recipients == ("no@example.net",)
    assert verdicts("sent") == sent + 1
    assert far_end.store.count == 1


async def test_while_the_api_is_away_the_message_waits_and_is_found_when_it_is_back(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    await far_end.web.close()
    silent, refused = look_ups("unanswered"), tokens_refused()
    put(queue, body=MARKED)
    async with relay_at_work(settings_of(far_end, data_dir, ask_for=30.0), data_dir):
        await wait_until(lambda: look_ups("unanswered") >= silent + 3)
        await far_end.api_returns()
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1
    assert tokens_refused() == refused


@pytest.mark.parametrize("policy", ["resend", "hold"])
async def test_where_the_api_stays_away_the_configured_policy_decides(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, policy: str
) -> None:
    far_end.fail("taken", do="drop", times=1)
    await far_end.web.close()
    [message_id] = put(queue, body=MARKED)
    settings = settings_of(far_end, data_dir, ask_for=0.1, unknown_outcome=policy)
    async with relay_at_work(settings, data_dir):
        if policy == "resend":
            await far_end.until(2)
            await wait_until(lambda: nothing_left(queue))
        else:
            await wait_until(lambda: dead(queue) == [f"{message_id}-1"])
    assert len(far_end.messages) == (2 if policy == "resend" else 1)


async def test_a_token_that_may_not_ask_is_followed_by_the_next_and_is_mended_in_its_file(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    old, new = data_dir / "old", data_dir / "new"
    old.write_text("11111111-2222-3333-4444-555555555555")
    (data_dir / "token").write_text(far_end.token)
    stream = {
        "token": {"file": str(data_dir / "token")},
        "api_token": [{"file": str(old)}, {"file": str(new)}],
    }
    far_end.fail("taken", do="drop", times=1)
    silent, refused = look_ups("unanswered"), tokens_refused()
    put(queue, body=MARKED)
    settings = settings_of(far_end, data_dir, sections={"streams": {"outbound": stream}})
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: look_ups("unanswered") > silent)
        await wait_until(lambda: tokens_refused() > refused)
        new.write_text(far_end.token)
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1


@asynccontextmanager
async def an_api_that_never_answers() -> AsyncIterator[str]:
    ended = asyncio.Event()

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()
        await server.wait_closed()


async def test_messages_that_are_asked_for_hold_up_no_other_mail(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=150)
    lost = put(queue, 150, mail=envelope("lost@example.net"), body=MARKED)
    async with an_api_that_never_answers() as url:
        settings = settings_of(far_end, data_dir, api_url=url)
        async with relay_at_work(settings, data_dir):
            await far_end.until(150, timeout=30)
            await wait_until(lambda: not queued(queue), 30)
            put(queue, 50, body=MARKED)
            await far_end.until(200)
            await wait_until(lambda: set(started(queue) + scheduled(queue)) <= set(lost))
    assert far_end.recipients().count("you@example.net") == 50
    assert sorted(queued(queue) + scheduled(queue)) == sorted(lost)
    assert all(job(queue, each)["dot"] == b'["lost@example.net"]' for each in lost)


async def test_a_worker_that_stops_leaves_what_it_knows_nothing_of_to_be_asked_for(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.channel._STOP_S", 0.2)
    far_end.fail("taken", do="hang", times=1)
    [message_id] = put(queue, body=MARKED)
    settings = settings_of(far_end, data_dir)
    async with relay_at_work(settings, data_dir):
        await far_end.until(1)
    assert scheduled(queue) == [message_id]
    assert job(queue, message_id)["dot"] == b'["you@example.net"]'
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: nothing_left(queue))
    assert far_end.store.count == 1


async def test_an_expired_message_that_postmark_has_counts_as_sent(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    await far_end.web.close()
    settings = settings_of(far_end, data_dir, ask_for=30.0)
    async with relay_at_work(settings, data_dir) as relay:
        await wait_until(lambda: relay.ready()[0])
        mail = envelope(expires_at=time.time() + 3)  # enough for an attempt on a busy machine
        put(queue, mail=mail, body=MARKED)
        await far_end.until(1)
        await wait_until(lambda: time.time() > mail.expires_at)
        silent = look_ups("unanswered")
        await wait_until(lambda: look_ups("unanswered") > silent)
        await far_end.api_returns()
        await wait_until(lambda: nothing_left(queue))
    assert not dead(queue)


async def test_those_that_are_asked_for_are_shown_by_the_message_s_id_when_the_others_are_gone(
    queue: redis.Redis, data_dir: Path
) -> None:
    everybody = [f"r{number}@example.net" for number in range(60)]
    async with FarEnd(indexing_delay=60.0) as far_end:
        far_end.fail("taken", do="drop", times=1)
        [message_id] = put(queue, mail=envelope(*everybody), body=MARKED)
        settings = settings_of(far_end, data_dir, ask_for=60.0)
        async with relay_at_work(settings, data_dir):
            await wait_until(lambda: not queue.exists(f"rq:job:{message_id}"))
    store = open_redis(settings, data_dir, timeout=5)
    [part] = await inventory.parts(store, message_id)
    await store.aclose()
    assert part.id == f"{message_id}-1"
    assert part.envelope is not None
    assert part.envelope.recipients == tuple(everybody[:50])


async def test_an_api_in_trouble_is_not_asked_for_every_message(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    questions = 0

    async def busy(_request: web.Request) -> web.Response:
        nonlocal questions
        questions += 1
        return web.Response(status=429)

    application = web.Application()
    application.router.add_get("/{path:.*}", busy)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    far_end.fail("taken", do="drop", times=40)
    put(queue, 40, body=MARKED)
    silent = look_ups("unanswered")
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with relay_at_work(settings_of(far_end, data_dir, api_url=url), data_dir):
        await far_end.until(40, timeout=60)
        await wait_until(lambda: look_ups("unanswered") >= silent + 120, 60)
    await runner.cleanup()
    assert 0 < questions < 30
    assert far_end.store.count == 40
