"""The way to the proxy: SMTP in plain steps, one answer at a time."""

import _socket
import time
from _collections_abc import Sequence

from proxy.sendmail.letter import Letter, octets_of

SHUT_WR = _socket.SHUT_WR

GREETING_S = 5.0
"""Within this the proxy greets, over all its addresses, or it is taken to be away."""

_ANSWER_S = 10.0  # to a command
_KEPT_S = 20.0  # to the whole message: the proxy waits up to 10 s for its store
_FAREWELL_S = 1.0
_LONGEST = 65536
_MOST_LINES = 100


class NotKeptError(Exception):
    """The proxy has not said that it keeps the message; the text says what it did."""


class Wire:
    """A connection on which the proxy has greeted."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.unread = b""
        self.greeting = b""

    def ask(self, line: bytes, within: float = _ANSWER_S) -> tuple[int, str]:
        """Send `line` (with its end) and return the reply: its code, and all its lines as one.

        Raises:
            OSError: the connection broke, or no answer came within so many seconds.
        """
        self.socket.settimeout(within)
        self.socket.sendall(line)
        return self.reply()

    def reply(self) -> tuple[int, str]:
        """Return the next reply. Raises OSError like `ask`."""
        lines: list[bytes] = []
        while True:
            line, end, rest = self.unread.partition(b"\n")
            if not end:
                octets = self.socket.recv(4096)
                if not octets:
                    raise OSError("it closed the connection")
                self.unread += octets
                if len(self.unread) > _LONGEST:
                    raise OSError("its answer does not end")
                continue
            self.unread = rest
            lines.append(line.rstrip(b"\r"))
            if len(lines) > _MOST_LINES:
                raise OSError("its answer does not end")
            if line[3:4] != b"-":
                code = line[:3]
                if not code.isdigit():
                    raise OSError("its answer is not SMTP")
                text = b" ".join([code, *(each[4:] for each in lines)])
                return int(code), text.decode("ascii", "replace")

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def connect(addresses: Sequence[str]) -> Wire:
    """Return a connection to the first of `addresses` that greets with 220.

    Raises:
        NotKeptError: none does.
    """
    deadline = time.monotonic() + GREETING_S
    why = "it listens nowhere"
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            wire = Wire(_connected(address, left))
        except (OSError, ValueError, OverflowError) as error:
            why = f"{address}: {_words(error)}"
            continue
        try:
            wire.socket.settimeout(max(deadline - time.monotonic(), 0.01))
            code, text = wire.reply()
        except OSError as error:
            wire.close()
            why = f"{address}: no greeting: {_words(error)}"
            continue
        if code == 220:
            wire.greeting = text.encode("ascii", "replace") + b"\r\n"
            return wire
        wire.close()
        why = f"{address}: {text}"
    raise NotKeptError(why)


def _connected(address: str, within: float) -> _socket.socket:
    if address.startswith("unix:"):
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        to: object = address[5:]
    else:
        host, _, port = address.rpartition(":")
        family = _socket.AF_INET6 if host.startswith("[") else _socket.AF_INET
        socket = _socket.socket(family, _socket.SOCK_STREAM)
        # Else the dot waits for the far kernel's word on what went before it: 40 ms.
        socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        to = (host.strip("[]"), int(port))
    try:
        socket.settimeout(within)
        socket.connect(to)  # type: ignore[arg-type] # an address of either family
    except BaseException:
        socket.close()
        raise
    return socket


def submit(wire: Wire, letter: Letter, once: str) -> str:
    """Hand `letter` in and return the reply that says it is kept.

    A proxy that knows the id `once` keeps it only once, however often it is given.

    Raises:
        NotKeptError: it was not kept, or nobody can say.
    """
    try:
        return _submit(wire, letter, once)
    except OSError as error:
        raise NotKeptError(_words(error)) from error


def _submit(wire: Wire, letter: Letter, once: str) -> str:
    _code, text = _positive(wire.ask(b"EHLO localhost\r\n"))
    offered = text.upper().split()
    parameters = b""
    if "8BITMIME" in offered and not letter.message.isascii():
        parameters += b" BODY=8BITMIME"
    if "SIZE" in offered:
        parameters += b" SIZE=%d" % len(letter.message)
    if "XONCE" in offered:
        parameters += b" XONCE=" + once.encode("ascii")
    _positive(wire.ask(b"MAIL FROM:<%b>%b\r\n" % (octets_of(letter.sender), parameters)))
    notify = b" NOTIFY=NEVER" if letter.never_notify else b""
    for recipient in letter.recipients:
        _positive(wire.ask(b"RCPT TO:<%b>%b\r\n" % (octets_of(recipient), notify)))
    _positive(wire.ask(b"DATA\r\n"), code=354)
    wire.socket.settimeout(_KEPT_S)
    content = letter.message.replace(b"\n.", b"\n..")
    wire.socket.sendall(b"." + content if content.startswith(b".") else content)
    _code, text = _positive(wire.ask(b".\r\n", _KEPT_S), code=250)
    _part(wire)
    return text


def _part(wire: Wire) -> None:
    """Tell the proxy that we have heard it."""
    try:
        wire.ask(b"QUIT\r\n", _FAREWELL_S)
    except OSError:
        return


def _positive(reply: tuple[int, str], code: int = 0) -> tuple[int, str]:
    if reply[0] != code if code else reply[0] // 100 != 2:
        raise NotKeptError(reply[1])
    return reply


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error)).lower()
