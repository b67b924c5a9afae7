"""Turns at the drop folder: the letters of many users, taken on a real Redis."""

import asyncio
import time
from contextlib import suppress

import pytest

from proxy.config import Settings
from proxy.drop import reader as reader_module
from proxy.drop.folder import DropFolder
from proxy.drop.look import Look
from proxy.drop.reader import DropReader
from proxy.listener import Intake
from proxy.queue import keys
from proxy.queue.job import decode_envelope
from proxy.submission import compile_policy
from tests.drop.letters import NOBODY, leave, needs_root
from tests.support.listening import HOST, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MANY = 800  # of one user, fewer than one look gives him


@needs_root
async def test_whoever_comes_amid_the_many_of_another_does_not_wait_for_them(
    folder: DropFolder, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His turn comes with the next look, and there is one again after a while."""
    monkeypatch.setattr(reader_module, "_LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(reader_module, "_AT_ONCE", 1)  # all take far longer than a few looks
    client = redis_server.client()
    queue = keys.queue_key("outbound")
    for number in range(MANY):
        leave(folder.path, number, f"many{number}@example.net", NOBODY)
    async with front(redis_server) as there:
        policy = compile_policy(Settings(), host_names=(HOST,))
        reader = DropReader(folder, Intake(policy, there.commit), recipients=100)
        reading = asyncio.create_task(reader.run())
        await wait_until(lambda: client.llen(queue), what="the first are taken")
        leave(folder.path, MANY, "patient@example.net")
        await wait_until(lambda: client.llen(queue) == MANY + 1, 60, "all are taken")
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    ids: list[bytes] = client.lrange(queue, 0, -1)  # type: ignore[assignment]
    order = [recipients_of(client.hget(keys.job_key(each.decode()), "envelope")) for each in ids]
    assert order.index(("patient@example.net",)) < MANY // 2


async def test_a_process_that_stood_still_amid_a_look_looks_again_soon(
    folder: DropFolder, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, real, looks = redis_server.client(), DropFolder.look, 0

    def look(self: DropFolder, but: frozenset[str]) -> Look:
        nonlocal looks
        found = real(self, but)
        looks += 1
        if looks == 1:
            time.sleep(6.0)  # as SIGSTOP would have it: it takes no processor time
        return found

    monkeypatch.setattr(DropFolder, "look", look)
    async with front(redis_server) as there:
        policy = compile_policy(Settings(), host_names=(HOST,))
        reader = DropReader(folder, Intake(policy, there.commit), recipients=100, every=0.1)
        reading = asyncio.create_task(reader.run())
        await wait_until(lambda: looks == 1, what="it looks")
        leave(folder.path, 1, "soon@example.net")
        await wait_until(lambda: client.llen(keys.queue_key("outbound")) == 1, 40, "it is taken")
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


def recipients_of(envelope: object) -> tuple[str, ...]:
    assert isinstance(envelope, bytes)
    return decode_envelope(envelope).recipients
