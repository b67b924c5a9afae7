"""The load: smtp-source, which comes with Postfix, else a generator of our own.

python -m benchmarks.load --port PORT [--messages N] [--sessions N] [--size OCTETS]
"""

import argparse
import asyncio
import base64
import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from benchmarks.scenarios import Load

SENDER = "app@example.com"
RECIPIENT = "you@example.net"


@dataclass(frozen=True, slots=True)
class Sent:
    """When a load began and when its last 250 came (monotonic seconds); seconds of CPU it took."""

    began: float
    ended: float
    cpu: float


def generator(own: bool = False) -> str:
    """Return the generator's name: "smtp-source" when it is installed, else "own"."""
    return "own" if own or shutil.which("smtp-source") is None else "smtp-source"


def command(load: Load, port: int, name: str, content: Path | None = None) -> list[str]:
    """Return the command line that sends `load` to 127.0.0.1:`port`.

    `content` is a file with the message that smtp-source sends instead of one it makes.
    """
    numbers = [str(load.messages), str(load.sessions), str(load.size)]
    if name == "own":
        own = [sys.executable, "-m", "benchmarks.load", "--port", str(port)]
        named = zip(("--messages", "--sessions", "--size"), numbers, strict=True)
        extra = ["--fresh"] if load.fresh else []
        return [*own, *(word for pair in named for word in pair), *extra]
    text = ["-l", numbers[2]] if content is None else ["-F", str(content)]
    words = ["-m", numbers[0], "-s", numbers[1], *text, "-f", SENDER, "-t", RECIPIENT]
    program = shutil.which("smtp-source") or "smtp-source"
    return [program, *words, *([] if load.fresh else ["-d"]), f"127.0.0.1:{port}"]


def send(load: Load, ports: Sequence[int], name: str, timeout: float) -> Sent:
    """Send everything, an equal part to each of `ports`, and wait for the last 250.

    Raises:
        RuntimeError: the generator failed; what it said.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    with _content(load) as content:
        lines = [command(one, port, name, content) for one, port in shares(load, ports)]
        before, began = _children(), time.monotonic()
        running = [
            subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for line in lines
        ]
        try:
            for one in running:
                said = one.communicate(timeout=max(0.0, began + timeout - time.monotonic()))[1]
                if one.returncode or "fatal" in said:
                    raise RuntimeError(f"{name} failed: {said.strip() or one.returncode}")
        finally:
            for one in running:
                if one.poll() is None:
                    one.kill()
                    one.communicate()
        return Sent(began, time.monotonic(), _children() - before)


def shares(load: Load, ports: Sequence[int]) -> list[tuple[Load, int]]:
    """Return what of `load` goes to which of `ports`; the first ones take what is left over."""
    found = []
    for number, port in enumerate(ports):
        messages = (load.messages + len(ports) - 1 - number) // len(ports)
        sessions = max(1, (load.sessions + len(ports) - 1 - number) // len(ports))
        found.append((replace(load, messages=messages, sessions=sessions), port))
    return found


@contextlib.contextmanager
def _content(load: Load) -> Iterator[Path | None]:
    """Make the file that smtp-source sends, where it shall be of random text."""
    if not load.random:
        yield None
        return
    with tempfile.NamedTemporaryFile(prefix="franker-bench-") as file:
        file.write(message(load.size, Random(1)).replace(b"\r\n", b"\n"))
        file.flush()
        yield Path(file.name)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
