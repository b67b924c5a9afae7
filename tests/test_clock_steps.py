"""The system clock is set by a year, either way, under real processes: nothing is harmed."""

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.clock import YEAR_S, SystemClock
from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.mail_queue import dead, queued, scheduled, unsettled
from tests.support.processes import Installation, Program
from tests.support.waiting import wait_until

WRONG = "11111111-2222-3333-4444-555555555555"


class Site:
    """Redis, proxy and worker on a clock that can be set."""

    def __init__(self, folder: Path, far_end: FarEnd) -> None:
        self.folder, self.far_end = folder, far_end
        self.clock = SystemClock(folder)
        self.token = folder / "token"
        self.token.write_text(WRONG)
        rules = [
            {"name": "code", "sender": ["code@*"], "expires": "1h"},
            {"name": "waits", "sender": ["waits@*"], "stream": "second", "expires": "1h"},
            {"name": "brief", "sender": ["brief@*"], "stream": "second", "expires": "8s"},
            {"name": "second", "sender": ["second@*"], "stream": "second"},
        ]
        right = {"env": "POSTMARK_SERVER_TOKEN"}
        streams = {
            "outbound": {"token": right},
            "second": {"id": "outbound", "token": {"file": str(self.token)}},
        }
        sections: dict[str, Any] = {
            "postmark": far_end.postmark(ask_for="2s"),
            "journal": {"disk_floor": "1MB"},
            "streams": streams,
            "rules": rules,
        }
        self.office = Installation(folder, sections)
        self.office.environ |= {"POSTMARK_SERVER_TOKEN": far_end.token, **self.clock.environ}
        self.programs: dict[str, Program] = {}

    async def start(self) -> None:
        self.programs = {part: self.office.start(part) for part in ("redis", "proxy", "worker")}
        for part, program in self.programs.items():
            await asyncio.to_thread(program.wait_for, f"started process={part}")
        self.queue = redis.Redis(unix_socket_path=str(self.office.data_dir / "redis.sock"))

    async def send(self, name: str, sender: str = "app@shop.example") -> None:
        """Hand in one message to NAME1@example.net."""
        load = Load(self.office.smtp_port, prefix=name, sessions=1, count=1, sender=sender)
        await load.run()
        assert load.accepted == [f"{name}1@example.net"]

    async def arrives(self, name: str, timeout: float = 10.0) -> None:
        await wait_until(
            lambda: self.far_end.to(f"{name}1@example.net"), timeout, f"{name} arrives"
        )

    def said(self, event: str) -> int:
        return sum(program.log.count(f" {event} ") for program in self.programs.values())


@pytest.fixture
async def site(data_dir: Path) -> AsyncIterator[Site]:
    async with FarEnd() as far_end:
        one = Site(data_dir, far_end)
        try:
            await one.start()
            yield one
            one.queue.close()
        finally:
            await asyncio.to_thread(one.office.close)


@pytest.mark.parametrize("step", [YEAR_S, -YEAR_S], ids=["forward", "back"])
async def test_a_step_of_a_year_neither_loses_nor_expires_nor_strands_nor_repeats_any_mail(
    site: Site, step: int
) -> None:
    far_end = site.far_end
    far_end.fail("rcpt", "451 4.2.1 busy", address="later*", times=1)
    far_end.fail("rcpt", "451 4.2.1 busy", address="code*", times=1)
    far_end.fail("rcpt", "550 5.1.1 nobody", address="never*")
    load = Load(site.office.smtp_port, prefix="load", sessions=5, rate=40)
    running = asyncio.create_task(load.run())
    await site.send("later")
    await site.send("code", "code@shop.example")
    await site.send("never")
    await site.send("second", "second@shop.example")  # of a route that is paused
    await site.send("waits", "waits@shop.example")
    began = time.monotonic()
    await site.send("brief", "brief@shop.example")
    await wait_until(lambda: len(scheduled(site.queue)) == 2 and len(dead(site.queue)) == 1)
    await wait_until(lambda: len(queued(site.queue, "second")) == 3)
    assert site.said("route_paused") == 1
    # Some of it stands in the journal when the clock is set.
    site.programs["redis"].signal(signal.SIGSTOP)
    told = len(load.accepted)
    await wait_until(lambda: len(load.accepted) > told + 60, what="mail goes to the journal")

    site.clock.set(step)

    told = len(load.accepted)
    await wait_until(lambda: len(load.accepted) > told + 20, what="mail is taken all the same")
    site.programs["redis"].signal(signal.SIGCONT)
    await wait_until(lambda: abs(site.queue.time()[0] - time.time() - step) < 60)
    # What a rule gives 8 s dies after 8 s, and what it gives an hour does not.
    await wait_until(lambda: dead(site.queue, "second"))
    assert time.monotonic() - began >= 8
    assert len(queued(site.queue, "second")) == 2
    # What was deferred for half a minute does not wait for a year.
    await site.arrives("later", 40)
    await site.arrives("code", 40)
    await site.send("fresh")
    await site.arrives("fresh")
    year = time.gmtime(time.time() + step).tm_year
    for part in ("proxy", "worker"):  # the clock was set for them, too
        assert re.search(rf"(?m)^{year}-.* (?:kept|sent) id=", site.programs[part].log)
    # Routes are probed as before.
    site.token.write_text(far_end.token)
    await site.arrives("second", 30)
    await site.arrives("waits", 30)
    load.stop()
    await running

    site.clock.set(0)  # and back again

    await site.send("last")
    await site.arrives("last")
    await wait_until(lambda: not unsettled(site.queue))
    counts = Counter(far_end.recipients())
    assert load.refused == []
    assert load.unanswered == []
    assert [one for one in load.accepted if counts[one] != 1] == []
    assert {counts[f"{name}1@example.net"] for name in ("later", "code", "second", "waits")} == {1}
    assert counts["brief1@example.net"] == 0
    # A dead letter that looks old enough may become a file, but is never in neither place.
    letters = len(dead(site.queue)) + len(list((site.office.data_dir / "dead").glob("*.eml")))
    assert letters == 1
    assert site.said("worker_reaped") == 0
    assert site.said("defect") == 0
    assert not re.search(r"taken for dead|no longer knows", site.programs["worker"].log)
