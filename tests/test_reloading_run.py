"""SIGHUP to `franker run`: it reaches proxy and worker, and a storm of them loses nothing."""

import asyncio
import signal
from pathlib import Path
from typing import Any

from tests.support.clients import new_recipient
from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.processes import Installation, Program
from tests.support.waiting import wait_until

HANG_UPS = 20
RULE = {"name": "to billing", "recipient": "*", "stream": "billing"}


def configure(one: Installation, far_end: FarEnd, **sections: Any) -> None:
    one.configure({"postmark": far_end.postmark(), "retry": {"first": "1s"}, **sections})


async def run(folder: Path, far_end: FarEnd) -> tuple[Installation, Program]:
    one = Installation(folder)
    configure(one, far_end)
    one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    program = one.start("run")
    await asyncio.to_thread(program.wait_for, "Franker is ready")
    return one, program


async def test_both_read_again_and_mail_goes_by_the_new_rule_and_the_new_stream(
    data_dir: Path,
) -> None:
    async with FarEnd() as far_end:
        one, program = await run(data_dir, far_end)
        try:
            streams = {"billing": {"id": "broadcasts", "kind": "broadcast"}}
            configure(one, far_end, rules=[RULE], streams=streams)
            program.signal(signal.SIGHUP)
            for process in ("proxy", "worker"):
                await asyncio.to_thread(program.wait_for, f" reloaded process={process} ")
            to = new_recipient()
            arguments = ("send-test", "--from", "app@example.com", "--to", to)
            done = await asyncio.to_thread(one.run, *arguments)
            assert done.returncode == 0, done.stderr
            [taken] = await far_end.until(1)
            assert taken.field("X-PM-Message-Stream") == "broadcasts"
            assert program.exit_code is None
        finally:
            await asyncio.to_thread(one.close)


async def test_twenty_in_a_row_under_load_lose_nothing_send_nothing_twice_and_refuse_nobody(
    data_dir: Path,
) -> None:
    async with FarEnd() as far_end:
        far_end.fail("dot", do="delay", seconds=0.02)
        one, program = await run(data_dir, far_end)
        load = Load(one.smtp_port, sessions=5, rate=100.0)
        loading = asyncio.create_task(load.run())
        try:
            for number in range(HANG_UPS):
                wanted = len(load.accepted) + 10
                await wait_until(lambda wanted=wanted: len(load.accepted) >= wanted, what="more")
                # Rule and stream come and go, and so does another way for the usual stream.
                sections: dict[str, Any] = {"streams": {"billing": {"id": "outbound"}}}
                if number % 2:
                    sections["rules"] = [RULE]
                if number % 3 == 0:
                    sections["postmark"] = far_end.postmark(auth=["LOGIN"])
                configure(one, far_end, **sections)
                program.signal(signal.SIGHUP)
            for _ in range(HANG_UPS):  # nobody waits for anybody
                program.signal(signal.SIGHUP)
            wanted = len(load.accepted) + 100
            await wait_until(lambda: len(load.accepted) >= wanted, what="100 more")
            load.stop()
            await loading
            assert not load.refused
            assert not load.unanswered
            await wait_until(
                lambda: set(load.accepted) <= set(far_end.recipients()), 60, "all arrived"
            )
            assert sorted(far_end.recipients()) == sorted(load.accepted)
            assert " reload_refused " not in program.log
            assert " defect " not in program.log
            assert program.log.count(" part_ended ") == 0
        finally:
            load.stop()
            await loading
            await asyncio.to_thread(one.close)
