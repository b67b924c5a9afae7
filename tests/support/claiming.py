"""A worker's claims in a process of their own, to be stopped and killed.

python -m tests.support.claiming DATA_DIR COUNT MARKED [far]: claims COUNT messages, marks the first
MARKED, says "ready NAME", then on each line of input tries a mark and a settle of the first claim
and says what came of them. With "far" nobody on this host can see that the process ended.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from proxy.config import Settings
from tests.support.mail_queue import claim_all
from tests.support.processes import ROOT, clean_environ
from tests.support.waiting import wait_until
from worker.claims import Claims, Settlement
from worker.claims import claims as module


def start(
    data_dir: Path, count: int, marked: int = 0, *, far: bool = False
) -> subprocess.Popen[str]:
    """Start it, and return when it holds its claims."""
    words = [str(data_dir), str(count), str(marked), *(["far"] if far else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.claiming", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environ(),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("ready"), line
    return process


def ask(process: subprocess.Popen[str]) -> list[str]:
    """Let it try a mark and a settle; return its words: marked, settled, may_send, name."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split()


def end(process: subprocess.Popen[str]) -> None:
    """Kill it, if it still lives."""
    process.kill()
    process.wait(30)
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


async def main(data_dir: str, count: str, marked: str, far: str = "") -> None:
    """Be that process."""
    if far:
        module.identity = lambda: ""
    claims = Claims(Settings(), Path(data_dir), ("outbound",), number=9)
    await claims.start()
    held = await claim_all(claims, int(count))
    for claim in held[: int(marked)]:
        assert await claims.mark(claim, claim.envelope.recipients)
    name = claims.name
    print("ready", name, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        result = [
            await claims.mark(held[0], ("late@example.net",)),
            await claims.settle(held[0], Settlement("gone")),
            claims.may_send(),
        ]
        if not result[0]:
            await wait_until(lambda: claims.name != name)
        print(*result, claims.name, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
