"""HTTP for machines that watch: metrics, and whether the process lives and can do its work.

Nothing here shows an address or a secret. The Host header is checked, since a web page in a
browser on this host could otherwise be pointed at us by its own DNS name (DNS rebinding).
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Ready = Callable[[], Awaitable[tuple[bool, str]]]
"""Returns whether the process can do its work now, and in plain words why not."""

_SECURE = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class HttpError(Exception):
    """The address for HTTP cannot be listened on; the text says which and why."""


class HttpServer:
    """A running server; `address` is "HOST:PORT" with the port it really has."""

    def __init__(self, runner: web.AppRunner, address: str) -> None:
        self._runner = runner
        self.address = address

    async def close(self) -> None:
        """End it; requests in hand are answered."""
        await self._runner.cleanup()


def known_host(host: str, names: Collection[str]) -> bool:
    """Say whether a Host header names us: an IP address, localhost, or one of `names`.

    DNS rebinding needs a name of the attacker's; an IP address is never one. Any port will do.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def serve_http(
    address: str,
    *,
    metrics: CollectorRegistry,
    ready: Ready,
    names: Collection[str] = (),
    routes: Collection[web.RouteDef] = (),
) -> HttpServer:
    """Serve on `address` ("127.0.0.1:9587", "[::1]:9587") until the returned server is closed.

    `names` are host names beside localhost by which we may be asked, `routes` pages of the
    process's own.

    Raises:
        HttpError: the address cannot be listened on.
    """
    ours = frozenset(name.lower() for name in (*names, socket.gethostname()))

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not known_host(request.headers.get("Host", ""), ours):
            return _plain(421, "This host is not known by that name here.\n")
        response = await handler(request)
        response.headers.update(_SECURE)
        return response

    async def show_metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics), headers={"Content-Type": content_type})

    async def show_health(_request: web.Request) -> web.Response:
        return _plain(200, "ok\n")

    async def show_readiness(_request: web.Request) -> web.Response:
        able, why = await ready()
        return _plain(200 if able else 503, f"{'ok' if able else why}\n")

    application = web.Application(middlewares=[guard])
    application.add_routes(
        [
            web.get("/metrics", show_metrics),
            web.get("/healthz", show_health),
            web.get("/readyz", show_readiness),
            *routes,
        ]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0, handle_signals=False)
    await runner.setup()
    host, _, port = address.rpartition(":")
    site = web.TCPSite(runner, host.strip("[]") or None, int(port), reuse_address=True)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise HttpError(f"http: {address}: {error.strerror or error}") from error
    real = runner.addresses[0][1]
    return HttpServer(runner, f"{host}:{real}")


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_SECURE)
