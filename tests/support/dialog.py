"""A raw SMTP dialog, octet by octet, for tests of what a server says."""

import asyncio
import base64
import contextlib
import ssl
from pathlib import Path


class Dialog:
    """One connection. `say` sends and returns the reply; many lines are joined by newline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> "Dialog":
        """Connect, without reading the greeting."""
        return cls(*await asyncio.open_connection(host, port))

    async def __aenter__(self) -> "Dialog":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    async def reply(self, timeout: float = 20) -> str:
        """Read one reply; "" when the connection ended."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), timeout)
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def codes_at_once(self) -> list[str]:
        """Wait for what comes next, and return the codes of all lines that came in one go."""
        octets = await asyncio.wait_for(self.reader.read(65_536), 20)
        return [line[:3].decode() for line in octets.splitlines()]

    def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.writer.write(octets)

    async def say(self, line: str) -> str:
        """Send one command and return its reply."""
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def start_tls(self, ca_file: Path | str, name: str = "127.0.0.1") -> None:
        """Greet, switch to verified TLS, greet again."""
        await self.reply()
        await self.say("EHLO client.example")
        assert (await self.say("STARTTLS"))[:3] == "220"
        await self.shake_hands(ca_file, name)
        await self.say("EHLO client.example")

    async def shake_hands(self, ca_file: Path | str, name: str = "127.0.0.1") -> None:
        """The TLS handshake alone."""
        context = ssl.create_default_context(cafile=str(ca_file))
        await self.writer.start_tls(context, server_hostname=name)

    async def log_in(self, user: str, password: str = "") -> str:
        """AUTH PLAIN; an empty password is the user's name again."""
        proof = base64.b64encode(f"\0{user}\0{password or user}".encode()).decode()
        return await self.say(f"AUTH PLAIN {proof}")

    async def deliver(self, sender: str, recipients: list[str], content: bytes) -> str:
        """One whole transaction with content already dot-stuffed; the last reply."""
        answer = await self.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients:
            if answer[:1] != "2":
                return answer
            answer = await self.say(f"RCPT TO:<{recipient}>")
        if answer[:1] != "2" or (answer := await self.say("DATA"))[:3] != "354":
            return answer
        self.send(content + b".\r\n")
        return await self.reply()
