"""How much is written to the journal while it is being moved."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.queue.batch import Waiting
from proxy.queue.journal.file import JournalFile
from proxy.queue.journal.source import Source
from proxy.queue.journal.writer import Writer
from tests.support.jobs import a_job
from tests.support.waiting import wait_until


async def at_once(call: Callable[..., object], *arguments: Any) -> object:
    return call(*arguments)


@pytest.fixture
async def own(tmp_path: Path) -> Source:
    return Source(JournalFile.create(tmp_path, "0123456789abcdef"))


@pytest.fixture
async def writer(own: Source) -> Writer:
    return Writer(own, lambda: 1_000_000, at_once, lambda trouble: None)


def add(writer: Writer, count: int) -> list[Waiting]:
    """Add messages of somewhat over 1,000 octets."""
    loop = asyncio.get_running_loop()
    waiting = [Waiting(a_job(b"x" * 1000), loop.create_future()) for _ in range(count)]
    for number, each in enumerate(waiting, 1):
        writer.add(number, each)
    return waiting


async def test_no_more_is_written_than_the_ration_and_one_message_and_that_is_taken_off_the_next(
    own: Source, writer: Writer
) -> None:
    writer.ration(0)
    waiting = add(writer, 10)
    # A frame has 1,143 octets.
    for ration, there in ((3000, 3), (300, 3), (400, 4), (1, 4), (800, 4), (100, 5)):
        writer.ration(ration)
        await wait_until(lambda: writer._task is None)
        assert own.messages == there, ration
    assert [each.done.done() for each in waiting] == [True] * 5 + [False] * 5
    await writer.settled()
    assert writer.idle
    assert own.messages == 10


async def test_without_a_ration_all_is_written(own: Source, writer: Writer) -> None:
    writer.ration(1)
    add(writer, 10)
    writer.ration(None)
    await wait_until(lambda: writer.idle)
    assert own.messages == 10
