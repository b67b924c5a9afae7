"""A wire between a client and Redis that loses replies, and delivers requests late."""

import asyncio
import contextlib
from pathlib import Path

from proxy.queue.connection import SOCKET_NAME


class RedisWire:
    """Listens on `folder`/redis.sock and passes connections on to Redis's own `socket`.

    `lose_replies`: what Redis answers from now on is dropped, and the connection cut instead.
    `hold_requests`: what clients send from now on stays in the wire, even when they hang up;
    `deliver` hands it to Redis then. `swallow_replies`: what Redis answers is dropped and nothing
    else happens, from now on or once a client has sent certain octets. Connections made after
    `mend` are passed on as they should be; `cut` ends those that there are.
    """

    def __init__(self, folder: Path, socket: Path) -> None:
        self._path = folder / SOCKET_NAME
        self._far = socket
        self._mode = "passing"
        self._held: list[tuple[bytes, asyncio.StreamWriter]] = []
        self._signal = b""
        self._near: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.lost = 0
        self._server: asyncio.Server | None = None

    @property
    def held(self) -> int:
        """Octets that clients sent and Redis has not got."""
        return sum(len(octets) for octets, _ in self._held)

    async def __aenter__(self) -> "RedisWire":
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(w.wait_closed() for w in self._writers), return_exceptions=True)

    def lose_replies(self) -> None:
        self._mode = "losing"

    def hold_requests(self) -> None:
        self._mode = "holding"

    def swallow_replies(self, once_sent: bytes = b"") -> None:
        if once_sent:
            self._signal = once_sent
        else:
            self._mode = "swallowing"

    def mend(self) -> None:
        self._mode = "passing"
        self._signal = b""

    def cut(self) -> None:
        for writer in self._near:
            writer.close()

    async def deliver(self) -> None:
        """Hand Redis what was held, on the connections it was sent on."""
        for octets, far in self._held:
            far.write(octets)
            await far.drain()
        self._held.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._near.append(writer)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._far)
        except OSError:  # Redis is not there
            writer.close()
            return
        self._writers += [writer, far_writer]
        for coroutine in (self._up(reader, far_writer), self._down(far_reader, writer)):
            task = asyncio.create_task(coroutine)
            self._tasks.add(task)

    async def _up(self, near: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await near.read(65536):
                if self._signal and self._signal in octets:
                    self.swallow_replies()
                if self._mode == "holding":
                    self._held.append((octets, far))
                else:
                    far.write(octets)
                    await far.drain()

    async def _down(self, far: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await far.read(65536):
                if self._mode == "swallowing":
                    continue
                if self._mode == "losing":
                    self.lost += 1
                    near.close()
                    return
                near.write(octets)
                await near.drain()
            near.close()
