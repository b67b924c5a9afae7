"""A far end that does nothing but take mail, as fast as it can: STARTTLS, PIPELINING, AUTH.

    python -m benchmarks.sink --folder DIR [--delay SECONDS]

It says in one line of JSON where it listens (`port`, `ca_file`); then each line on its standard
input is obeyed and answered with one of JSON: how many messages it took, when the first and the
last came (monotonic seconds), how many connections there were.

    count     nothing but the answer
    at N      the answer has `at`, when the Nth message came (0: not yet)
    reset     the count begins anew after the answer
    down      every connection is cut and new ones are refused, until
    up        it listens again, on the same port

It ends with its input.
"""

import argparse
import asyncio
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.processes import free_port
from benchmarks.sink_dialog import Count, SinkProtocol
from proxy.sandbox.certificates import Authority


class Sink:
    """A sink on a port of 127.0.0.1, and what it took."""

    def __init__(self, folder: Path, delay: float = 0.0) -> None:
        authority = Authority(folder)
        self.ca_file = authority.ca_file
        self.count = Count()
        self.port = 0
        self._context = authority.context()
        self._delay = delay
        self._server: asyncio.Server | None = None
        self.open: weakref.WeakSet[SinkProtocol] = weakref.WeakSet()

    def _protocol(self) -> SinkProtocol:
        one = SinkProtocol(self.count, self._context, self._delay)
        self.open.add(one)
        return one

    async def up(self) -> None:
        """Listen: on a free port the first time, on the same one again after `down`."""
        if self._server is None:
            self.port = self.port or free_port()
            self._server = await asyncio.get_running_loop().create_server(
                self._protocol, "127.0.0.1", self.port, backlog=1024
            )

    def down(self) -> None:
        """Refuse new connections, and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for one in list(self.open):
            one.cut()

    async def obey(self, line: str) -> dict[str, Any]:
        """Do what one `line` says and return the answer."""
        word, _, number = line.strip().partition(" ")
        said = self.count.as_json(int(number or 0))
        if word == "reset":
            self.count.reset()
        elif word == "down":
            self.down()
        elif word == "up":
            await self.up()
        return said


async def _serve(folder: Path, delay: float) -> None:
    sink = Sink(folder, delay)
    await sink.up()
    print(json.dumps({"port": sink.port, "ca_file": str(sink.ca_file)}), flush=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await sink.obey(line.decode())), flush=True)
    sink.down()


def main() -> None:
    """Run a sink until its standard input ends."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.sink")
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--delay", type=float, default=0.0, help="round trip in seconds")
    given = arguments.parse_args()
    uvloop.run(_serve(given.folder, given.delay))


if __name__ == "__main__":
    main()
