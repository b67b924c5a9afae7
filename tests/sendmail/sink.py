"""An SMTP server that takes everything and remembers it."""

import contextlib
import re
import socket
import threading
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Taken:
    """One message: addresses as they stood in the brackets, the content without dots doubled."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Sink:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.taken: list[Taken] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, near.makefile("rb") as lines, contextlib.suppress(OSError):
            sender, recipients = "", list[str]()
            near.sendall(b"220 sink\r\n")
            for line in lines:
                verb = line[:4].upper()
                if verb == b"MAIL":
                    sender, recipients = _path(line), []
                elif verb == b"RCPT":
                    recipients.append(_path(line))
                elif verb == b"DATA":
                    near.sendall(b"354 go on\r\n")
                    content = b""
                    while (each := lines.readline()) not in (b".\r\n", b""):
                        content += each.removeprefix(b".")
                    self.taken.append(Taken(sender, tuple(recipients), content))
                near.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 sink\r\n")


def _path(line: bytes) -> str:
    found = re.search(rb"<(.*)>", line)
    assert found, line
    return found[1].decode("utf-8", "replace")
