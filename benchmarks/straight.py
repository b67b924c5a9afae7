"""Mail straight into a sink, over TLS, on connections that never wait for a reply to go on.

    python -m benchmarks.straight --port PORT --ca FILE --messages N --connections N

What no client may do in earnest (RFC 2920 wants DATA answered first); it shows what the sink takes.
"""

import argparse
import asyncio
import ssl
from pathlib import Path
from random import Random

import uvloop

from benchmarks.load import RECIPIENT, SENDER, message
from benchmarks.scenarios import Load

_AHEAD = 16  # messages without a reply on one connection
_REPLIES = 4  # to MAIL, RCPT, DATA and the dot


async def _connection(port: int, context: ssl.SSLContext, left: list[int], content: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readuntil(b"220 sink.invalid ESMTP\r\n")
    writer.write(b"EHLO load.invalid\r\n")
    await reader.readuntil(b"250 STARTTLS\r\n")
    writer.write(b"STARTTLS\r\n")
    await reader.readline()
    await writer.start_tls(context, server_hostname="127.0.0.1")
    sent = answered = 0  # messages, lines
    while left[0] > 0 or answered < sent * _REPLIES:
        while left[0] > 0 and sent - answered // _REPLIES < _AHEAD:
            left[0] -= 1
            sent += 1
            writer.write(content)
        octets = await reader.read(65536)
        if not octets:
            raise RuntimeError("the sink hung up")
        answered += octets.count(b"\n")
    writer.close()
    await writer.wait_closed()


async def send_straight(port: int, ca_file: Path, messages: int, connections: int) -> None:
    """Send `messages` of 5 KB over `connections` at once; return when all are answered."""
    context = ssl.create_default_context(cafile=str(ca_file))
    envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
    content = envelope + message(Load().size, Random(1)) + b".\r\n"
    left = [messages]
    some = range(min(connections, messages))
    await asyncio.gather(*(_connection(port, context, left, content) for _ in some))


def main() -> None:
    """Send from the command line."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.straight")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--ca", type=Path, required=True)
    arguments.add_argument("--messages", type=int, default=Load().messages)
    arguments.add_argument("--connections", type=int, default=10)
    given = arguments.parse_args()
    uvloop.run(send_straight(given.port, given.ca, given.messages, given.connections))


if __name__ == "__main__":
    main()
