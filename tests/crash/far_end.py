"""The far end as a process that can be killed: what it took is written down before its 250.

    python -m tests.crash.far_end --folder DIR --ports A,B,C --http PORT

`DIR/taken.jsonl` has one line for each message, in the order they came; started again, it knows
them all, as Postmark would. Recipients that begin with "dead." are refused for good.
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.sandbox.account import Account, SmtpToken
from proxy.sandbox.message import Taken
from proxy.sandbox.sandbox import Sandbox
from proxy.sandbox.store import Entry
from proxy.sandbox.web import SandboxWeb

DEAD = "dead."
"""What the local-part of a recipient begins with that does not exist."""

INDEXING_S = 0.5
"""After how long the Messages API finds what was taken."""

SMTP_TOKENS = tuple(
    SmtpToken(f"{stream}-access-key", f"{stream}-secret-key", stream)
    for stream in ("outbound", "broadcasts")
)

_ID = "X-PM-Metadata-franker-id"
_FILE = "taken.jsonl"


@dataclass(frozen=True, slots=True)
class Taking:
    """One message as it was taken: when (seconds since 1970), by which id, for whom."""

    at: float
    id: str
    recipients: tuple[str, ...]
    checksum: int


class Record:
    """Reads what the far end wrote down; each call goes on where the last ended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._read = 0

    def more(self) -> Iterator[Taking]:
        """Yield what has come since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                word = json.loads(line)
                yield Taking(word["at"], word["id"], tuple(word["to"]), word["checksum"])


def _line(entry: Entry) -> bytes:
    taken = entry.taken
    head = taken.content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    return (
        json.dumps(
            {
                "at": taken.at,
                "id": taken.field(_ID) or "",
                "to": taken.recipients,
                "checksum": zlib.crc32(taken.body),
                "number": taken.number,
                "message_id": taken.id,
                "host": taken.host,
                "port": taken.port,
                "login": taken.login,
                "stream": taken.bound_stream,
                "from": taken.reverse_path,
                "head": base64.b64encode(head).decode(),
            }
        ).encode()
        + b"\n"
    )


def _known(line: str) -> Taken:
    word = json.loads(line)
    return Taken(
        number=word["number"],
        id=word["message_id"],
        queue_id="",
        at=word["at"],
        host=word["host"],
        port=word["port"],
        tls="",
        login=word["login"],
        bound_stream=word["stream"],
        helo="",
        reverse_path=word["from"],
        recipients=tuple(word["to"]),
        content=base64.b64decode(word["head"]) + b"(its body was left out)\r\n",
    )


async def serve(folder: Path, ports: tuple[int, ...], http: int) -> None:
    """Take mail until SIGTERM."""
    path = folder / _FILE
    path.touch()
    file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write_down(entry: Entry) -> None:
        os.write(file, _line(entry))  # one write: a kill leaves the whole line or nothing

    account = Account(smtp_tokens=SMTP_TOKENS)
    sandbox = Sandbox(folder, account, ports=ports, on_taken=write_down)
    for line in path.read_text().splitlines():
        sandbox.store.add(_known(line))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sandbox.fail("rcpt", "550 5.1.1 User unknown", address=f"{DEAD}*")
    async with sandbox, SandboxWeb(sandbox, port=http, indexing_delay=INDEXING_S):
        print("started process=far_end", flush=True)
        await stop.wait()


def main() -> None:
    """Run it until SIGTERM."""
    arguments = argparse.ArgumentParser(prog="python -m tests.crash.far_end")
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--ports", required=True)
    arguments.add_argument("--http", type=int, required=True)
    given = arguments.parse_args()
    asyncio.run(serve(given.folder, tuple(map(int, given.ports.split(","))), given.http))


if __name__ == "__main__":
    main()
