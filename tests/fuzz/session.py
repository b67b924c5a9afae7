"""The SMTP session: the real one, its client's end and its store in memory."""

import asyncio
import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import Any, ClassVar, cast

from proxy.listener.door import Door, Office
from proxy.listener.intake import Intake
from proxy.listener.limits import Limits
from proxy.listener.session import SmtpSession
from proxy.log import writer
from proxy.mail.envelope import Envelope
from proxy.queue.commit import GroupCommit
from proxy.queue.job import RelayJob
from tests.fuzz.messages import policies
from tests.fuzz.target import Choices, Target
from tests.support.end_of_data import by_lines

SIZE = 5_000
_REPLY = re.compile(rb"(?:[2-5][0-9]{2}-[ -~]*\r\n)*[2-5][0-9]{2} [ -~]*\r\n")
_ID = re.compile(rb"(?<=queued as )[0-9a-z]{26}")


class Wire(asyncio.Transport):
    """The server's end of a connection; what it says is in `said`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 40_000)})
        self._loop = loop
        self.said = b""
        self._closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: Any) -> None:
        assert not self._closed
        self.said += bytes(data)

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            assert self.protocol is not None
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close


class Shelf:
    """Keeps what is committed, at once."""

    def __init__(self) -> None:
        self.jobs: list[RelayJob] = []

    async def commit(self, job: RelayJob) -> None:
        await asyncio.sleep(0)
        self.jobs.append(job)


class Desk(Intake):
    """The real intake, which also tells what it was given, and takes defects as faults."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(policies()[0], cast(GroupCommit, shelf))
        self.contents: list[bytes] = []

    def decide(self, envelope: Envelope, content: bytes, ended_at: float) -> Any:
        self.contents.append(content)
        return super().decide(envelope, content, ended_at)


class Session(SmtpSession):
    """A session whose defects are kept, to be raised."""

    defects: ClassVar[list[Exception]] = []

    def defect(self, error: Exception) -> bytes:
        self.defects.append(error)
        return super().defect(error)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def play(octets: bytes, step: int) -> tuple[bytes, list[RelayJob], list[bytes]]:
    """Return what a client that sends `octets` in pieces of `step` hears, and what was kept."""
    loop = asyncio.get_running_loop()
    shelf = Shelf()
    desk = Desk(shelf)
    office = Office(desk, Limits(message_size=SIZE, recipients=3, memory=10**9), "mx.example")
    door = Door(office, networks=("127.0.0.0/8",), auth=True)
    wire = Wire(loop)
    session = wire.protocol = Session(door, loop)
    session.connection_made(wire)
    await _turns(2)
    for at in range(0, len(octets), step):
        session.data_received(octets[at : at + step])
        await _turns(1)
    if not wire.is_closing():
        session.eof_received()
    while tasks := list(office.tasks):
        done, _ = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert done, "the session does not end"
    if session.defects:
        raise AssertionError("a defect of ours") from session.defects.pop()
    wire.close()
    await _turns(2)
    assert not office.sessions
    assert not len(office.crowd)
    assert office.memory.held == 0
    return wire.said, shelf.jobs, desk.contents


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Let the log of a few million sessions go nowhere."""
    before, writer._STDERR = writer._STDERR, _nowhere()
    try:
        yield
    finally:
        writer._STDERR = before


@functools.cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def check_session(octets: bytes) -> None:
    """Replies only; messages where a plain reading sees them; the same however it is cut."""
    with _silence():
        _check_session(octets)


def _check_session(octets: bytes) -> None:
    choices = Choices(octets)
    step = (1, 2, 3, 7, 50, 1460)[choices.number(6)]
    octets = choices.rest()
    said, jobs, contents = _loop().run_until_complete(play(octets, 10**9))
    found = _REPLY.findall(said)
    assert b"".join(found) == said
    assert all(len(line) <= 512 for line in said.split(b"\n"))
    assert sum(b"queued as" in reply for reply in found) == len(jobs)
    for job in jobs:
        assert job.body.count(b"\n") == job.body.count(b"\r\n") == job.body.count(b"\r")
    read = _read_plainly(octets, found[1:])
    assert contents == [content for content in read if len(content) <= SIZE]
    if len(octets) > 10 * SIZE:
        return  # how much was counted when the early 552 went out depends on the pieces
    again, jobs_again, contents_again = _loop().run_until_complete(play(octets, step))
    assert _ID.sub(b"", again) == _ID.sub(b"", said)
    assert contents_again == contents
    assert [job.envelope.recipients for job in jobs_again] == [
        job.envelope.recipients for job in jobs
    ]


def _read_plainly(octets: bytes, answers: list[bytes]) -> list[bytes]:
    """Return the messages in `octets`, dots undone, with nothing but lines and the replies."""
    crlf, found = False, []
    for answer in (given := iter(answers)):
        line, end, octets = octets.partition(b"\n")
        if not end:
            break
        crlf = crlf or line.endswith(b"\r")
        if not answer.startswith(b"354 "):
            continue
        ended = by_lines(octets, crlf)
        if ended is None:
            break
        content, rest = ended
        crlf = crlf or b"\r\n" in octets[: len(octets) - len(rest)]
        octets = rest
        if len(content) <= SIZE:
            content = _undotted(content, crlf)
        found.append(content)
        next(given, None)
    return found


def _undotted(content: bytes, crlf: bool) -> bytes:
    content = content.removeprefix(b".")
    return content.replace(b"\r\n.", b"\r\n") if crlf else content.replace(b"\n.", b"\n")


BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<you@example.net>\r\nDATA\r\n"
SAYINGS = (
    BEGIN, BEGIN, BEGIN.replace(b"\r\n", b"\n"), b"\r\n.\r\n", b"\n.\n", b"\r\n", b"\n", b"\r",
    b".", b"EHLO x\r\n", b"HELO\r\n", b"MAIL FROM:<>\r\n", b"MAIL FROM:", b"RCPT TO:", b"<root>",
    b"<a@example.com> SIZE=99999", b"<you@\xf0\x9f\x92\xa9.example>", b" NOTIFY=NEVER\r\n",
    b"DATA\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"VRFY \0\r\n", b"STARTTLS\r\n", b"*\r\n",
    b"AUTH PLAIN AHUAcA==\r\n", b"AUTH LOGIN\r\n", b"AUTH LOGIN\n", b"dXNlcg==\r\n", b"\xff",
    b"GET / HTTP/1.1\r\n", b"Subject: x\r\n", b"From: \xff\0\r\n", b"\r\n..\r\n", b"\r\n.\n",
    b"\n.\r\n", b"\r.\r", b"x" * 700, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"XCLIENT ADDR=::1\r\n",
    b"BDAT 5 LAST\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"\xef\xbb\xbf", b"\t", b" ",
)  # fmt: skip

TARGETS = (Target("session", check_session, SAYINGS, 10),)
