"""A wire between a program and Redis that loses replies and delays requests on demand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Wire:
    """Passes everything on, but for what a test orders about requests that hold some octets."""

    def __init__(self, socket: Path, server: Path) -> None:
        self.socket = socket
        self.url = f"unix://{socket}"
        self.lost = 0
        self.held = 0
        self.delivered = 0
        self._server = server
        self._lose: list[bytes] = []
        self._hold: list[bytes] = []
        self._release = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def lose_reply_to(self, octets: bytes) -> None:
        """Let the next request with `octets` through, and break the connection at its reply."""
        self._lose.append(octets)

    def hold_request(self, octets: bytes) -> None:
        """Keep the next request with `octets` until `release`, as in a stalled server's socket.

        It reaches the server even when the client has hung up meanwhile.
        """
        self._hold.append(octets)

    def release(self) -> None:
        """Deliver what is held."""
        self._release.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_unix_connection(self._server, limit=1 << 25)
        losing = asyncio.Event()
        back = asyncio.create_task(self._back(up_reader, writer, losing))
        try:
            while chunk := await reader.read(1 << 25):
                late = self._take(self._hold, chunk)
                if late:
                    self.held += 1
                    await self._release.wait()
                if self._take(self._lose, chunk):
                    losing.set()
                up_writer.write(chunk)
                await up_writer.drain()
                self.delivered += late
        except OSError:
            pass
        finally:
            up_writer.close()
            writer.close()
            await asyncio.gather(back, return_exceptions=True)
            self._tasks.discard(task)

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 25):
                if losing.is_set():
                    self.lost += 1
                    break
                writer.write(chunk)
                await writer.drain()
        writer.close()

    @staticmethod
    def _take(orders: list[bytes], chunk: bytes) -> bool:
        for order in orders:
            if order in chunk:
                orders.remove(order)
                return True
        return False

    async def end(self) -> None:
        """Break every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire_to(server: Path, socket: Path) -> AsyncIterator[Wire]:
    """Lay a wire from `socket` to the server's socket."""
    wire = Wire(socket, server)
    listener = await asyncio.start_unix_server(wire.serve, socket, limit=1 << 25)
    try:
        yield wire
    finally:
        listener.close()
        await wire.end()
        await listener.wait_closed()
