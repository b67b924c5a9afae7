"""A process of its own that keeps mail, to be killed: `python -m tests.support.keeper`."""

import asyncio
import subprocess
import sys
from pathlib import Path

from proxy.config import Settings
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.connection import open_redis
from proxy.queue.journal.folder import Bounds
from proxy.queue.watch import Demands
from tests.support.jobs import a_job
from tests.support.processes import ROOT
from tests.support.waiting import wait_for

STALL_S = 1.0


class Keeper:
    """Keeps mail of so many `sessions` in the Redis on `folder`/redis.sock, one after the other.

    Its journal is under `data_dir`. `kept` are the ids it confirmed, in that order.
    """

    def __init__(self, folder: Path, data_dir: Path, sessions: int = 8) -> None:
        self._said = data_dir / "keeper.out"
        self._errors = data_dir / "keeper.err"
        self._begin = self._said.stat().st_size if self._said.exists() else 0
        with self._said.open("ab") as out, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder), str(data_dir), str(sessions)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                cwd=ROOT,
            )

    @property
    def _lines(self) -> list[str]:
        lines = self._said.read_bytes()[self._begin :].decode().split("\n")
        return lines[:-1]  # what a kill cut short was not said

    @property
    def kept(self) -> list[str]:
        return [line[5:] for line in self._lines if line.startswith("kept ")]

    @property
    def refused(self) -> list[str]:
        return [line for line in self._lines if line.startswith("refused ")]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._errors.read_text()

    def until_more(self, count: int, timeout: float = 20.0) -> None:
        """Wait until so many more are kept."""
        wanted = len(self.kept) + count
        wait_for(lambda: len(self.kept) >= wanted, timeout, f"{count} more are kept")

    def end(self) -> None:
        """Let it end in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0, self.log

    def kill(self) -> None:
        """Kill it at once."""
        self._process.kill()
        self._process.wait(30)
        if self._process.stdin is not None:
            self._process.stdin.close()


async def _run(folder: Path, data_dir: Path, sessions: int) -> None:
    store = open_redis(Settings(), folder, timeout=None)
    journal = (data_dir, Bounds(disk_floor=0))
    committer = GroupCommit(store, Demands(), journal=journal, stall=STALL_S)
    await committer.start()
    ending = asyncio.Event()

    async def session() -> None:
        while not ending.is_set():
            job = a_job()
            try:
                await committer.commit(job)
            except NotKept as refusal:
                _say(f"refused {refusal}")
                await asyncio.sleep(0.05)
            else:
                _say(f"kept {job.id}")

    tasks = [asyncio.create_task(session()) for _ in range(sessions)]
    await asyncio.to_thread(sys.stdin.read)
    ending.set()
    await asyncio.gather(*tasks)
    await committer.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
