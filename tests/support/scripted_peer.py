"""A far end that does exactly what a test writes down: one script per connection, over real TLS.

For what no sensible server does (replies cut into pieces, out of step, in mid-message); for
everything else there is tests/support/far_end.py.
"""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import trustme

from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.opening import connect
from worker.smarthost.sasl import Login
from worker.smarthost.tls import client_context

EXTENSIONS = ("PIPELINING", "SIZE 20480000", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN")
OK_MAIL = "250 2.1.0 Ok"
OK_RCPT = "250 2.1.5 Ok"
GO_ON = "354 End data with <CR><LF>.<CR><LF>"
OK_FINAL = "250 2.0.0 Ok: queued as 4XyZ"
ENVELOPE_OK = (OK_MAIL, OK_RCPT, GO_ON)
LOGIN = Login("user-8c1f", "secret-77ab", "env TEST_TOKEN")

Script = Callable[["Session"], Awaitable[None]]


@cache
def authority() -> trustme.CA:
    """Return the authority of this test run."""
    return trustme.CA()


@cache
def ca_file() -> str:
    """Return the path of the authority's certificate."""
    path = Path(tempfile.mkdtemp(prefix="ca-")) / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return str(path)


@cache
def server_context(*names: str, signed_by: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the context of a server whose certificate is for `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signed_by = signed_by or authority()
    signed_by.issue_cert(*(names or ("127.0.0.1", "::1", "localhost"))).configure_cert(context)
    return context


class Session:
    """One connection, seen from the far end."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: "Peer"
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.peer = peer

    async def say(self, *replies: str) -> None:
        """Send all `replies` in one piece."""
        await self.send("".join(f"{reply}\r\n" for reply in replies).encode())

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def line(self) -> str:
        """Return the next line without its CRLF; fail at the end of the connection."""
        line = await self.reader.readuntil(b"\r\n")
        self.peer.heard.append(line[:-2].decode())
        return self.peer.heard[-1]

    async def envelope(self) -> list[str]:
        """Return the lines up to DATA."""
        lines = [await self.line()]
        while lines[-1] != "DATA":
            lines.append(await self.line())
        return lines

    async def content(self) -> bytes:
        """Return what comes up to the final dot, dots still stuffed, without the dot's line."""
        taken = b""
        while True:
            line = await self.reader.readuntil(b"\n")
            if line == b".\r\n":
                return taken
            taken += line

    async def until_end(self) -> bytes:
        """Return all that still comes until the connection ends."""
        taken = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(65536):
                taken += piece
        return taken

    def drop(self) -> None:
        """Close at once, without a word."""
        self.writer.transport.abort()

    async def greet(self, *extensions: str) -> None:
        """Give the banner and answer the first EHLO."""
        await self.say("220 peer.example ESMTP")
        await self.answer_ehlo(*(extensions or ("STARTTLS", *self.peer.extensions)))

    async def answer_ehlo(self, *extensions: str) -> None:
        line = await self.line()
        assert line.startswith("EHLO "), line
        names = ("peer.example", *extensions)
        await self.say(*(f"250-{name}" for name in names[:-1]), f"250 {names[-1]}")

    async def start_tls(self, context: ssl.SSLContext | None = None) -> None:
        line = await self.line()
        assert line == "STARTTLS", line
        await self.say("220 2.0.0 Ready to start TLS")
        await self.writer.start_tls(context or server_context())

    async def shake_hands(self) -> None:
        """Do everything up to a session that may send mail, login by PLAIN."""
        await self.greet()
        await self.start_tls()
        await self.answer_ehlo(*self.peer.extensions, "AUTH PLAIN")
        line = await self.line()
        assert line.startswith("AUTH PLAIN "), line
        await self.say("235 2.7.0 Authentication successful")


class Peer:
    """A server on a free port of loopback that plays `script` to every connection."""

    def __init__(
        self, script: Script, *, extensions: tuple[str, ...] = EXTENSIONS, host: str = "127.0.0.1"
    ) -> None:
        self.extensions = extensions
        self.heard: list[str] = []
        self.connections = 0
        self._script = script
        self._host = host
        self._tasks: list[asyncio.Task[None]] = []
        self._faults: list[Exception] = []

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._accept, self._host, 0, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]
        self.endpoint = Endpoint(self._host, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._faults:
            raise self._faults[0]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.append(asyncio.get_running_loop().create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._script(Session(reader, writer, self))
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client left: what the test asserts is how it sees that
        except Exception as fault:
            self._faults.append(fault)
        finally:
            writer.transport.abort()

    async def connect(self, **options: object) -> Connection:
        """Return a connection of ours to this peer; `options` are those of `connect`."""
        arguments = {
            "tls": client_context(ca_file()),
            "auth": ("PLAIN", "CRAM-MD5", "DIGEST-MD5", "LOGIN"),
            "local_hostname": "client.example",
            "connect_timeout": 5.0,
            "command_timeout": 5.0,
            "final_timeout": 5.0,
        }
        login = options.pop("login", LOGIN)
        endpoint = options.pop("endpoint", self.endpoint)
        return await connect(endpoint, login, **(arguments | options))  # type: ignore[arg-type]  # checked by the tests that run
