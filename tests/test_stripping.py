"""Somebody on the line to Postmark reads, strikes out and adds: he learns nothing by it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.far_end import FarEnd
from worker.replies import ConnectFailure, Phase
from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.opening import connect
from worker.smarthost.sasl import Login
from worker.smarthost.tls import client_context
from worker.smarthost.transaction import Transaction
from worker.verdict import Blame, judge_connect

CONTENT = b"From: app@example.com\r\nSubject: confidential\r\n\r\nthe secret\r\n"
Change = Callable[[bytes], bytes]
_HARMLESS = re.compile(rb"(?:(?:EHLO \S+|STARTTLS|QUIT|HELO \S+|NOOP)\r\n)*")


class Meddler:
    """Stands on the line: passes everything on, as `change` alters what the server says."""

    def __init__(self, port: int, change: Change, *, answers: dict[bytes, bytes]) -> None:
        self._port = port
        self._change = change
        self._answers = answers
        self.from_client = b""
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._back(up_reader, writer))
        with contextlib.suppress(OSError):
            while octets := await reader.read(65536):
                self.from_client += octets
                own = self._answers.get(octets)
                (up_writer if own is None else writer).write(octets if own is None else own)
        # The client has gone; what is on its way to the server still arrives there.
        up_writer.close()
        await asyncio.gather(back, return_exceptions=True)
        writer.close()
        for one in (writer, up_writer):
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65536):
                writer.write(octets if self.encrypted else self._change(octets))
        writer.close()

    @property
    def encrypted(self) -> bool:
        """Whether the client has begun to speak TLS."""
        return b"\x16\x03" in self.from_client

    @property
    def in_clear(self) -> bytes:
        """What the client said before its first TLS record."""
        return self.from_client.partition(b"\x16\x03")[0]


@asynccontextmanager
async def meddled(
    change: Change = bytes, answers: dict[bytes, bytes] | None = None
) -> AsyncIterator[tuple[FarEnd, Meddler, int]]:
    """A far end with somebody on the line to it: the far end, him, and the port to connect to."""
    async with FarEnd() as far_end:
        meddler = Meddler(far_end.ports[0], change, answers=answers or {})
        server = await asyncio.start_server(meddler.serve, "127.0.0.1", 0)
        try:
            yield far_end, meddler, server.sockets[0].getsockname()[1]
        finally:
            server.close()
            async with asyncio.timeout(10):
                await asyncio.gather(*meddler.tasks, return_exceptions=True)


async def connection_to(far_end: FarEnd, port: int) -> Connection:
    return await connect(
        Endpoint("127.0.0.1", port),
        Login(far_end.token, far_end.token, "env TOKEN"),
        tls=client_context(str(far_end.ca_file)),
        auth=("PLAIN", "LOGIN"),
        local_hostname="client.example",
        connect_timeout=5.0,
        command_timeout=5.0,
        final_timeout=5.0,
    )


async def connected_or_refused(far_end: FarEnd, port: int) -> Connection | None:
    """Return a connection, or None when it failed by a fault of the line or the host."""
    failed: Blame | None = None
    try:
        return await connection_to(far_end, port)
    except ConnectFailure as failure:
        failed = judge_connect(failure)
    assert failed in (Blame.HOST, Blame.ENDPOINT)
    return None


async def yes() -> bool:
    return True


def assert_nothing_given_away(far_end: FarEnd, meddler: Meddler) -> None:
    """Nothing in clear but what everybody may know, and no secret anywhere on the line."""
    assert _HARMLESS.fullmatch(meddler.in_clear), meddler.in_clear
    for secret in (far_end.token.encode(), b"confidential", b"bob@example.net", b"AUTH", b"MAIL"):
        assert secret not in meddler.from_client


async def test_who_listens_sees_a_greeting_and_then_tls_alone() -> None:
    async with meddled() as (far_end, meddler, port):
        connection = await connection_to(far_end, port)
        sent = Transaction("app@example.com", ("bob@example.net",), CONTENT, yes)
        replies = await connection.submit(sent)
        assert replies.final is not None
        assert replies.final.positive
        await connection.close()
        assert meddler.in_clear == b"EHLO client.example\r\nSTARTTLS\r\n"
        assert_nothing_given_away(far_end, meddler)
        assert [taken.recipients for taken in far_end.messages] == [("bob@example.net",)]


def struck_out(by: bytes) -> Change:
    return lambda octets: octets.replace(b"250-STARTTLS\r\n", by)


STRIPS: dict[str, tuple[Change, dict[bytes, bytes]]] = {
    "overwritten": (struck_out(b"250-XXXXXXXX\r\n"), {}),
    "left out": (struck_out(b""), {}),
    "misspelt": (struck_out(b"250-STARTTLSX\r\n"), {}),
    "in two words": (struck_out(b"250-START TLS\r\n"), {}),
    "as a parameter": (struck_out(b"250-SIZE STARTTLS\r\n"), {}),
    "AUTH in its place": (struck_out(b"250-AUTH PLAIN LOGIN\r\n"), {}),
    "EHLO refused": (bytes, {b"EHLO client.example\r\n": b"502 5.5.1 no EHLO\r\n"}),
    "offered as the server's name": (
        bytes, {b"EHLO client.example\r\n": b"250-STARTTLS\r\n250 AUTH PLAIN\r\n"},
    ),
    "refused for now": (bytes, {b"STARTTLS\r\n": b"454 4.7.0 TLS not available\r\n"}),
    "refused": (bytes, {b"STARTTLS\r\n": b"502 5.5.1 no\r\n"}),
    "said to be on already": (bytes, {b"STARTTLS\r\n": b"250 2.0.0 TLS is on\r\n"}),
    "taken by him, in clear": (
        bytes, {b"STARTTLS\r\n": b"220 2.0.0 go\r\n250-x\r\n250 AUTH PLAIN\r\n"},
    ),
    "taken by him, login and all": (
        bytes, {b"STARTTLS\r\n": b"220 2.0.0 go\r\n250 x\r\n235 in\r\n250 Ok\r\n354 go\r\n"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "answers"), STRIPS.values(), ids=list(STRIPS))
async def test_without_starttls_nothing_goes_out(
    change: Change, answers: dict[bytes, bytes]
) -> None:
    async with meddled(change, answers) as (far_end, meddler, port):
        with pytest.raises(ConnectFailure) as raised:
            await connection_to(far_end, port)
        assert judge_connect(raised.value) in (Blame.HOST, Blame.ENDPOINT)
        assert_nothing_given_away(far_end, meddler)
        assert far_end.messages == []
        assert far_end.logins == []


async def test_a_server_that_offers_no_starttls_is_the_hosts_fault_so_that_the_route_waits() -> (
    None
):
    async with meddled(struck_out(b"")) as (far_end, _, port):
        with pytest.raises(ConnectFailure) as raised:
            await connection_to(far_end, port)
        assert raised.value.phase is Phase.OFFER
        assert judge_connect(raised.value) is Blame.HOST


GREETING = re.compile(rb"\A(220 [^\r]*\r\n)")
READY = re.compile(rb"(220 2\.0\.0 [^\r]*\r\n)\Z")
INJECTED = {
    "a greeting too many": (GREETING, b"\\g<1>250-evil\r\n250 AUTH PLAIN\r\n"),
    "replies behind 220": (READY, b"\\g<1>250-evil\r\n250-AUTH EVIL\r\n250 SIZE 1\r\n235 in\r\n"),
    "half a reply behind 220": (READY, b"\\g<1>250-evil"),
    "a refusal behind 220": (READY, b"\\g<1>421 4.3.2 bye\r\n"),
    "NUL behind 220": (READY, b"\\g<1>\0\0\0"),
}  # fmt: skip


@pytest.mark.parametrize(("where", "injected"), INJECTED.values(), ids=list(INJECTED))
async def test_what_is_slipped_in_before_tls_is_not_believed_within(
    where: re.Pattern[bytes], injected: bytes
) -> None:
    async with meddled(lambda octets: where.sub(injected, octets)) as (far_end, meddler, port):
        connection = await connected_or_refused(far_end, port)
        if connection is None:
            assert_nothing_given_away(far_end, meddler)
            return
        # It goes on as if nothing had been said: all that counts came over TLS.
        assert connection.offers.pipelining
        replies = await connection.submit(
            Transaction("app@example.com", ("bob@example.net",), CONTENT, yes)
        )
        await connection.close()
        assert replies.final is not None
        assert [taken.recipients for taken in far_end.messages] == [("bob@example.net",)]
        assert len(far_end.logins) == 1
        assert_nothing_given_away(far_end, meddler)
