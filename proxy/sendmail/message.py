"""The message on standard input: its end found, its lines made CRLF, its header completed. Pure.

Nothing here alters what a program wrote but line ends and, with -t, Bcc fields.
"""

from _collections_abc import Callable

from proxy.sendmail.addresses import addresses_in
from proxy.sendmail.letter import LARGEST

_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
_BLIND = (b"bcc", b"resent-bcc")
_ATOMS = " !#$%&'*+/=?^_`{|}~-"  # RFC 5322 §3.2.3, with letters and digits
_NAME = frozenset(range(33, 127)) - {ord(":")}


class TooLargeError(Exception):
    """With CRLF as line end it is longer than `LARGEST` octets, if it ends at all."""


def read_message(read: Callable[[], bytes], *, dot_ends: bool) -> bytes:
    """Return what `read` gives until it gives nothing, with CRLF as line end.

    `dot_ends`: a line that is only a dot ends it, too. The last line always has an end.

    Raises:
        TooLargeError: it is longer than anything that could be sent.
        OSError: `read` failed.
    """
    held = bytearray()
    scanned = 0
    while octets := read():
        held += octets
        if dot_ends:
            end = _dot(held, scanned)
            if end >= 0:
                del held[end:]
                break
            scanned = max(0, len(held) - 3)
        if len(held) > LARGEST:
            raise TooLargeError
    if dot_ends and (held == b"." or held.endswith(b"\n.")):
        del held[-1:]
    text = bytes(held).replace(b"\r\n", b"\n")
    if text and not text.endswith(b"\n"):
        text += b"\n"
    if len(text) + text.count(b"\n") > LARGEST:
        raise TooLargeError
    return text.replace(b"\n", b"\r\n")


def _dot(held: bytearray, start: int) -> int:
    """Return where a line that is only a dot begins, at or after `start`; -1 when there is none."""
    if held.startswith((b".\n", b".\r\n")):
        return 0
    places = [held.find(dot, start) for dot in (b"\n.\n", b"\n.\r\n")]
    return min((place + 1 for place in places if place >= 0), default=-1)


class Message:
    """A message with CRLF line ends, parted into the fields of its header and all the rest.

    A header ends before the first line that is no field; lines of an mbox in front of it go.
    """

    def __init__(self, octets: bytes) -> None:
        at = 0
        while octets.startswith((b"From ", b">From "), at):
            at = _next_line(octets, at)
        self._fields: list[tuple[bytes, bytes]] = []  # name in lower case, all octets
        while at < len(octets):
            after = _next_line(octets, at)
            line = octets[at:after]
            if line[:1] in (b" ", b"\t") and self._fields and line.strip():
                name, before = self._fields[-1]
                self._fields[-1] = (name, before + line)
            else:
                name = line.partition(b":")[0].rstrip(b" \t")
                if b":" not in line or not name or not _NAME.issuperset(name):
                    break
                self._fields.append((name.lower(), line))
            at = after
        self._rest = octets[at:]
        # What follows a header that broke off is the proxy's to judge: there may be a Bcc in it.
        if not self._rest.startswith(b"\r\n") and (not self._fields or not self._rest):
            self._rest = b"\r\n" + self._rest

    def __contains__(self, name: bytes) -> bool:
        return any(name == one for one, _ in self._fields)

    def recipients(self) -> list[str]:
        """Return whom the header names: the Resent- fields count alone where there are any."""
        wanted = _RESENT if any(name in _RESENT for name, _ in self._fields) else _RECIPIENTS
        found: list[str] = []
        for name, octets in self._fields:
            if name in wanted:
                value = octets.partition(b":")[2].decode("utf-8", "surrogateescape")
                found += addresses_in(value)
        return found

    def take_out_blind(self) -> None:
        """Take out the fields that nobody may see."""
        self._fields = [one for one in self._fields if one[0] not in _BLIND]

    def put_from(self, name: str, address: str) -> None:
        """Put a From on top of the others."""
        phrase = "".join(" " if letter < " " or letter == "\x7f" else letter for letter in name)
        phrase = phrase.strip()
        if not all(letter.isalnum() or letter in _ATOMS for letter in phrase):
            phrase = '"' + phrase.replace("\\", "\\\\").replace('"', '\\"') + '"'
        value = f"{phrase} <{address}>" if phrase else address
        line = f"From: {value}\r\n".encode("utf-8", "surrogateescape")
        self._fields.insert(0, (b"from", line))

    def octets(self) -> bytes:
        """Return the whole message."""
        return b"".join([octets for _, octets in self._fields] + [self._rest])


def _next_line(octets: bytes, at: int) -> int:
    end = octets.find(b"\n", at)
    return len(octets) if end < 0 else end + 1
