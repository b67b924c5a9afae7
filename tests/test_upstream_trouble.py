"""Trouble of one stream, of one message, or of the whole far end, under load on real processes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from proxy.queue.job import decode_envelope
from tests.crash.outage import outage
from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.mail_queue import dead, job, queued, scheduled, started
from tests.support.processes import Installation, Program
from tests.support.waiting import wait_until

WRONG = "11111111-2222-3333-4444-555555555555"
MEASURED = 200


class Site:
    """Redis, proxy and worker, and two streams, each with its token in a file of its own."""

    def __init__(self, folder: Path, far_end: FarEnd) -> None:
        self.far_end = far_end
        self.tokens = {name: folder / f"token-{name}" for name in ("outbound", "second")}
        for token in self.tokens.values():
            token.write_text(far_end.token)
        streams = {
            name: {"id": "outbound", "token": {"file": str(token)}}
            for name, token in self.tokens.items()
        }
        rules = [{"name": "second", "sender": ["second@*"], "stream": "second"}]
        sections = {
            "postmark": far_end.postmark(ask_for="2s"),
            "streams": streams,
            "rules": rules,
            "retry": {"first": "2s"},
        }
        self.office = Installation(folder, sections)

    async def start(self) -> None:
        for part in ("redis", "proxy", "worker"):
            self.worker: Program = self.office.start(part)
            await asyncio.to_thread(self.worker.wait_for, f"started process={part}")
        self.queue = redis.Redis(unix_socket_path=str(self.office.data_dir / "redis.sock"))

    def load(self, prefix: str, count: int, **options: object) -> Load:
        """Mail at 50 messages a second."""
        return Load(self.office.smtp_port, prefix, 5, count, rate=50, **options)  # type: ignore[arg-type]  # a test's

    async def late(self, prefix: str) -> float:
        """Hand in MEASURED messages of the first stream; return the 95th percentile of the
        seconds from their 250 to their arrival."""
        load = self.load(prefix, MEASURED)
        await load.run()
        assert load.refused == []
        await wait_until(lambda: self.arrived(load) == set(load.accepted), 30, f"all of {prefix}")
        at = {one.recipients[0]: one.at for one in self.far_end.messages}
        epoch = time.time() - time.monotonic()
        told = {each: epoch + load.moments[each][1] for each in load.accepted}
        took = sorted(max(0.0, at[each] - told[each]) for each in load.accepted)
        return took[int(len(took) * 0.95)]

    def arrived(self, load: Load) -> set[str]:
        there = {address for one in self.far_end.messages for address in one.recipients}
        return there & set(load.accepted)

    def refused_logins(self) -> int:
        return sum(not login.accepted for login in self.far_end.logins)


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[Site]:
    async with FarEnd() as far_end:
        site = Site(folder, far_end)
        try:
            await site.start()
            yield site
            site.queue.close()
        finally:
            await asyncio.to_thread(site.office.close)


def about_the_same(before: float, beside: float) -> bool:
    """Whether one latency is no more than another, on a machine that does other work, too."""
    return beside < 4 * before + 0.25


async def test_a_wrong_token_stops_its_own_stream_only_and_costs_few_logins(
    data_dir: Path,
) -> None:
    async with at_work(data_dir) as site:
        before = await site.late("before")
        site.tokens["second"].write_text(WRONG)
        site.far_end.cut()
        second = site.load("s", 150, sender="second@shop.example")
        handing_in = asyncio.create_task(second.run())
        await asyncio.to_thread(site.worker.wait_for, "route_paused stream=second")
        beside = await site.late("beside")
        await handing_in
        assert about_the_same(before, beside), f"p95 {before:.3f} s, {beside:.3f} s beside it"
        # Its mail waits, all of it, and nothing was its fault.
        assert site.arrived(second) == set()
        assert second.refused == []
        await wait_until(lambda: not started(site.queue, "second"))
        ids = queued(site.queue, "second")
        assert len(ids) == 150
        assert scheduled(site.queue, "second") == []
        waiting = [decode_envelope(job(site.queue, each)["envelope"]) for each in ids]
        assert {envelope.attempts for envelope in waiting} == {0}
        assert 1 <= site.refused_logins() <= 3
        site.tokens["second"].write_text(site.far_end.token)
        await wait_until(lambda: site.arrived(second) == set(second.accepted))
        assert dead(site.queue, "second") == []
        assert " deferred id=" not in site.worker.log
        assert site.refused_logins() <= 3
        assert len(site.far_end.recipients()) == 2 * MEASURED + 150  # each once


@pytest.mark.parametrize("at", ["content", "mail", "dot"])
async def test_a_message_on_which_the_far_end_always_drops_delays_nobody_else(
    data_dir: Path, at: str
) -> None:
    async with at_work(data_dir) as site:
        before = await site.late("before")
        where = "poison@*" if at == "mail" else "poison*"
        site.far_end.fail(at, do="drop", address=where)  # type: ignore[arg-type]  # a moment
        poison = site.load("poison", 3, sender="poison@shop.example")
        handing_in = asyncio.create_task(poison.run())
        beside = await site.late("beside")
        await handing_in
        assert about_the_same(before, beside), f"p95 {before:.3f} s, {beside:.3f} s beside it"
        assert site.arrived(poison) == set()
        assert " dead id=" not in site.worker.log
        assert " route_paused " not in site.worker.log
        # It is the message that is put off, with an attempt counted.
        await asyncio.to_thread(site.worker.wait_for, " deferred id=")
        site.far_end.mend()
        await wait_until(lambda: len(site.arrived(poison)) == 3, 40)


@pytest.mark.timeout(600)
async def test_an_outage_of_the_far_end_is_not_the_mail_s_fault_and_over_soon_after_it(
    data_dir: Path,
) -> None:
    for number in range(3):  # how fast 400 messages go tells little while the machine is busy
        folder = data_dir / str(number)
        folder.mkdir()
        figures = await outage(folder, messages=400, seconds=8.0)
        assert figures.faults(full=0.0) == []
        assert 0 < figures.connections < 20
        if not figures.faults(full=0.25):
            return
    pytest.fail(str(figures))
