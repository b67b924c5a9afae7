"""Strangers get nothing relayed, by no trick; a client that may send speaks for itself alone."""

import asyncio
import ipaddress
import socket

import pytest

from proxy.config.model import Settings
from proxy.submission import resolve_recipient
from tests.support.listening import MESSAGE, Dialog, Front, front
from tests.support.mail import LOCAL, policy
from tests.support.redis_server import RedisServer

NOT_ALLOWED = "554 5.7.1 This client may not send mail here (listen.allow)"
MAIL = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<you@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\n"
PROBES = {
    "plain": b"EHLO x\r\n" + MAIL,
    "blind": MAIL,
    "null sender": MAIL.replace(b"a@example.com", b""),
    "PROXY 1": b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\nEHLO x\r\n" + MAIL,
    "PROXY 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\x9c\x40\0\x19" + MAIL,
    "XCLIENT": b"EHLO x\r\nXCLIENT ADDR=127.0.0.1 NAME=localhost\r\n" + MAIL,
    "XFORWARD": b"EHLO x\r\nXFORWARD ADDR=127.0.0.1\r\n" + MAIL,
    "AUTH": b"EHLO x\r\nAUTH PLAIN AHVzZXIAcGFzc3dvcmQ=\r\n" + MAIL,
    "STARTTLS": b"EHLO x\r\nSTARTTLS\r\n" + MAIL,
    "HTTP": b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + MAIL,
    "LF only": MAIL.replace(b"\r\n", b"\n"),
    "HELO localhost": b"HELO localhost\r\n" + MAIL,
    "ETRN": b"EHLO x\r\nETRN example.com\r\n" + MAIL,
}
every_probe = pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))


async def from_address(office: Front, source: str) -> Dialog:
    """Connect from another address of loopback than the server expects."""
    streams = await asyncio.open_connection(
        "127.0.0.1", office.ports[0], local_addr=(source, 0), family=socket.AF_INET
    )
    dialog = Dialog(*streams)
    office.dialogs.append(dialog)
    return dialog


@every_probe
async def test_a_stranger_hears_554_and_is_served_nothing(
    redis_server: RedisServer, probe: bytes
) -> None:
    smtp = [{"address": "127.0.0.1:0", "auth": "accept", "allow": ["127.0.0.1"]}]
    async with front(redis_server, listen={"smtp": smtp}) as office:
        dialog = await from_address(office, "127.0.0.2")
        dialog.send(probe)
        assert await dialog.reply() == NOT_ALLOWED
        assert await dialog.ended()
        assert office.kept() == []
        # The same octets, or most of them, are mail where they come from somebody allowed.
        assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")


@pytest.mark.parametrize("name", ["PROXY 1", "PROXY 2", "XCLIENT", "XFORWARD", "ETRN", "STARTTLS"])
async def test_a_client_cannot_say_that_it_is_another(redis_server: RedisServer, name: str) -> None:
    rules = [{"name": "trusted", "client": ["127.0.0.1"], "tag": "trusted"}]
    listen = {"allow": ["127.0.0.0/8"]}
    async with front(redis_server, listen=listen, rules=rules) as office:
        dialog = await from_address(office, "127.0.0.2")
        dialog.send(PROBES[name] + b"QUIT\r\n")
        answers = []
        while answer := await dialog.reply():
            answers.append(answer)
        assert any(answer.startswith(("500 ", "502 ")) for answer in answers)
        for kept in office.kept():
            assert kept.envelope["by"] == "127.0.0.2"
            assert b"X-PM-Tag" not in kept.body


def test_by_default_only_this_host_is_listened_to_and_let_in() -> None:
    listen = Settings().listen
    for one in listen.smtp:
        host = one.address.rpartition(":")[0].strip("[]")
        assert ipaddress.ip_address(host).is_loopback
    for network in listen.allow:
        assert ipaddress.ip_network(network).network_address.is_loopback
    assert ipaddress.ip_address(listen.http.rpartition(":")[0]).is_loopback


@pytest.mark.parametrize(
    "address",
    [
        "victim%evil.example@localhost",
        '"victim@evil.example"@localhost',
        "evil.example!victim@localhost",
        "victim@evil.example@localhost",
        '"victim@evil.example@"@localhost',
        "victim%evil.example@box.office.example",
        '"@evil.example:victim"@localhost',
        "victim%evil.example",
        "evil.example!victim",
        '"victim@evil.example"',
    ],
)
def test_a_name_of_this_host_leads_nowhere_but_where_the_configuration_says(address: str) -> None:
    found = resolve_recipient(policy(local=LOCAL), address)
    assert not isinstance(found, tuple) or found == ("ops@example.com",), found


async def test_a_source_route_is_dropped_and_leads_over_nobody(redis_server: RedisServer) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        recipients = ("@evil.example,@other.example:you@example.net",)
        assert (await dialog.mail(MESSAGE, recipients=recipients)).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["to"] == ["you@example.net"]
