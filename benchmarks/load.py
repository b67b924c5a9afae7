"""The load: smtp-source, which comes with Postfix, else a generator of our own.

python -m benchmarks.load --port PORT [--messages N] [--sessions N] [--size OCTETS]
"""

import argparse
import asyncio
import base64
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from random import Random

SENDER = "app@example.com"
RECIPIENT = "you@example.net"


@dataclass(frozen=True, slots=True)
class Load:
    """How much mail comes how: `sessions` connections at once, kept unless `fresh`."""

    messages: int = 10_000
    sessions: int = 20
    size: int = 5120
    fresh: bool = False


def generator(own: bool = False) -> str:
    """Return the generator's name: "smtp-source" when it is installed, else "own"."""
    return "own" if own or shutil.which("smtp-source") is None else "smtp-source"


def command(load: Load, port: int, name: str) -> list[str]:
    """Return the command line that sends `load` to 127.0.0.1:`port`."""
    numbers = [str(load.messages), str(load.sessions), str(load.size)]
    if name == "own":
        own = [sys.executable, "-m", "benchmarks.load", "--port", str(port)]
        named = zip(("--messages", "--sessions", "--size"), numbers, strict=True)
        extra = ["--fresh"] if load.fresh else []
        return [*own, *(word for pair in named for word in pair), *extra]
    words = ["-m", numbers[0], "-s", numbers[1], "-l", numbers[2], "-f", SENDER, "-t", RECIPIENT]
    program = shutil.which("smtp-source") or "smtp-source"
    return [program, *words, *([] if load.fresh else ["-d"]), f"127.0.0.1:{port}"]


def send(load: Load, port: int, name: str, timeout: float) -> tuple[float, float]:
    """Send everything; return when it began and when the last 250 came (monotonic seconds).

    Raises:
        RuntimeError: the generator failed; what it said.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    began = time.monotonic()
    done = subprocess.run(
        command(load, port, name), capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode or "fatal" in done.stderr:
        raise RuntimeError(f"{name} failed: {done.stderr.strip() or done.returncode}")
    return began, time.monotonic()


def message(size: int, random: Random) -> bytes:
    """Return a plain message whose body is `size` octets of random letters and digits."""
    text = base64.b64encode(random.randbytes(size)).decode()
    width = 76
    lines = [text[start : start + width] for start in range(0, size, width)]
    body = "\r\n".join(lines)[: size - 2] + "\r\n"
    header = f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: benchmark\r\n\r\n"
    return (header + body).encode()


async def _session(port: int, left: list[int], load: Load, content: bytes) -> None:
    while left[0] > 0:
        left[0] -= 1
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await _expect(reader, b"220")
        writer.write(b"EHLO load.invalid\r\n")
        await _expect(reader, b"250")
        envelope = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
        while True:
            writer.write(envelope)
            for wanted in (b"250", b"250", b"354"):
                await _expect(reader, wanted)
            writer.write(content + b".\r\n")
            await _expect(reader, b"250")
            if load.fresh or left[0] <= 0:
                break
            left[0] -= 1
        writer.write(b"QUIT\r\n")
        await _expect(reader, b"221")
        writer.close()
        await writer.wait_closed()


async def _expect(reader: asyncio.StreamReader, wanted: bytes) -> None:
    while True:
        line = await reader.readline()
        if line[:3] != wanted:
            raise RuntimeError(f"wanted {wanted.decode()}, got {line!r}")
        if line[3:4] != b"-":
            return


async def send_own(load: Load, port: int) -> None:
    """Send `load` from this process.

    Raises:
        RuntimeError: an answer was not the one wanted.
    """
    content = message(load.size, Random(1))
    left = [load.messages]
    sessions = min(load.sessions, load.messages)
    await asyncio.gather(*(_session(port, left, load, content) for _ in range(sessions)))


def main() -> None:
    """Send a load from the command line."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.load")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--messages", type=int, default=Load().messages)
    arguments.add_argument("--sessions", type=int, default=Load().sessions)
    arguments.add_argument("--size", type=int, default=Load().size)
    arguments.add_argument("--fresh", action="store_true", help="a connection for each message")
    given = arguments.parse_args()
    load = Load(given.messages, given.sessions, given.size, given.fresh)
    try:
        asyncio.run(send_own(load, given.port))
    except (RuntimeError, OSError) as error:
        sys.exit(f"fatal: {error}")


if __name__ == "__main__":
    main()
