"""The proxy process under load while Redis stands still, is dead, or its own turn has come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.queue import keys
from proxy.queue.job import decode_envelope
from tests.support.load import Load
from tests.support.processes import Installation, Program, http_get
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.waiting import wait_until


class Place:
    """A proxy process, its Redis, and a load on it."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation(folder, {"journal": {"disk_floor": "1MB"}})
        self.installation.data_dir.mkdir()
        self.redis = RedisServer(self.installation.data_dir)
        self.load = Load(self.installation.smtp_port)
        self.proxy: Program | None = None

    async def start_proxy(self) -> Program:
        self.proxy = self.installation.start("proxy")
        await asyncio.to_thread(self.proxy.wait_for, "started process=proxy")
        return self.proxy

    def get(self, path: str) -> tuple[int, str]:
        return http_get(f"127.0.0.1:{self.installation.http_port}", path)

    def in_journal(self) -> float:
        lines = self.get("/metrics")[1].splitlines()
        return float(next(one for one in lines if one.startswith("franker_journal_m")).split()[1])

    def recipients(self) -> list[str]:
        """Whom the mail in the queue is for, in order."""
        client = self.redis.client()
        ids: list[bytes] = client.lrange(keys.queue_key("outbound"), 0, -1)  # type: ignore[assignment]  # bytes, as the client is set
        pipeline = client.pipeline(transaction=False)
        for each in ids:
            pipeline.hget(keys.job_key(each.decode()), "envelope")
        return [decode_envelope(each).recipients[0] for each in pipeline.execute()]


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    folder = new_data_dir()
    place = Place(folder)
    place.redis.start()
    await place.start_proxy()
    yield place
    await asyncio.to_thread(place.installation.close)
    place.redis.stop()
    remove_data_dir(folder)


async def absence(place: Place, go: Callable[[], None], back: Callable[[], None], s: float) -> int:
    """Have Redis away for `s` seconds under load; return how many messages were taken meanwhile."""
    load = place.load
    running = asyncio.create_task(load.run())
    await wait_until(lambda: len(load.accepted) > 200, 30)
    go()
    at_first = len(load.accepted)
    loop = asyncio.get_running_loop()
    end = loop.time() + s
    await wait_until(lambda: len(load.accepted) > at_first + 200, what="mail is taken all the same")
    while loop.time() < end:
        assert (await asyncio.to_thread(place.get, "/readyz"))[0] == 200
        await asyncio.to_thread(place.in_journal)
        await asyncio.sleep(0.5)
    taken = len(load.accepted) - at_first
    assert await asyncio.to_thread(place.in_journal) > 0
    await asyncio.to_thread(back)
    await wait_until(lambda: asyncio.to_thread(lambda: not place.in_journal()), 60, "moved")
    after = len(load.accepted)
    await wait_until(lambda: len(load.accepted) > after + 100, 30)
    load.stop()
    await running
    return taken


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(400)
async def test_while_redis_is_away_no_mail_is_refused_and_all_of_it_is_queued_once_in_order(
    place: Place, how: str, seconds: int
) -> None:
    server = place.redis
    go, back = (server.pause, server.resume) if how == "stopped" else (server.kill, server.start)
    taken = await absence(place, go, back, seconds)
    load = place.load
    assert place.proxy is not None
    assert load.refused == load.unanswered == []
    recipients = place.recipients()
    assert len(recipients) == len(set(recipients)) == len(load.accepted)
    assert sorted(recipients) == sorted(load.accepted)
    assert load.out_of_order(recipients) == []
    log = place.proxy.log
    assert log.count(" journal_used ") == 1
    assert log.count(" journal_empty ") == 1
    print(f"{how} for {seconds} s: {taken} messages taken meanwhile")


async def test_a_proxy_asked_to_end_while_redis_is_away_ends_soon_and_loses_nothing(
    place: Place,
) -> None:
    running = asyncio.create_task(place.load.run())
    await wait_until(lambda: len(place.load.accepted) > 100, 30)
    place.redis.pause()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert place.proxy is not None
    assert await asyncio.to_thread(place.proxy.stop, 15.0) == 0
    assert loop.time() - began < 15
    assert "defect" not in place.proxy.log
    place.redis.resume()
    await place.start_proxy()
    told = len(place.load.accepted)
    await wait_until(lambda: len(place.load.accepted) > told + 100, 30)
    await wait_until(lambda: asyncio.to_thread(lambda: not place.in_journal()), 30, "moved")
    place.load.stop()
    await running
    recipients = place.recipients()
    assert len(recipients) == len(set(recipients))
    assert set(place.load.accepted) - set(recipients) == set()


async def test_a_killed_proxy_leaves_its_journal_to_the_next(place: Place) -> None:
    running = asyncio.create_task(place.load.run())
    await wait_until(lambda: len(place.load.accepted) > 100, 30)
    place.redis.pause()
    told = len(place.load.accepted)
    await wait_until(lambda: len(place.load.accepted) > told + 200, 30)
    assert place.proxy is not None
    place.proxy.kill()
    proxy = await place.start_proxy()
    told = len(place.load.accepted)
    await wait_until(lambda: len(place.load.accepted) > told + 200, 30)
    place.redis.resume()
    await wait_until(lambda: asyncio.to_thread(lambda: not place.in_journal()), 30, "moved")
    place.load.stop()
    await running
    assert "journal_taken_over" in proxy.log
    recipients = place.recipients()
    assert len(recipients) == len(set(recipients))
    assert set(place.load.accepted) - set(recipients) == set()
    assert place.load.refused == []
