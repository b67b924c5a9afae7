"""A backup of Redis comes back while proxy and worker live on, on real processes."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.queue.marks import FOLDER as MARKS
from proxy.queue.server import FOLDER
from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.processes import Installation, Program
from tests.support.waiting import wait_until

LATER = [f"later{number}@example.net" for number in range(5)]


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
async def one(data_dir: Path, far_end: FarEnd) -> AsyncIterator[Installation]:
    sections = {
        "postmark": far_end.postmark(),
        "retry": {"first": "10m"},  # what is deferred goes by command, however long these take
        "notify": {"command": ["tee", "-a", str(data_dir / "told")]},
    }
    installation = Installation(data_dir, sections)
    installation.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    try:
        yield installation
    finally:
        await asyncio.to_thread(installation.close)


async def start(one: Installation, *parts: str) -> list[Program]:
    programs = [one.start(part) for part in parts]
    for part, program in zip(parts, programs, strict=True):
        await asyncio.to_thread(program.wait_for, f"started process={part}")
    return programs


def ticks(one: Installation) -> list[int]:
    """What each process of the host has noted last."""
    found = []
    for path in (one.data_dir / MARKS).glob("*.json"):
        found += [tick for tick, _ in json.loads(path.read_text()).values()]
    return found


async def run(one: Installation, *words: str) -> str:
    done = await asyncio.to_thread(one.run, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def hand_in(one: Installation, recipients: list[str]) -> None:
    for recipient in recipients:
        await run(one, "send-test", "--from", "app@example.com", "--to", recipient, "--wait", "0")


def taken(far_end: FarEnd) -> Counter[str]:
    return Counter(far_end.recipients())


def twice(far_end: FarEnd) -> list[str]:
    """Who got a message more than once."""
    return [address for address, count in taken(far_end).items() if count > 1]


async def noted_beyond(one: Installation, tick: int, processes: int) -> None:
    await wait_until(
        lambda: sum(each > tick for each in ticks(one)) >= processes, 20, "all have noted more"
    )


async def test_nothing_of_the_backup_is_sent_twice_and_new_mail_goes_on(
    one: Installation, far_end: FarEnd
) -> None:
    [redis] = await start(one, "redis")
    proxy, worker = await start(one, "proxy", "worker")
    fault = far_end.fail("rcpt", "451 4.2.1 busy", address="later*")
    await hand_in(one, LATER)
    before = Load(one.smtp_port, sessions=4, rate=50.0)
    running = asyncio.create_task(before.run())
    await wait_until(lambda: len(before.accepted) > 50)
    shutil.copytree(one.data_dir / FOLDER, one.data_dir / "backup")
    await noted_beyond(one, 0, 2)
    at_backup = max(ticks(one))
    await wait_until(lambda: len(before.accepted) > 150)
    before.stop()
    await running
    far_end.mend(fault)
    assert "5 messages due now" in await run(one, "queue", "flush", "--all")
    everybody = {*before.accepted, *LATER}
    await wait_until(lambda: everybody <= set(taken(far_end)), what="all was sent")
    await noted_beyond(one, at_backup + 10, 2)

    redis.kill()
    shutil.rmtree(one.data_dir / FOLDER)
    shutil.copytree(one.data_dir / "backup", one.data_dir / FOLDER)
    after = Load(one.smtp_port, "new", sessions=4, rate=50.0)
    running = asyncio.create_task(after.run())
    await wait_until(lambda: len(after.accepted) > 20, what="the journal takes mail")
    await start(one, "redis")
    await wait_until(lambda: len(after.accepted) > 200, 30, "mail is taken as ever")
    after.stop()
    await running
    await wait_until(lambda: set(after.accepted) <= set(taken(far_end)), 30, "new mail is sent")
    assert not twice(far_end)
    assert "store_restored" in proxy.log + worker.log

    async def all_is_held() -> bool:
        """What a worker had in hand at the backup is so only once that is found to be gone."""
        listed = json.loads(await run(one, "queue", "list", "--json"))
        return {each["state"] for each in listed} == {"held"}

    await wait_until(all_is_held, 60)
    held = json.loads(await run(one, "queue", "list", "--state", "held", "--json"))
    assert {each["recipients"][0] for each in held} >= set(LATER)
    assert {each["hold"] for each in held} == {"restored"}
    listed = await run(one, "queue", "list")
    assert "held by restored: all mail taken before" in listed
    await wait_until(
        lambda: (
            (one.folder / "told").exists()
            and "restored from a backup" in (one.folder / "told").read_text()
        ),
        60,
        "somebody is told",
    )
    await run(one, "queue", "delete", "--held", "--yes")
    await run(one, "queue", "release", "restored")
    assert json.loads(await run(one, "queue", "list", "--json")) == []
    assert not twice(far_end)


async def test_a_backup_that_comes_back_while_all_is_down_is_found_at_the_start(
    one: Installation, far_end: FarEnd
) -> None:
    programs = await start(one, "redis") + await start(one, "proxy", "worker")
    fault = far_end.fail("rcpt", "451 4.2.1 busy", address="later*")
    await hand_in(one, LATER)
    await wait_until(lambda: programs[2].log.count(" deferred ") >= len(LATER))
    shutil.copytree(one.data_dir / FOLDER, one.data_dir / "backup")
    await noted_beyond(one, 0, 2)
    await noted_beyond(one, max(ticks(one)) + 10, 2)
    far_end.mend(fault)
    await run(one, "queue", "flush", "--all")
    await wait_until(lambda: set(LATER) <= set(taken(far_end)))
    for program in reversed(programs):
        await asyncio.to_thread(program.stop)

    shutil.rmtree(one.data_dir / FOLDER)
    shutil.copytree(one.data_dir / "backup", one.data_dir / FOLDER)
    await start(one, "redis")
    [worker] = await start(one, "worker")  # first, as it likes to send
    await asyncio.to_thread(worker.wait_for, "store_restored")
    await start(one, "proxy")
    await hand_in(one, ["new@example.net"])
    await run(one, "queue", "flush", "--all")  # which does not let held mail go
    await wait_until(lambda: "new@example.net" in taken(far_end))
    assert not twice(far_end)
    await run(one, "queue", "release", "restored")
    await run(one, "queue", "flush", "--all")
    await wait_until(lambda: all(taken(far_end)[each] == 2 for each in LATER))
