"""Redis stopped in the middle of a commit, the proxy killed before its journal is emptied.

Real processes: the worker relays all the while, and nothing may reach the far end twice.
"""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.processes import ROOT, Installation, Program
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_until

KILLED_BEFORE_TRUNCATION = """\
import os, signal
def ftruncate(descriptor, length):
    os.kill(os.getpid(), signal.SIGKILL)
os.ftruncate = ftruncate
"""
"""Python runs a module of the name sitecustomize before anything else."""


async def begin(one: Installation, part: str) -> Program:
    program = one.start(part)
    await asyncio.to_thread(program.wait_for, f"started process={part}")
    return program


async def stand_still(redis: Program, load: Load) -> None:
    """Stop Redis under load, for so long that mail goes to the journal."""
    redis.signal(signal.SIGSTOP)
    taken = len(load.accepted)
    await wait_until(lambda: len(load.accepted) > taken + 300, what="mail is taken all the same")
    redis.signal(signal.SIGCONT)


def skipped(proxy: Program) -> list[int]:
    return [int(each) for each in re.findall(r" journal_empty .*skipped=(\d+)", proxy.log)]


@pytest_asyncio.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as far_end:
        yield far_end


@pytest_asyncio.fixture
async def one(far_end: FarEnd) -> AsyncIterator[Installation]:
    folder = new_data_dir()
    settings = {"postmark": far_end.postmark(), "journal": {"disk_floor": "1MB"}}
    one = Installation(folder, settings)
    one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    yield one
    await asyncio.to_thread(one.close)
    remove_data_dir(folder)


async def doomed_proxy(one: Installation) -> Program:
    """Start one that is killed when it has moved its journal and is about to empty it."""
    hooks = one.folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(KILLED_BEFORE_TRUNCATION)
    one.environ["PYTHONPATH"] = f"{hooks}:{ROOT}"
    proxy = await begin(one, "proxy")
    del one.environ["PYTHONPATH"]
    return proxy


@pytest.mark.timeout(400)
async def test_no_copies_of_a_commit_that_redis_stopped_in_nor_of_a_journal_that_was_not_emptied(
    far_end: FarEnd, one: Installation
) -> None:
    redis = await begin(one, "redis")
    await begin(one, "worker")
    proxy = await doomed_proxy(one)
    load = Load(one.smtp_port, rate=400)
    running = asyncio.create_task(load.run())
    await wait_until(lambda: len(load.accepted) > 200, 30)
    await stand_still(redis, load)
    await wait_until(lambda: proxy.exit_code is not None, 30, "it dies of its first cut")
    assert proxy.exit_code == -signal.SIGKILL
    # All of its journal had been moved, and a batch that Redis had been sent was there already.
    assert skipped(proxy)[0] > 0
    (left,) = (one.data_dir / "journal").glob("*.journal")
    assert left.stat().st_size > 100_000
    heir = await begin(one, "proxy")
    taken = len(load.accepted)
    await wait_until(lambda: len(load.accepted) > taken + 100, 30)
    await wait_until(lambda: not left.exists(), 30, "what it left is gone through")
    assert "moved=0" in heir.log
    await stand_still(redis, load)
    await wait_until(lambda: len(skipped(heir)) == 2, 30, "moved")
    load.stop()
    await running
    wanted = set(load.accepted)
    await wait_until(lambda: not wanted - set(far_end.recipients()), 60, "all has been sent")
    assert load.refused == []
    assert [each for each, n in Counter(far_end.recipients()).items() if n > 1] == []
