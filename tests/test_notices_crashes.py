"""Workers are killed while mail dies and its owners are told: each hears of it, and once."""

import asyncio
import random
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.far_end import FarEnd
from tests.support.mail_queue import dead
from tests.support.processes import Installation, Program
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_until

_OWNERS = 24
_KILLS = 6
_SEED = 20261120


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_data_dir()
    yield folder
    remove_data_dir(folder)


def hand_in(port: int, number: int) -> None:
    sender = f"app{number}@example.com"
    text = f"From: {sender}\r\nTo: gone@example.net\r\nSubject: Trial {number}\r\n\r\ntext\r\n"
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail(sender, "gone@example.net", text.encode())


@pytest.mark.slow
async def test_every_owner_is_told_once_of_mail_that_died_among_workers_being_killed(
    folder: Path,
) -> None:
    chance = random.Random(_SEED)
    owners = [f"owner{number}@example.com" for number in range(_OWNERS)]
    rules = [
        {"name": f"r{number}", "sender": [f"app{number}@*"], "owner": owner}
        for number, owner in enumerate(owners)
    ]
    async with FarEnd(indexing_delay=0.5) as far_end:
        far_end.fail("rcpt", "550 5.1.1 no such person", address="gone@*")
        one = Installation(
            folder,
            {
                "postmark": far_end.postmark(),
                "notify": {"from": "franker@example.com"},
                "rules": rules,
            },
        )
        one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
        one.environ["FRANKER_WORKER__HTTP"] = "127.0.0.1:0"

        async def started(part: str) -> Program:
            program = one.start(part)
            await asyncio.to_thread(program.wait_for, f"started process={part}")
            return program

        try:
            await started("redis")
            await started("proxy")
            workers = [await started("worker"), await started("worker")]
            for kill in range(_KILLS):
                for number in range(kill, _OWNERS, _KILLS):
                    await asyncio.to_thread(hand_in, one.smtp_port, number)
                # A notice is due 10 s after a death at the latest: what follows hits that moment.
                await asyncio.sleep(chance.uniform(0.5, 4.0))
                victim = chance.randrange(2)
                workers[victim].kill()
                workers[victim] = await started("worker")
            with redis.Redis(unix_socket_path=str(one.data_dir / "redis.sock")) as store:
                await wait_until(lambda: len(dead(store)) == _OWNERS, 30)
            await wait_until(lambda: set(far_end.recipients()) == set(owners), 60)
            assert sorted(far_end.recipients()) == sorted(owners)
        finally:
            await asyncio.to_thread(one.close)
