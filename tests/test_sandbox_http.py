"""The stand-in over HTTP: Postmark's API, the page, failures on demand."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

from proxy.sandbox.account import Account
from proxy.sandbox.faults import Act, Fault, Moment
from proxy.sandbox.web import SandboxWeb
from proxy.sandbox.where import Where
from tests.support.dialog import Dialog
from tests.support.far_end import FarEnd
from tests.support.processes import ROOT

CONTENT = (
    b"From: App <app@example.com>\r\nTo: You <you@example.net>\r\nCc: cc@example.net\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-PM-Tag: payroll\r\n"
    b"X-PM-Metadata-franker-id: 01abc\r\n\r\nHello\r\n"
)


class Site:
    """A far end with its HTTP server, and a client for it."""

    def __init__(self, far_end: FarEnd, web: SandboxWeb, client: aiohttp.ClientSession) -> None:
        self.far_end = far_end
        self.web = web
        self.client = client

    async def take(
        self, *recipients: str, content: bytes = CONTENT, host: str = "127.0.0.1"
    ) -> None:
        async with await Dialog.open(host, self.far_end.ports[0]) as dialog:
            await dialog.start_tls(self.far_end.ca_file, host)
            await dialog.log_in(self.far_end.token)
            answer = await dialog.deliver("app@example.com", list(recipients), content)
            assert answer[:3] == "250"

    async def get(self, path: str, token: str | None = None, **query: str) -> tuple[int, Any]:
        headers = {"X-Postmark-Server-Token": self.far_end.token if token is None else token}
        async with self.client.get(self.web.url + path, params=query, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def send(self, verb: str, path: str, value: object) -> tuple[int, Any]:
        headers = {"X-Postmark-Server-Token": self.far_end.token}
        url = self.web.url + path
        async with self.client.request(verb, url, json=value, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with (
        FarEnd(Account(verified=("example.com",))) as far_end,
        SandboxWeb(far_end) as web,
        aiohttp.ClientSession() as client,
    ):
        yield Site(far_end, web, client)


ALL = {"count": "500", "offset": "0"}


async def test_a_message_is_found_by_its_metadata(site: Site) -> None:
    await site.take("you@example.net", "cc@example.net", "hidden@example.net")
    status, found = await site.get("/messages/outbound", **ALL, **{"metadata_franker-id": "01abc"})
    assert status == 200
    assert found["TotalCount"] == 1
    (message,) = found["Messages"]
    assert message["Recipients"] == ["you@example.net", "cc@example.net", "hidden@example.net"]
    assert message["To"] == [{"Email": "you@example.net", "Name": "You"}]
    assert message["Bcc"] == [{"Email": "hidden@example.net", "Name": None}]
    assert message["Metadata"] == {"franker-id": "01abc"}
    assert (message["Subject"], message["Tag"]) == ("Grüße", "payroll")
    assert message["MessageID"] == site.far_end.messages[0].id


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"metadata_franker-id": "other"}, 0),
        ({"recipient": "YOU@example.net"}, 1),
        ({"recipient": "stranger@example.net"}, 0),
        ({"tag": "payroll"}, 1),
        ({"tag": "x"}, 0),
        ({"fromemail": "app@example.com", "subject": "grüße"}, 1),
        ({"messagestream": "broadcasts"}, 0),
    ],
)
async def test_a_search_narrows_by_each_of_its_words(
    site: Site, query: dict[str, str], count: int
) -> None:
    await site.take("you@example.net")
    assert (await site.get("/messages/outbound", **ALL, **query))[1]["TotalCount"] == count


async def test_pages_of_a_search_are_newest_first(site: Site) -> None:
    for number in range(3):
        await site.take("you@example.net", content=CONTENT.replace(b"payroll", b"t%d" % number))
    _, found = await site.get("/messages/outbound", count="2", offset="1")
    assert found["TotalCount"] == 3
    assert [one["Tag"] for one in found["Messages"]] == ["t1", "t0"]


@pytest.mark.parametrize(
    "query", [{}, {"count": "501", "offset": "0"}, {"count": "500", "offset": "9501"}]
)
async def test_a_search_without_a_proper_window_is_refused(
    site: Site, query: dict[str, str]
) -> None:
    assert (await site.get("/messages/outbound", **query))[0] == 422


@pytest.mark.parametrize("token", ["", "wrong"])
@pytest.mark.parametrize("path", ["/messages/outbound", "/bounces", "/server"])
async def test_the_api_wants_the_server_token(site: Site, path: str, token: str) -> None:
    status, answer = await site.get(path, token=token, **ALL)
    assert (status, answer["ErrorCode"]) == (401, 10)


async def test_a_message_is_found_only_after_it_is_indexed() -> None:
    now = 0.0
    async with (
        FarEnd() as far_end,
        SandboxWeb(far_end, indexing_delay=60, clock=lambda: now) as web,
        aiohttp.ClientSession() as client,
    ):
        site = Site(far_end, web, client)
        await site.take("you@example.net")
        now = far_end.messages[0].at + 59
        assert (await site.get("/messages/outbound", **ALL))[1]["TotalCount"] == 0
        now += 1
        assert (await site.get("/messages/outbound", **ALL))[1]["TotalCount"] == 1


async def test_details_and_dump_show_a_message(site: Site) -> None:
    await site.take("you@example.net")
    name = site.far_end.messages[0].id
    _, details = await site.get(f"/messages/outbound/{name}/details")
    assert details["MessageEvents"][0]["Recipient"] == "you@example.net"
    assert (await site.get(f"/messages/outbound/{name}/dump"))[1]["Body"] == CONTENT.decode()
    status, answer = await site.get("/messages/outbound/none/details")
    assert (status, answer["ErrorCode"]) == (422, 701)


async def test_a_refused_message_is_a_bounce_and_no_message(site: Site) -> None:
    await site.take("you@example.net", content=CONTENT.replace(b"app@example.com", b"a@b.org"))
    assert (await site.get("/messages/outbound", **ALL))[1]["TotalCount"] == 0
    _, found = await site.get("/bounces", **ALL, type="SMTPApiError")
    (bounce,) = found["Bounces"]
    assert (bounce["Type"], bounce["TypeCode"]) == ("SMTPApiError", 100007)
    assert bounce["MessageID"] == site.far_end.messages[0].id
    assert "not a Sender Signature" in bounce["Details"]
    _, dump = await site.get(f"/bounces/{bounce['ID']}/dump")
    assert dump["Body"].startswith("Error code 400: ")
    assert "X-PM-Metadata-franker-id: 01abc" in dump["Body"]


async def test_bounces_of_another_stream_have_to_be_asked_for(site: Site) -> None:
    content = b"X-PM-Message-Stream: nowhere\r\n" + CONTENT
    await site.take("you@example.net", content=content)
    assert (await site.get("/bounces", **ALL))[1]["TotalCount"] == 0
    assert (await site.get("/bounces", **ALL, messagestream="nowhere"))[1]["TotalCount"] == 1


async def test_bounces_are_limited_to_dates_in_eastern_time(site: Site) -> None:
    await site.take("x@bounce-testing.postmarkapp.com")
    at = site.far_end.messages[0].at
    assert at > 0
    past = {"todate": "2020-01-01T00:00:00"}
    since = {"fromdate": "2020-01-01T00:00:00"}
    assert (await site.get("/bounces", **ALL, **past))[1]["TotalCount"] == 0
    assert (await site.get("/bounces", **ALL, **since))[1]["TotalCount"] == 1
    assert (await site.get("/bounces", **ALL, fromdate="yesterday"))[1]["ErrorCode"] == 1000


async def test_a_hard_bounce_can_be_activated_once(site: Site) -> None:
    address = "x@bounce-testing.postmarkapp.com"
    await site.take(address)
    _, found = await site.get("/bounces", **ALL)
    number = found["Bounces"][0]["ID"]
    assert found["Bounces"][0]["Inactive"]
    assert (await site.send("PUT", f"/bounces/{number}/activate", {}))[0] == 200
    assert (await site.send("PUT", f"/bounces/{number}/activate", {}))[1]["ErrorCode"] == 1003


async def test_suppressions_are_listed_made_and_deleted(site: Site) -> None:
    path = "/message-streams/outbound/suppressions"
    wanted = {"Suppressions": [{"EmailAddress": "You@example.net"}]}
    assert (await site.send("POST", path, wanted))[0] == 200
    _, dump = await site.get(path + "/dump")
    assert [one["EmailAddress"] for one in dump["Suppressions"]] == ["you@example.net"]
    await site.take("you@example.net")
    assert (await site.get("/bounces", **ALL))[1]["TotalCount"] == 1
    await site.send("POST", path + "/delete", wanted)
    assert (await site.get(path + "/dump"))[1]["Suppressions"] == []


@pytest.mark.parametrize("value", [[], {}, {"Suppressions": ["x"]}])
async def test_a_suppression_in_a_wrong_form_is_refused(site: Site, value: object) -> None:
    status, _ = await site.send("POST", "/message-streams/outbound/suppressions", value)
    assert status == 422


async def test_the_server_tells_its_streams(site: Site) -> None:
    assert (await site.get("/server"))[1]["SmtpApiActivated"] is True
    _, answer = await site.get("/message-streams")
    kinds = {one["ID"]: one["MessageStreamType"] for one in answer["MessageStreams"]}
    assert (kinds["outbound"], kinds["broadcast"]) == ("Transactional", "Broadcasts")


# -- its own pages


async def test_the_page_shows_what_came_and_runs_nothing_of_it(site: Site) -> None:
    content = CONTENT.replace(b"X-PM-Tag: payroll", b"X-PM-Tag: <script>alert(1)</script>")
    await site.take("you@example.net", content=content)
    async with site.client.get(site.web.url + "/") as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert "Grüße" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in policy


async def test_messages_are_shown_as_json_and_raw(site: Site) -> None:
    await site.take("you@example.net")
    await site.take("two@example.net")
    _, answer = await site.get("/sandbox/messages", after="1")
    assert answer["count"] == 2
    (message,) = answer["messages"]
    assert message["recipients"] == ["two@example.net"]
    assert message["outcome"] == "delivered"
    async with site.client.get(f"{site.web.url}/sandbox/messages/{message['id']}/content") as raw:
        assert await raw.read() == CONTENT
        assert raw.headers["Content-Type"] == "text/plain"
    async with site.client.delete(site.web.url + "/sandbox/messages") as answer:
        assert answer.status == 200
    assert site.far_end.messages == []


async def test_a_failure_can_be_ordered_and_taken_back(site: Site) -> None:
    fault = {"at": "mail", "reply": "451 4.3.0 ordered", "times": 1}
    status, answer = await site.send("POST", "/sandbox/faults", fault)
    assert status == 200
    _, listed = await site.get("/sandbox/faults")
    assert listed["faults"][0]["reply"] == "451 4.3.0 ordered"
    async with await Dialog.open("127.0.0.1", site.far_end.ports[0]) as dialog:
        await dialog.start_tls(site.far_end.ca_file)
        assert await dialog.say("MAIL FROM:<a@example.com>") == "451 4.3.0 ordered"
    path = f"/sandbox/faults/{answer['number']}"
    assert (await site.send("DELETE", path, None))[1]["faults"] == []
    async with site.client.delete(site.web.url + path) as again:
        assert again.status == 404


@pytest.mark.parametrize("fault", [{"at": "lunch"}, {"what": "x"}, {"at": "mail", "colour": 1}])
async def test_a_failure_without_sense_is_refused_in_words(
    site: Site, fault: dict[str, object]
) -> None:
    status, answer = await site.send("POST", "/sandbox/faults", fault)
    assert status == 422
    assert answer["error"]


async def test_a_form_of_a_web_page_orders_nothing(site: Site) -> None:
    body = json.dumps({"at": "mail", "reply": "451 x"})
    url = site.web.url + "/sandbox/faults"
    async with site.client.post(url, data=body, headers={"Content-Type": "text/plain"}) as answer:
        assert answer.status == 415
    assert site.far_end.faults.listed() == []


async def test_connections_are_counted_and_cut(site: Site) -> None:
    dialog = await Dialog.open("127.0.0.1", site.far_end.ports[0])
    await dialog.start_tls(site.far_end.ca_file)
    _, answer = await site.get("/sandbox/connections")
    assert (answer["now"], answer["most"]) == (1, {"127.0.0.1": 1})
    assert (await site.send("DELETE", "/sandbox/connections", None))[1] == {"cut": 1}
    await dialog.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9589", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("evil.example:9589", 403),
    ],
)
async def test_only_requests_for_this_machine_are_answered(
    site: Site, host: str, status: int
) -> None:
    async with site.client.get(site.web.url + "/", headers={"Host": host}) as answer:
        assert answer.status == status


async def test_http_too_refuses_to_be_reachable_from_elsewhere(site: Site) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        SandboxWeb(site.far_end, "0.0.0.0")


def test_the_page_of_the_docs_names_every_moment_and_act_and_orders_what_is_possible() -> None:
    text = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")
    failures = text.partition("## Failures on demand")[2]
    named = set(re.findall(r"`([a-z]+)`", failures))
    assert {*get_args(Moment), *get_args(Act)} <= named
    shown = re.findall(r"-d '(\{.*?\})'", failures)
    assert shown
    for order in shown:
        Fault(**json.loads(order))


def test_the_ports_of_the_docs_are_the_usual_ones() -> None:
    text = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")
    usual = Where(Path("x"))
    assert ", ".join(map(str, usual.ports)) in text
    assert f"http://127.0.0.1:{usual.http_port}/" in text
