"""Whatever octets come in: no defect, no traceback, no reply that is not one, nothing held."""

import asyncio
import random
import re

import pytest

from tests.support.listening import MESSAGE, Front, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

REPLY = re.compile(rb"[2-5][0-9]{2}[ -][ -~]*\r\n")

BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<you@example.net>\r\nDATA"

PIECES = [
    BEGIN,
    BEGIN,
    BEGIN,
    BEGIN.replace(b"\r\n", b"\n"),
    b"\r\n.",
    b"\r\n.",
    b"EHLO x",
    b"HELO",
    b"MAIL FROM:<a@example.com>",
    b"MAIL FROM:<>",
    b"MAIL FROM:<\xff\xfe@example.com>",
    b"MAIL FROM:<a@b\xc3\xbccher.example> SMTPUTF8",
    b"MAIL FROM:<a@example.com> SIZE=99999999999999999999",
    b"MAIL FROM:<a@example.com> SIZE=5 BODY=8BITMIME AUTH=<> X=\x00",
    b"RCPT TO:<you@example.net>",
    b"RCPT TO:<you@\xf0\x9f\x92\xa9.example>",
    b"RCPT TO:<root>",
    b'RCPT TO:<"\\">@x"@example.net> NOTIFY=NEVER',
    b"RCPT TO:<@a:@b:you@example.net>",
    b"DATA",
    b"AUTH PLAIN AHUAcA==",
    b"AUTH LOGIN",
    b"AUTH PLAIN",
    b"AUTH LOGIN \xff",
    b"*",
    b"STARTTLS",
    b"RSET",
    b"VRFY \x00",
    b"HELP ME",
    b"NOOP " + b"x" * 20_000,
    b"",
    b".",
    b"..",
    b"Subject: x",
    b"From: \xff\x00",
    b"Content-Type: multipart/mixed; boundary=\x00\r",
    b"--",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n.\r\n", b"\n.\n"]


async def talk(office: Front, chance: random.Random, tidy: bool) -> None:
    """Send a random session in random pieces, and check every line of what comes back."""
    octets = b""
    for _ in range(chance.randrange(1, 40)):
        octets += chance.choice(PIECES) + (b"\r\n" if tidy else chance.choice(ENDS))
        if not tidy and chance.random() < 0.1:
            octets += chance.randbytes(chance.randrange(200))
    dialog = await office.dial(greeted=False)
    try:
        for at in range(0, len(octets), step := chance.choice([1500, 7, 100_000])):
            dialog.send(octets[at : at + step])
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        if chance.random() < 0.2:
            dialog.reset()
            return
        dialog.writer.write_eof()
        while line := await dialog.reader.readline():
            assert REPLY.fullmatch(line), line
            assert len(line) <= 512
    except ConnectionError:
        pass
    finally:
        await dialog.close()


@pytest.mark.parametrize("tidy", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_random_sessions_are_answered_and_leave_nothing(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str], seed: int, tidy: bool
) -> None:
    chance = random.Random(seed)
    smtp = [{"address": "127.0.0.1:0", "auth": "accept"}]
    limits = {"timeout": 20.0}
    async with front(
        redis_server, listen={"smtp": smtp, "max_message_size": 30_000}, limits=limits
    ) as office:
        for _ in range(20):
            await asyncio.gather(*(talk(office, chance, tidy) for _ in range(5)))
        await wait_until(lambda: office.listener.sessions == 0, what="all sessions are over")
        await wait_until(lambda: office.listener.held == 0, what="nothing is held")
        assert len(office.kept()) > 10
        assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")
        for kept in office.kept():
            assert kept.body.count(b"\n") == kept.body.count(b"\r\n")
            assert b"\0" not in kept.body
    shown = capfd.readouterr().err
    assert "defect" not in shown, shown[shown.index("defect") :][:3000]
    assert "traceback" not in shown.lower()
