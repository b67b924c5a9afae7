"""A real listener in front of a real Redis, and a raw SMTP client to talk to it."""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy.config.model import Settings
from proxy.listener import Intake, Limits, Listener
from proxy.listener.sockets import Bound, open_sockets
from proxy.queue.commit import Demands, GroupCommit
from proxy.queue.connection import open_redis
from proxy.submission import compile_policy
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

HOST = "mailhost.example.com"


def settings_for(data_dir: Path, **tables: Any) -> Settings:
    """Return settings with a listener on a free port of 127.0.0.1, and `tables` over it."""
    listen = {"smtp": ["127.0.0.1:0"], "http": "127.0.0.1:0"} | tables.pop("listen", {})
    return Settings.model_validate({"data_dir": str(data_dir), "listen": listen, **tables})


@dataclass
class Kept:
    """One message as it lies in the queue."""

    id: str
    envelope: dict[str, Any]
    body: bytes


class Front:
    """A listener that listens, and what lies behind it."""

    def __init__(self, listener: Listener, server: RedisServer, commit: GroupCommit) -> None:
        self.listener = listener
        self.server = server
        self.commit = commit
        self.said: list[str] = []
        self.dialogs: list[Dialog] = []

    @property
    def ports(self) -> list[int]:
        return [int(name.rpartition(":")[2]) for name in self.listener.names]

    async def dial(self, at: int = 0, *, greeted: bool = True) -> "Dialog":
        """Connect; with `greeted` the server's 220 is read."""
        name = self.listener.names[at]
        if name.startswith("unix:"):
            streams = await asyncio.open_unix_connection(name.removeprefix("unix:"))
        else:
            host, _, port = name.rpartition(":")
            streams = await asyncio.open_connection(host.strip("[]"), int(port))
        dialog = Dialog(*streams)
        self.dialogs.append(dialog)
        if greeted:
            assert (await dialog.reply()).startswith("220 ")
        return dialog

    def kept(self, stream: str = "outbound") -> list[Kept]:
        """Return the queue's messages, oldest first."""
        client = self.server.client()
        found = []
        for raw in client.lrange(f"rq:queue:franker-{stream}", 0, -1):
            job = client.hgetall(b"rq:job:" + raw)
            found.append(Kept(raw.decode(), json.loads(job[b"envelope"]), job[b"body"]))
        return found

    async def one_kept(self) -> Kept:
        """Return the only message in the queue, as soon as there is one."""
        await wait_until(lambda: self.kept(), what="a message in the queue")
        (kept,) = self.kept()
        return kept


class Dialog:
    """A client that sends exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes | str) -> None:
        self.writer.write(octets.encode() if isinstance(octets, str) else octets)

    async def reply(self, timeout: float = 20.0) -> str:
        """Return the next reply, its lines joined by LF; "" when the connection has ended."""
        lines = []
        async with asyncio.timeout(timeout):
            while True:
                try:
                    line = (await self.reader.readline()).decode()
                except ConnectionResetError:
                    line = ""
                if not line:
                    assert not lines, lines
                    return ""
                assert line.endswith("\r\n"), line
                assert len(line) <= 512, line
                lines.append(line[:-2])
                if line[3] == " ":
                    return "\n".join(lines)

    async def say(self, line: bytes | str) -> str:
        """Send a command line and return its reply."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.reply()

    async def begin(
        self,
        sender: str = "app@example.com",
        recipients: tuple[str, ...] = ("you@example.net",),
        data: bool = True,
    ) -> None:
        """Say EHLO, MAIL, RCPT and (with `data`) DATA, all of which must be accepted."""
        assert (await self.say("EHLO client.example.com")).startswith("250")
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250 2.1.0")
        for recipient in recipients:
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250 2.1.5")
        if data:
            assert (await self.say("DATA")).startswith("354")

    async def mail(self, content: bytes, **envelope: Any) -> str:
        """Send `content` as it is, then the end, and return the final reply."""
        await self.begin(**envelope)
        self.send(content + b".\r\n")
        return await self.reply()

    async def start_tls(self, context: ssl.SSLContext, name: str = "localhost") -> None:
        await self.writer.start_tls(context, server_hostname=name)

    async def ended(self, timeout: float = 20.0) -> bool:
        """Return whether the server closes, saying nothing more."""
        return await self.reply(timeout) == ""

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Go away with a connection reset, as a crashing client does."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def vanish(self) -> None:
        """Close without a word."""
        self.writer.transport.abort()


MESSAGE = (
    b"From: App <app@example.com>\r\n"
    b"To: you@example.net\r\n"
    b"Subject: hello\r\n"
    b"Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"\r\n"
    b"Hello.\r\n"
)


@asynccontextmanager
async def front(
    server: RedisServer,
    *,
    limits: dict[str, Any] | None = None,
    patience: float = 10.0,
    ready: bool = True,
    sockets: Sequence[Bound] = (),
    clock: Callable[[], float] = time.monotonic,
    **tables: Any,
) -> AsyncIterator[Front]:
    """Listen as the settings in `tables` say, mail going to `server`.

    `limits` go over those of [listen], `sockets` are listened on in place of its addresses.
    `clock` is the time that its limits are measured by.
    """
    settings = settings_for(server.data_dir, **tables)
    redis = settings.redis
    demands = Demands(
        require_durable=redis.require_durable,
        max_memory=None if redis.max_memory == "auto" else redis.max_memory,
    )
    store = open_redis(settings, server.data_dir, timeout=None)
    commit = GroupCommit(store, demands, patience=patience)
    await commit.start()
    policy = compile_policy(settings, host_names=(HOST, "mailhost"))
    intake = Intake(policy, commit, wants_users=any(rule.user for rule in settings.rules))
    bounds = replace(Limits.of(settings.listen), **(limits or {}))
    listener = Listener(intake, bounds, HOST, clock=clock)
    found = Front(listener, server, commit)
    sockets = sockets or open_sockets(settings.listen.smtp, {}, found.said.append)
    await listener.open(sockets, settings.listen)
    try:
        if ready:
            await wait_until(lambda: not commit.unready, 60, "the store is ready")
        yield found
    finally:
        for dialog in found.dialogs:
            await dialog.close()
        await listener.close(0.0)
        await commit.close(1.0)


__all__ = ["HOST", "MESSAGE", "Dialog", "Front", "Kept", "front", "settings_for"]
