"""The client of Postmark's API against a server that may say anything."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from worker.outcomes.api import Api, TokenRefused, Unanswered
from worker.smarthost.tls import TrustStore

OUR_ID = "01m7w9xfgkes0ytxfc75fx2xys"
TOKEN = "5a4db0c5-0000-4000-8000-f4a2cde50001"
STREAM = "outbound"


@dataclass
class Server:
    """Answers by path; `asked` are the paths with their queries, as they came."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(str(request.rel_url))
        said = self.answers.get(request.path, web.Response(status=404))
        return said() if callable(said) else web.json_response(said)


@asynccontextmanager
async def serving(
    server: Server, context: ssl.SSLContext | None = None, ca_file: str = ""
) -> AsyncIterator[Api]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    scheme = "https" if context else "http"
    server.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    api = Api(server.url, TrustStore(ca_file))
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


def row(number: str = "m-1", to: str = "you@example.net", **more: Any) -> dict[str, Any]:
    metadata = {"Metadata": {"franker-id": OUR_ID}}
    return {"MessageID": number, "Recipients": [to], "Status": "Sent", **metadata, **more}


def messages(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"/messages/outbound": {"TotalCount": len(rows), "Messages": list(rows)}}


async def test_messages_are_asked_for_by_our_id_in_their_stream() -> None:
    server = Server(messages(row()))
    async with serving(server) as api:
        [found] = await api.messages(TOKEN, "second", OUR_ID)
    assert found.recipients == {"you@example.net"}
    assert f"metadata_franker-id={OUR_ID}" in server.asked[0]
    assert "messagestream=second" in server.asked[0]


async def test_an_api_that_shows_messages_of_others_is_not_believed() -> None:
    other = row("m-2", Metadata={"franker-id": "another"})
    async with serving(Server(messages(other, row("m-3", Metadata={})))) as api:
        assert await api.messages(TOKEN, STREAM, OUR_ID) == []


async def test_where_a_row_shows_no_metadata_the_message_itself_is_asked() -> None:
    server = Server(messages(row("ours", Metadata=None), row("foreign", Metadata=None)))
    server.answers["/messages/outbound/ours/details"] = row("ours")
    server.answers["/messages/outbound/foreign/details"] = row("foreign", Metadata={})
    async with serving(server) as api:
        found = await api.messages(TOKEN, STREAM, OUR_ID)
    assert [one.id for one in found] == ["ours"]


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_an_error_is_no_answer_and_its_words_are_told(status: int) -> None:
    def error() -> web.Response:
        return web.json_response({"ErrorCode": 100, "Message": "maintenance"}, status=status)

    async with serving(Server({"/messages/outbound": error})) as api:
        with pytest.raises(Unanswered, match=f"{status}: maintenance"):
            await api.messages(TOKEN, STREAM, OUR_ID)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_an_error_of_its_own(status: int) -> None:
    refused = {"/messages/outbound": lambda: web.Response(status=status, text="no")}
    async with serving(Server(refused)) as api:
        with pytest.raises(TokenRefused):
            await api.messages(TOKEN, STREAM, OUR_ID)


def _text(text: str) -> Callable[[], web.Response]:
    return lambda: web.Response(text=text)


@pytest.mark.parametrize(
    "said",
    [
        _text("<html>"),
        _text(""),
        _text('{"Messages": null}'),
        _text('{"Messages": [1]}'),
        _text('{"Messages": [{"Metadata": {"franker-id": "' + OUR_ID + '"}}]}'),
        _text("[" * 100_000),
        _text("null"),
    ],
)
async def test_what_is_not_understood_is_no_answer(said: Callable[[], web.Response]) -> None:
    async with serving(Server({"/messages/outbound": said})) as api:
        with pytest.raises(Unanswered):
            await api.messages(TOKEN, STREAM, OUR_ID)


async def test_an_answer_without_end_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.outcomes.api._MOST_OCTETS", 1000)
    async with serving(Server({"/messages/outbound": _text(" " * 2000)})) as api:
        with pytest.raises(Unanswered, match="more than"):
            await api.messages(TOKEN, STREAM, OUR_ID)


async def test_the_token_follows_no_redirect() -> None:
    elsewhere = Server(messages(row()))
    async with serving(elsewhere):

        def moved() -> web.Response:
            return web.Response(status=302, headers={"Location": elsewhere.url})

        async with serving(Server({"/messages/outbound": moved})) as api:
            with pytest.raises(Unanswered, match="302"):
                await api.messages(TOKEN, STREAM, OUR_ID)
    assert elsewhere.asked == []


async def test_no_token_goes_to_a_server_that_cannot_be_verified(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    stranger = Server(messages(row()))
    async with serving(stranger, context) as api:
        with pytest.raises(Unanswered):
            await api.messages(TOKEN, STREAM, OUR_ID)
    assert stranger.asked == []
    async with serving(stranger, context, str(ca_file)) as api:
        assert await api.messages(TOKEN, STREAM, OUR_ID)


def bounce(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ID": number,
        "Type": "SMTPApiError",
        "MessageID": f"m-{number}",
        "Email": "you@example.net",
        "Details": "error code 300",
        **more,
    }


async def test_a_bounce_is_known_as_ours_by_metadata_content_or_dump() -> None:
    ours = {"franker-id": OUR_ID}
    listed = [bounce(1), bounce(2), bounce(3, Metadata=ours)]
    server = Server({"/bounces": {"Bounces": listed}})
    server.answers["/bounces/1"] = {"Content": "Subject: of others"}
    server.answers["/bounces/1/dump"] = {"Body": ""}
    server.answers["/bounces/2"] = {}
    server.answers["/bounces/2/dump"] = {"Body": f"X-PM-Metadata-franker-id: {OUR_ID}"}
    async with serving(server) as api:
        assert await api.refused_to(TOKEN, STREAM, "you@example.net", OUR_ID, most=10) == "m-2"
        server.answers["/bounces/1"] = {"Content": f"id {OUR_ID}"}
        assert await api.refused_to(TOKEN, STREAM, "you@example.net", OUR_ID, most=10) == "m-1"
        server.answers["/bounces"] = {"Bounces": [bounce(3, Metadata=ours)]}
        assert await api.refused_to(TOKEN, STREAM, "you@example.net", OUR_ID, most=10) == "m-3"


async def test_only_so_many_refusals_to_one_recipient_are_looked_at() -> None:
    server = Server({"/bounces": {"Bounces": [bounce(number) for number in range(50)]}})
    for number in range(50):
        server.answers[f"/bounces/{number}"] = {"Content": ""}
        server.answers[f"/bounces/{number}/dump"] = {"Body": ""}
    async with serving(server) as api:
        assert await api.refused_to(TOKEN, STREAM, "you@example.net", OUR_ID, most=3) == ""
    assert len(server.asked) == 1 + 2 * 3
