"""The far end is down while mail waits: nothing is counted against it, and it leaves soon after.

    python -m tests.crash.outage --seconds 600 --messages 20000

Real processes, the stand-in for Postmark in this one. First a queue is drained with nothing wrong,
for the rate to compare with. Prints its figures; ends with 1 when one of them is not as promised.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from proxy.queue import keys
from proxy.queue.job import decode_envelope
from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.processes import Installation, Program
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_until

RETURN_S = 15.0
"""Within which the first message arrives after the far end is back."""

FULL = 0.6
"""Of the rate before: what the rate afterwards may not be below (other work goes on beside)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen: seconds, messages, messages a second."""

    messages: int
    down: float
    counted: int
    dead: int
    first: float
    before: float
    after: float
    twice: int
    connections: int

    def faults(self, full: float = FULL) -> list[str]:
        """Return what is not as promised; `full` is the least share of the rate before."""
        found = {
            f"{self.counted} messages had an attempt counted": self.counted > 0,
            f"{self.dead} messages died": self.dead > 0,
            f"{self.twice} messages came twice": self.twice > 0,
            f"the first came {self.first:.1f} s after the return": self.first > RETURN_S,
            f"the rate afterwards is {self.after / self.before:.2f} of that before": (
                self.after < full * self.before
            ),
        }
        return [text for text, wrong in found.items() if wrong]

    def __str__(self) -> str:
        """Say it in lines for people."""
        return "\n".join(
            (
                f"down for            {self.down:.0f} s, {self.messages} messages waiting",
                f"attempts counted    {self.counted}",
                f"dead                {self.dead}",
                f"came twice          {self.twice}",
                f"first delivery      {self.first:.1f} s after the return",
                f"rate before, after  {self.before:.0f}, {self.after:.0f} messages/s",
                f"tries while down    {self.connections} connections",
            )
        )


@contextlib.asynccontextmanager
async def _installation(folder: Path, far_end: FarEnd) -> AsyncIterator[Installation]:
    one = Installation(folder, {"postmark": far_end.postmark()})
    one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    try:
        yield one
    finally:
        await asyncio.to_thread(one.close)


async def _start(one: Installation, part: str) -> Program:
    program = one.start(part)
    await asyncio.to_thread(program.wait_for, f"started process={part}")
    return program


async def _hand_in(one: Installation, prefix: str, count: int) -> None:
    load = Load(one.smtp_port, prefix=prefix, sessions=20, count=count)
    await load.run()
    assert len(load.accepted) == count, f"{len(load.refused)} refused"


async def _drained(far_end: FarEnd, total: int, timeout: float) -> tuple[float, float]:
    """Wait until `total` are taken; return when the next one was, and the rate from then on."""
    begin = far_end.store.count
    await far_end.until(begin + 1, timeout)
    first, there = time.monotonic(), far_end.store.count
    await far_end.until(total, timeout)
    return first, (total - there) / max(0.001, time.monotonic() - first)


def _attempts(queue: "redis.Redis") -> tuple[int, int]:
    """Return how many messages wait, and of how many an attempt is counted."""
    client: Any = queue
    at_once = client.pipeline()  # a probe may be taking one
    at_once.lrange(keys.queue_key("outbound"), 0, -1)
    at_once.zrange(keys.started_key("outbound"), 0, -1)
    at_once.zrange(keys.scheduled_key("outbound"), 0, -1)
    ids, claims, late = at_once.execute()
    ids += [each.partition(b":")[0] for each in claims]
    counted = len(late)
    for at in range(0, len(ids), 500):
        pipeline = client.pipeline(transaction=False)
        for each in ids[at : at + 500]:
            pipeline.hget(keys.job_key(each.decode()), "envelope")
        counted += sum(decode_envelope(one).attempts > 0 for one in pipeline.execute())
    return len(ids) + len(late), counted


async def outage(
    folder: Path,
    *,
    messages: int,
    seconds: float,
    how: str = "refuse",
    say: Callable[[str], None] = lambda _text: None,
) -> Figures:
    """Carry it out; `how` the ports are: "refuse" (closed) or "blackhole" (silent)."""
    async with FarEnd() as far_end, _installation(folder, far_end) as one:
        await _start(one, "redis")
        await _start(one, "proxy")
        before = min(messages, 5000)
        await _hand_in(one, "before", before)
        worker = await _start(one, "worker")
        _, rate_before = await _drained(far_end, before, 120)
        say(f"{before} messages drained at {rate_before:.0f}/s; the far end goes down")
        far_end.fail("connect", do=how)  # type: ignore[arg-type]  # one of the two
        far_end.cut()
        down = time.monotonic()
        await _hand_in(one, "r", messages)
        say(f"{messages} messages are kept, waiting for {seconds:.0f} s")
        await asyncio.sleep(max(0.0, down + seconds - time.monotonic()))
        queue = redis.Redis(unix_socket_path=str(one.data_dir / "redis.sock"))
        waiting, counted = await asyncio.to_thread(_attempts, queue)
        assert waiting == messages, f"{waiting} of {messages} wait"
        dead: int = queue.zcard(keys.failed_key("outbound"))  # type: ignore[assignment]  # not async
        lasted, taken = time.monotonic() - down, far_end.store.count
        tries = worker.log.count(" route_paused ") + worker.log.count(" endpoint_down ")
        far_end.mend()
        back = time.monotonic()
        say("the far end is back")
        first, rate_after = await _drained(far_end, taken + messages, max(120.0, messages / 20))
        empty = keys.queue_key("outbound"), keys.started_key("outbound")
        await wait_until(lambda: not queue.exists(*empty), 30)
        queue.close()
        counts = Counter(far_end.recipients())
        assert set(counts) >= {f"r{number}@example.net" for number in range(1, messages + 1)}
        return Figures(
            messages,
            lasted,
            counted + worker.log.count(" deferred id="),
            dead,
            first - back,
            rate_before,
            rate_after,
            sum(count > 1 for count in counts.values()),
            tries,
        )


def main() -> int:
    """Carry out what the command line says; return the exit code."""
    arguments = argparse.ArgumentParser(prog="python -m tests.crash.outage")
    arguments.add_argument("--seconds", type=float, default=600.0)
    arguments.add_argument("--messages", type=int, default=20_000)
    arguments.add_argument("--how", choices=("refuse", "blackhole"), default="refuse")
    given = arguments.parse_args()
    folder = new_data_dir()

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    work = outage(folder, messages=given.messages, seconds=given.seconds, how=given.how, say=say)
    figures = asyncio.run(work)
    faults = figures.faults()
    say("\n".join((str(figures), *(f"NOT AS PROMISED: {each}" for each in faults))))
    remove_data_dir(folder)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
