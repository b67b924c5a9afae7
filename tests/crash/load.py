"""The clients of one round: mail at a steady rate, and what they were told about each message.

Each message is handed in once only, so that what comes twice was not brought twice.
"""

import asyncio
import base64
import contextlib
import random
import time
import zlib
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

from tests.crash.far_end import DEAD

SENDERS = ("load@shop.example", "news@shop.example", "void@shop.example")
"""Relayed, relayed as a broadcast, discarded by a rule."""

_REPLY_S = 60.0
_GO_ON_S = 20.0
"""After the last message is due, clients that were held up have so long to catch up."""

Fate = Literal["not begun", "cut", "unsure", "refused", "kept"]
"""What a client knows: "cut": the connection ended before the last octet of the message left it,
so nobody has it; "unsure": after it, and no reply came."""


@dataclass(slots=True)
class Message:
    """One message and what became of it as its client saw it; `checksum` is of its body."""

    number: int
    sender: str
    recipients: tuple[str, ...]
    checksum: int
    content: bytes
    fate: Fate = "not begun"
    id: str = ""
    reply: str = ""
    told_at: float = 0.0


def make_message(seed: str, number: int) -> Message:
    """Return message `number` of the round `seed`: its shape depends on nothing else."""
    chance = random.Random(f"{seed}/{number}")
    least, most = chance.choices(((1, 1), (2, 5), (6, 50), (51, 120)), (75, 20, 4, 1))[0]
    recipients = tuple(
        f"{DEAD if chance.random() < 0.01 else ''}m{number}r{place}@example.net"
        for place in range(chance.randint(least, most))
    )
    sender = chance.choices(SENDERS, (85, 12, 3))[0]
    least, most = chance.choices(((200, 3000), (3000, 30_000), (100_000, 400_000)), (80, 19, 1))[0]
    octets = base64.encodebytes(chance.randbytes(chance.randint(least, most)))
    body = octets.replace(b"\n", b"\r\n") + b".\r\n..\r\n.end\r\n"
    head = (
        f"From: {sender}\r\nTo: {recipients[0]}\r\nSubject: message {number}\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        f"Message-ID: <{number}.{chance.random()}@shop.example>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    )
    content = (head.encode() + body).replace(b"\r\n.", b"\r\n..") + b".\r\n"
    return Message(number, sender, recipients, zlib.crc32(body), content)


class Load:
    """`rate` messages a second for `seconds`, by many sessions; what is late is made up for."""

    def __init__(self, seed: str, port: int, *, rate: float, seconds: float, sessions: int = 30):
        self.messages: list[Message] = []
        self.seconds = 0.0
        self._seed = seed
        self._port = port
        self._rate = rate
        self._count = int(rate * seconds)
        self._sessions = sessions
        self._began = 0.0

    async def run(self) -> None:
        """Hand everything in, as far as it can be."""
        self._began = time.monotonic()
        deadline = self._began + self._count / self._rate + _GO_ON_S
        sessions = [asyncio.create_task(self._client(deadline)) for _ in range(self._sessions)]
        await asyncio.gather(*sessions)
        self.seconds = time.monotonic() - self._began

    async def _client(self, deadline: float) -> None:
        while len(self.messages) < self._count and time.monotonic() < deadline:
            with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
                await self._session(deadline)
            await asyncio.sleep(0.05)

    async def _session(self, deadline: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        session = _Session(reader, writer)
        try:
            await session.reply()
            await session.say("EHLO load.example")
            while len(self.messages) < self._count and time.monotonic() < deadline:
                message = make_message(self._seed, len(self.messages))
                self.messages.append(message)
                due = self._began + message.number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await session.hand_in(message)
        finally:
            writer.close()


class _Session:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hand_in(self, message: Message) -> None:
        """Hand in one message and note in it what was said."""
        message.fate = "cut"
        commands = [f"MAIL FROM:<{message.sender}>"]
        commands += [f"RCPT TO:<{one}>" for one in message.recipients] + ["DATA"]
        self._writer.write("".join(f"{one}\r\n" for one in commands).encode())
        refused = ""
        for command in commands:
            reply = await self.reply()
            if reply[0] in "45":
                refused = refused or f"{command[:4]}: {reply}"
        if not refused:
            self._writer.write(message.content[:-3])
            await self._writer.drain()
            message.fate = "unsure"
            self._writer.write(message.content[-3:])
        elif reply.startswith("354"):
            raise ValueError("some recipients refused: this session ends here, before the dot")
        message.reply = refused or await self.reply()
        message.told_at = time.time()
        if message.reply.startswith("250 "):
            message.fate, message.id = "kept", message.reply.rpartition(" ")[2]
        else:
            message.fate = "refused"
            if refused:
                await self.say("RSET")

    async def say(self, command: str) -> str:
        self._writer.write(command.encode() + b"\r\n")
        return await self.reply()

    async def reply(self) -> str:
        async with asyncio.timeout(_REPLY_S):
            while True:
                line = await self._reader.readuntil(b"\r\n")
                if line[3:4] != b"-":
                    return line[:-2].decode("utf-8", "replace")
