"""No octets within one message become another one: coming in, going out, and in between."""

import re
from collections.abc import Iterator

import pytest

from tests.support.listening import MESSAGE, Dialog, Front, Kept, front
from tests.support.redis_server import RedisServer
from tests.support.scripted_peer import ENVELOPE_OK, OK_FINAL, Peer, Session
from tests.support.waiting import wait_until
from worker.smarthost.transaction import Transaction

# Whatever some server somewhere has taken for the end of data, but for the real one.
ENDS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "LF.CR": b"\n.\r",
    "CR.LF": b"\r.\n",
    "CRCRLF.CRCRLF": b"\r\r\n.\r\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "LFCR.LFCR": b"\n\r.\n\r",
    "NUL before the dot": b"\r\n\0.\r\n",
    "NUL after the dot": b"\r\n.\0\r\n",
    "NUL within CRLF": b"\r\0\n.\r\0\n",
    "space after the dot": b"\r\n. \r\n",
    "vertical tab": b"\x0b.\x0b",
    "next line": b"\x85.\x85",
    "line separator": "\u2028.\u2028".encode(),
}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
SECOND = (
    b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n"
    b"From: boss@example.com\r\nSubject: smuggled\r\n\r\npay him"
)
_LAX_END = re.compile(rb"(?:\r\n|\r|\n)[\0 ]*\.[\0 ]*(?:\r\n|\r|\n)")


def cuts(end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The hostile message as two segments, cut at every place around its false end."""
    octets = MESSAGE + b"text" + end + SECOND
    for at in range(len(MESSAGE) + 3, len(MESSAGE) + 5 + len(end)):
        yield octets[:at], octets[at:]


async def send_cut(office: Front, dialog: Dialog, first: bytes, second: bytes) -> str:
    """Send one message in two segments, the second once the first has been taken in."""
    await dialog.begin()
    dialog.send(first)
    await wait_until(lambda: office.listener.held >= len(first), what="the first segment is here")
    dialog.send(second + b"\r\n.\r\nNOOP\r\n")
    answer = await dialog.reply()
    assert await dialog.reply() == "250 2.0.0 Ok"
    await dialog.close()
    return answer


async def relayed(kept: Kept) -> bytes:
    """Return what the far end gets of a message in the queue, between 354 and its reply."""
    taken: list[bytes] = []

    async def script(session: Session) -> None:
        await session.shake_hands()
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        taken.append(await session.reader.readuntil(b"pay him\r\n.\r\n"))
        await session.say(OK_FINAL)
        assert await session.until_end() in (b"", b"QUIT\r\n")

    async def yes() -> bool:
        return True

    async with Peer(script) as peer:
        connection = await peer.connect()
        recipients = tuple(kept.envelope["to"])
        replies = await connection.submit(Transaction("a@example.com", recipients, kept.body, yes))
        assert replies.final is not None
        assert replies.final.positive
        await connection.close()
    return taken[0]


@every_end
async def test_a_false_end_is_content_wherever_the_segments_are_cut_and_for_every_reader_after_us(
    redis_server: RedisServer, end: bytes
) -> None:
    async with front(redis_server) as office:
        pairs = list(cuts(end))
        for first, second in pairs:
            answer = await send_cut(office, await office.dial(), first, second)
            assert answer.startswith("250 2.0.0 Ok: queued as ")
        messages = office.kept()
        assert len(messages) == len(pairs), "one message is one message"
        assert {tuple(kept.envelope["to"]) for kept in messages} == {("you@example.net",)}
        assert len({kept.body.partition(b"\r\n\r\n")[2] for kept in messages}) == 1
        octets = await relayed(messages[0])
    # Only our own end, even for one who takes everything above for an end.
    assert [found.start() for found in _LAX_END.finditer(octets)] == [len(octets) - 5]
    assert b"MAIL FROM:<evil@example.org>" in octets


LF_ONLY_ENDS = {name: end for name, end in ENDS.items() if end != b"\n.\n"}


@pytest.mark.parametrize("end", LF_ONLY_ENDS.values(), ids=list(LF_ONLY_ENDS))
async def test_a_program_that_knows_only_lf_ends_its_data_with_lf_dot_lf_alone(
    redis_server: RedisServer, end: bytes
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        dialog.send(b"MAIL FROM:<app@example.com>\nRCPT TO:<you@example.net>\nDATA\n")
        assert [(await dialog.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        dialog.send(MESSAGE.replace(b"\r\n", b"\n") + b"text" + end + SECOND.replace(b"\r", b""))
        # Where the false end held a CRLF the session knows CRLF from there on, and LF ends nothing.
        dialog.send(b"\r\n.\r\n" if b"\r\n" in end else b"\n.\n")
        assert (await dialog.reply()).startswith("250 2.0.0 Ok: queued as ")
        (kept,) = office.kept()
        assert kept.envelope["to"] == ["you@example.net"]
        assert b"pay him" in kept.body


@pytest.mark.parametrize(
    "envelope",
    [
        "MAIL FROM:<app@example.com>\r\nRCPT TO:<no@such@address>\r\nDATA\r\n",
        "MAIL FROM:<app@@example.com>\r\nRCPT TO:<you@example.net>\r\nDATA\r\n",
        "RCPT TO:<you@example.net>\r\nDATA\r\n",
        "MAIL FROM:<app@example.com> SIZE=99999999999\r\nRCPT TO:<you@example.net>\r\nDATA\r\n",
    ],
    ids=["recipient refused", "sender refused", "no sender", "too large"],
)
@pytest.mark.parametrize("first_line", ["Subject: x", "", "Dear Sir,"])
async def test_what_a_program_sends_after_a_refused_data_is_not_obeyed(
    redis_server: RedisServer, envelope: str, first_line: str
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        dialog.send(envelope + f"{first_line}\r\n\r\n")
        dialog.send(SECOND + b"\r\n.\r\nQUIT\r\n")
        replies = []
        while answer := await dialog.reply():
            replies.append(answer)
        assert replies[-1].startswith("554 5.5.1 DATA was refused: what follows it is no command")
        assert not any("queued" in answer for answer in replies)
        assert office.kept() == []


async def test_after_a_refused_data_a_program_that_reads_replies_goes_on(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        assert (await dialog.say("DATA")).startswith("503 5.5.1 ")
        assert (await dialog.say("NOOP")).startswith("250 ")
        assert (await dialog.say("XFOO")).startswith("500 5.5.1 ")
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a@example.com>\rRCPT TO:<you@example.net>",
        b"MAIL FROM:<a@example.com>\0RCPT TO:<you@example.net>",
        b"MAIL FROM:<a@example.com\rRCPT TO:<you@example.net>",
        b"NOOP\rMAIL FROM:<a@example.com>",
        b"RSET\x85MAIL FROM:<a@example.com>",
        b"NOOP \x0bMAIL FROM:<a@example.com>",
    ],
)
async def test_one_line_is_at_most_one_command(redis_server: RedisServer, line: bytes) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.say(line)
        # It cannot have been both a sender and a recipient, so there is nothing to say DATA to.
        assert (await dialog.say("DATA"))[:3] in ("503", "554")
        assert await dialog.say("NOOP") == "250 2.0.0 Ok"


async def test_auth_lines_count_for_how_a_session_ends_its_lines(
    redis_server: RedisServer,
) -> None:
    smtp = [{"address": "127.0.0.1:0", "auth": "accept"}]
    async with front(redis_server, listen={"smtp": smtp}) as office:
        dialog = await office.dial()
        dialog.send(b"AUTH LOGIN\ndXNlcg==\r\ndXNlcg==\n")
        assert [(await dialog.reply())[:3] for _ in range(3)] == ["334", "334", "235"]
        dialog.send(b"MAIL FROM:<app@example.com>\nRCPT TO:<you@example.net>\nDATA\n")
        assert [(await dialog.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        dialog.send(MESSAGE + b"\n.\n" + SECOND + b"\r\n.\r\n")
        assert (await dialog.reply()).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert b"pay him" in kept.body
