"""One listening port that can be open, closed, or swallow packets, and change at any time."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from proxy.sandbox.faults import PortState


class Port:
    """A loopback TCP port.

    Open, it hands each connection to `factory`'s protocol. "refuse" closes it. "blackhole" leaves
    a listening socket whose queue is full and stays so: the kernel drops every further SYN, so
    that a client's connect times out, as behind a firewall that drops packets. Connections that
    are already made are not touched.

    Raises:
        OSError: at construction, when the port cannot be had.
    """

    def __init__(
        self, address: str, port: int, factory: Callable[["Port"], asyncio.Protocol]
    ) -> None:
        self.address = address
        self.state: PortState = ""
        self._factory = factory
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._fillers: list[socket.socket] = []
        self._socket: socket.socket | None = self._listen(port, 1024)
        self.number: int = self._socket.getsockname()[1]
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def become(self, state: PortState) -> None:
        """Change to `state`; "" is open."""
        if state == self.state:
            return
        self._shut()
        self.state = state
        if state == "blackhole":
            self._socket = self._listen(self.number, 0)
            for _ in range(2):
                filler = socket.socket(self._socket.family)
                filler.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    filler.connect(self._socket.getsockname())
                self._fillers.append(filler)
        elif state == "":
            self._socket = self._listen(self.number, 1024)
            self._loop.add_reader(self._socket.fileno(), self._accept)

    async def close(self) -> None:
        """Close the port for good, and wait for connections that are just being accepted."""
        self._shut()
        self.state = "refuse"
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self, port: int, backlog: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, port))
            listener.listen(backlog)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        return listener

    def _shut(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    def _accept(self) -> None:
        for _ in range(64):
            if self._socket is None:
                return
            try:
                connection, _peer = self._socket.accept()
            except OSError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._factory(self), connection)
        except OSError:
            connection.close()
