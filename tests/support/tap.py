"""A wire between a client and the listener that writes down what the client sent."""

import contextlib
import re
import socket
import threading


class Tap:
    """Listens on a free port of 127.0.0.1 and passes every connection on to `port`."""

    def __init__(self, port: int) -> None:
        self._far_port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._sessions: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Tap":
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    @property
    def sessions(self) -> list[bytes]:
        """What the client sent, a connection at a time."""
        return [bytes(session) for session in self._sessions]

    @property
    def content(self) -> bytes:
        """The one message sent: what came between DATA and the final dot, dot-unstuffed."""
        contents = [content for session in self.sessions for content in data_of(session)]
        assert len(contents) == 1, f"{len(contents)} messages were sent: {self.sessions!r}"
        return contents[0]

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._far_port))
            self._sockets += (near, far)
            said = bytearray()
            self._sessions.append(said)
            for source, target, written in ((near, far, said), (far, near, bytearray())):
                thread = threading.Thread(target=_pass_on, args=(source, target, written))
                thread.start()
                self._threads.append(thread)


def _pass_on(source: socket.socket, target: socket.socket, written: bytearray) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(65536):
            written += octets
            target.sendall(octets)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def data_of(session: bytes) -> list[bytes]:
    """Return the messages in what a client sent, each dot-unstuffed (RFC 5321 §4.5.2)."""
    contents = []
    rest = session
    while start := re.search(rb"(?im)^DATA[ \t]*\r?\n", rest):
        end = re.compile(rb"(?:^|(?<=\n))\.\r?\n").search(rest, start.end())
        assert end, f"no final dot in {rest!r}"
        contents.append(re.sub(rb"(?m)^\.", b"", rest[start.end() : end.start()]))
        rest = rest[end.end() :]
    return contents
