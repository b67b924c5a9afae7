"""Many sessions that hand in mail and remember what they were told 250 for."""

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Load:
    """Mail to `prefix`N@example.net, one message each, until `stop` or `count` messages.

    `accepted` are the recipients whose message was answered 250; each is handed in once only: what
    was not answered, or refused for now, is not repeated, so that it can be told from a duplicate.
    `rate` bounds the messages a second, of all sessions together; 0 does not. `moments` are, for
    each recipient in `accepted`, when the message began to be handed in and when it was answered.
    """

    port: int
    prefix: str = "r"
    sessions: int = 10
    count: int = 1_000_000
    size: int = 1000
    rate: float = 0.0
    sender: str = "load@shop.example"
    accepted: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    _next: int = 0
    _stopping: bool = False
    _began: float = 0.0

    def stop(self) -> None:
        """End after the messages in hand."""
        self._stopping = True

    async def run(self) -> None:
        """Hand in mail; return when all is answered."""
        self._began = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._sessions() for _ in range(self.sessions)))

    def out_of_order(self, recipients: Sequence[str]) -> list[tuple[str, str]]:
        """Return who stands in `recipients` before somebody accepted before he was handed in.

        Between messages that were under way at the same time there is no order.
        """
        wrong: list[tuple[str, str]] = []
        first, answered = "", math.inf  # of all that stand behind
        for recipient in reversed(recipients):
            began, ended = self.moments[recipient]
            if answered < began:
                wrong.append((recipient, first))
            if ended < answered:
                first, answered = recipient, ended
        return wrong

    def _take(self) -> str | None:
        if self._stopping or self._next >= self.count:
            return None
        self._next += 1
        return f"{self.prefix}{self._next}@example.net"

    async def _sessions(self) -> None:
        while not self._stopping and self._next < self.count:
            with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
                await self._session()
            await asyncio.sleep(0.02)  # a listener that is gone is not asked in a tight loop

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await _reply(reader)
            await _say(reader, writer, "EHLO load.example")
            while (recipient := self._take()) is not None:
                if self.rate:
                    due = self._began + self._next / self.rate
                    await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                self.unanswered.append(recipient)
                began = time.monotonic()
                code = await self._hand_in(reader, writer, recipient)
                self.moments[recipient] = began, time.monotonic()
                self.unanswered.remove(recipient)
                (self.accepted if code == 250 else self.refused).append(recipient)
        finally:
            writer.close()

    async def _hand_in(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recipient: str
    ) -> int:
        for command in (f"MAIL FROM:<{self.sender}>", f"RCPT TO:<{recipient}>", "DATA"):
            code = await _say(reader, writer, command)
            if code >= 400:
                await _say(reader, writer, "RSET")
                return code
        head = f"From: {self.sender}\r\nTo: {recipient}\r\nSubject: load\r\n\r\n"
        line = "x" * 70 + "\r\n"
        writer.write((head + line * (self.size // len(line) + 1) + ".\r\n").encode())
        return await _reply(reader)


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str) -> int:
    writer.write(command.encode() + b"\r\n")
    await writer.drain()
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> int:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] != b"-":
            return int(line[:3])
