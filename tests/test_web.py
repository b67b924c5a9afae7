"""HTTP for machines that watch a process: metrics, health, readiness; and nothing for others."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from proxy.web import HttpServer, serve_http
from proxy.web.server import HttpError, known_host


class Process:
    """What the server asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("things", "Things.", registry=self.registry)
        self.why = ""

    async def ready(self) -> tuple[bool, str]:
        return not self.why, self.why


@pytest.fixture
def process() -> Process:
    return Process()


@pytest_asyncio.fixture
async def server(process: Process) -> AsyncIterator[HttpServer]:
    found = await serve_http("127.0.0.1:0", metrics=process.registry, ready=process.ready)
    yield found
    await found.close()


async def get(server: HttpServer, path: str, **headers: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{server.address}{path}", headers=headers) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_are_in_prometheus_text_form(server: HttpServer, process: Process) -> None:
    process.counter.inc(3)
    status, kind, text = await get(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert "things_total 3.0" in text.splitlines()


async def test_metrics_are_in_openmetrics_form_for_those_who_ask(server: HttpServer) -> None:
    _, kind, text = await get(server, "/metrics", Accept="application/openmetrics-text")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


async def test_a_process_that_answers_is_alive_even_when_it_is_not_ready(
    server: HttpServer, process: Process
) -> None:
    process.why = "the mail store does not answer"
    assert (await get(server, "/healthz"))[::2] == (200, "ok\n")


async def test_readiness_says_why_not(server: HttpServer, process: Process) -> None:
    assert (await get(server, "/readyz"))[::2] == (200, "ok\n")
    process.why = "the mail store does not answer"
    assert (await get(server, "/readyz"))[::2] == (503, "the mail store does not answer\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
async def test_a_name_that_is_not_ours_is_turned_away(server: HttpServer, path: str) -> None:
    status, _, text = await get(server, path, Host="evil.example.com:9587")
    assert status == 421
    assert text == "This host is not known by that name here.\n"


async def test_there_is_nothing_else(server: HttpServer) -> None:
    assert (await get(server, "/"))[0] == 404
    assert (await get(server, "/../etc/passwd"))[0] == 404


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:9587", True),
        ("localhost.", True),
        ("127.0.0.1:9587", True),
        ("[::1]:9587", True),
        ("[::1]", True),
        ("192.0.2.7", True),
        ("mailhost.example.com:9587", True),
        ("", False),
        ("evil.example.com", False),
        ("localhost.evil.example.com", False),
        ("127.0.0.1.evil.example.com", False),
        ("[evil]", False),
    ],
)
def test_our_names_are_addresses_localhost_and_the_hosts_own(host: str, known: bool) -> None:
    assert known_host(host, {"mailhost.example.com"}) is known


async def test_ipv6_is_served_under_its_real_port(process: Process) -> None:
    server = await serve_http("[::1]:0", metrics=process.registry, ready=process.ready)
    try:
        assert server.address.startswith("[::1]:")
        assert (await get(server, "/healthz"))[0] == 200
    finally:
        await server.close()


async def test_a_port_that_is_taken_is_named(server: HttpServer, process: Process) -> None:
    with pytest.raises(HttpError) as caught:
        await serve_http(server.address, metrics=process.registry, ready=process.ready)
    assert server.address in str(caught.value)


async def test_a_process_may_add_pages_of_its_own(process: Process) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    server = await serve_http(
        "127.0.0.1:0",
        metrics=process.registry,
        ready=process.ready,
        routes=[web.get("/", page)],
    )
    try:
        assert (await get(server, "/"))[::2] == (200, "hello")
    finally:
        await server.close()


async def test_an_answer_is_given_before_the_server_ends(process: Process) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="done")

    server = await serve_http(
        "127.0.0.1:0", metrics=process.registry, ready=process.ready, routes=[web.get("/s", slow)]
    )
    asking = asyncio.create_task(get(server, "/s"))
    await entered.wait()
    closing = asyncio.create_task(server.close())
    go_on.set()
    assert (await asking)[2] == "done"
    await closing
