"""250 means kept: what clients hear while the store is slow, away, full, or not to be trusted."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.metrics.intake import MESSAGES_REFUSED
from tests.support.listening import MESSAGE, Front, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest_asyncio.fixture
async def office(redis_server: RedisServer) -> AsyncIterator[Front]:
    async with front(redis_server, patience=1.0) as found:
        yield found


def refused(reason: str) -> float:
    return MESSAGES_REFUSED.labels(reason)._value.get()


async def test_no_250_comes_before_the_store_has_answered(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.begin()
        redis_server.pause()
        dialog.send(MESSAGE + b".\r\n")
        with pytest.raises(TimeoutError):
            await dialog.reply(0.5)
        redis_server.resume()
        assert (await dialog.reply()).startswith("250 2.0.0 ")
        assert len(office.kept()) == 1


async def test_a_store_that_died_is_451_and_the_session_goes_on_when_it_is_back(
    office: Front,
) -> None:
    dialog = await office.dial()
    before = refused("store_away")
    office.server.kill()
    await wait_until(lambda: office.commit.unready, what="that it is away is seen")
    answer = await dialog.mail(MESSAGE)
    assert answer.startswith("451 4.3.0 ")
    assert "store" in answer
    assert str(office.server.socket) not in answer
    assert refused("store_away") == before + 1
    office.server.start()
    await wait_until(lambda: not office.commit.unready, what="the store is back")
    assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
    assert len(office.kept()) == 1


async def test_a_store_that_dies_with_the_message_on_its_way_is_451_too(office: Front) -> None:
    dialog = await office.dial()
    await dialog.begin()
    office.server.pause()
    dialog.send(MESSAGE + b".\r\n")
    await wait_until(lambda: office.listener.held > len(MESSAGE), what="it is on its way")
    os.kill(office.server.pid, signal.SIGKILL)
    assert (await dialog.reply()).startswith("451 4.3.0 ")
    assert await dialog.say("NOOP") == "250 2.0.0 Ok"


async def test_a_store_that_was_never_there_is_451(redis_server: RedisServer) -> None:
    redis_server.stop()
    async with front(redis_server, patience=0.2, ready=False) as office:
        dialog = await office.dial()
        assert (await dialog.mail(MESSAGE)).startswith("451 4.3.0 ")


async def test_a_store_that_is_not_durable_is_451_and_says_so(redis_server: RedisServer) -> None:
    redis_server.client().config_set("appendfsync", "everysec")
    async with front(redis_server, ready=False) as office:
        await wait_until(lambda: "not durable" in office.commit.unready, what="it was looked at")
        dialog = await office.dial()
        answer = await dialog.mail(MESSAGE)
        assert answer.startswith("451 4.3.0 ")
        assert "not durable" in answer


async def test_a_full_store_is_452(redis_server: RedisServer) -> None:
    async with front(redis_server, redis={"max_memory": "1kB"}, ready=False) as office:
        await wait_until(lambda: "full" in office.commit.unready, what="it was looked at")
        dialog = await office.dial()
        answer = await dialog.mail(MESSAGE)
        assert answer.startswith("452 4.3.1 the mail store is full: "), answer
        assert "(redis.max_memory)" in answer


async def test_a_client_that_goes_away_during_the_commit_does_not_cancel_it(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front(redis_server) as office:
        gone, there = await office.dial(), await office.dial()
        await gone.begin(recipients=("gone@example.net",))
        await there.begin(recipients=("there@example.net",))
        redis_server.pause()
        gone.send(MESSAGE + b".\r\n")
        there.send(MESSAGE + b".\r\n")
        await wait_until(lambda: office.listener.held > 2 * len(MESSAGE), what="both are there")
        gone.reset()
        await wait_until(lambda: office.listener.sessions == 1, what="the client is gone")
        redis_server.resume()
        assert (await there.reply()).startswith("250 2.0.0 ")
        await wait_until(lambda: len(office.kept()) == 2, what="both messages are kept")
        assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")
        assert office.listener.held == 0
    assert capfd.readouterr().err.count(" kept ") == 3


async def test_a_client_that_closes_during_the_commit_has_its_message_kept(
    office: Front,
) -> None:
    dialog = await office.dial()
    await dialog.begin()
    office.server.pause()
    dialog.send(MESSAGE + b".\r\n")
    await wait_until(lambda: office.listener.held > len(MESSAGE), what="it is on its way")
    dialog.vanish()
    office.server.resume()
    await office.one_kept()
    await wait_until(lambda: office.listener.sessions == 0, what="the session is over")


async def test_a_client_that_goes_away_before_the_end_leaves_nothing(office: Front) -> None:
    dialog = await office.dial()
    await dialog.begin()
    dialog.send(MESSAGE + b".\r")
    await wait_until(lambda: office.listener.held, what="octets have come")
    dialog.reset()
    await wait_until(lambda: office.listener.held == 0, what="they are forgotten")
    assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")
    assert len(office.kept()) == 1


async def test_a_commit_that_raises_what_nobody_expected_is_451_without_its_text(
    office: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_job: object) -> None:
        raise ConnectionRefusedError("redis://:hunter2@10.0.0.5")

    dialog = await office.dial()
    with monkeypatch.context() as patch:
        patch.setattr(office.commit, "commit", broken)
        answer = await dialog.mail(MESSAGE)
    assert answer == "451 4.3.0 Franker had an error of its own; not taken, try again"
    assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_many_clients_at_once_each_get_their_own_id(office: Front) -> None:
    async def deliver() -> str:
        dialog = await office.dial()
        return await dialog.mail(MESSAGE)

    answers = await asyncio.gather(*(deliver() for _ in range(50)))
    assert all(one.startswith("250 2.0.0 Ok: queued as ") for one in answers)
    assert {one.rpartition(" ")[2] for one in answers} == {kept.id for kept in office.kept()}


async def test_ending_lets_mail_in_hand_be_kept_and_tells_idle_clients(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        idle, busy, sending = [await office.dial() for _ in range(3)]
        await busy.begin()
        await sending.begin()
        redis_server.pause()
        busy.send(MESSAGE + b".\r\n")
        sending.send(MESSAGE)
        await wait_until(lambda: office.listener.held > len(MESSAGE), what="both are in hand")
        closing = asyncio.create_task(office.listener.close())
        assert await idle.reply() == "421 4.3.2 Franker is stopping; try again"
        assert await idle.ended()
        redis_server.resume()
        sending.send(b".\r\n")
        for dialog in (busy, sending):
            assert (await dialog.reply()).startswith("250 2.0.0 ")
            assert await dialog.reply() == "421 4.3.2 Franker is stopping; try again"
            assert await dialog.ended()
        await closing
        with pytest.raises(ConnectionRefusedError):
            await office.dial()
        assert len(office.kept()) == 2


async def test_ending_does_not_wait_for_ever_for_a_client(redis_server: RedisServer) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.begin()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await office.listener.close(0.3)
        assert loop.time() - started < 10
        assert await dialog.reply() == "421 4.3.2 Franker is stopping; try again"
