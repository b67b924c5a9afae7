"""The sandbox's HTTP server: Postmark's API and its own pages, on loopback."""

import ipaddress
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from aiohttp import web

from proxy.sandbox.api import PostmarkApi
from proxy.sandbox.console import Console

if TYPE_CHECKING:
    from proxy.sandbox.sandbox import Sandbox


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    name = name.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@web.middleware
async def _local_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests for another host's name: a web page elsewhere that points its name here."""
    if not _is_local(request.host):
        raise web.HTTPForbidden(text="this is a loopback service\n")
    return await handler(request)


class SandboxWeb:
    """Serves a sandbox over HTTP at `address`; port 0 takes a free one, see `port`.

    Raises:
        ValueError: an address that is not loopback.
        OSError: at `start`, when the port cannot be had.
    """

    def __init__(
        self,
        sandbox: "Sandbox",
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        indexing_delay: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not ipaddress.ip_address(address).is_loopback:
            raise ValueError(f"the sandbox listens on loopback only, not on {address}")
        self.address = address
        self.port = port
        application = web.Application(middlewares=[_local_only])
        application.add_routes(PostmarkApi(sandbox.store, clock, indexing_delay).routes())
        application.add_routes(Console(sandbox).routes())
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=1
        )

    @property
    def url(self) -> str:
        """Where it is found."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.address, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
