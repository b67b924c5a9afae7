"""A message with its envelope, and the form in which it lies in the drop folder. Pure.

    franker drop 1
    from app@example.com
    to you@example.net
    notify never
    octets 34

and after an empty line so many octets of message. Addresses are octets without control characters.
"""

_MAGIC = b"franker drop 1\n"
LARGEST = 25_000_000
"""Octets of message at most: several times what Postmark takes, so that the reply says why."""

LARGEST_FILE = LARGEST + 4_000_000
"""Octets of a whole letter at most, with its recipients: writer and reader heed it."""


class LetterError(ValueError):
    """This is no letter, or one of a later version."""


class Letter:
    """What is handed in: `sender` is "" for the null one; `message` has CRLF line ends."""

    __slots__ = ("message", "never_notify", "recipients", "sender")

    def __init__(
        self, sender: str, recipients: list[str], message: bytes, *, never_notify: bool = False
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.message = message
        self.never_notify = never_notify


def pack(letter: Letter) -> bytes:
    """Return `letter` as octets."""
    lines = [b"from " + octets_of(letter.sender)]
    lines += [b"to " + octets_of(recipient) for recipient in letter.recipients]
    if letter.never_notify:
        lines.append(b"notify never")
    lines.append(b"octets %d" % len(letter.message))
    return _MAGIC + b"\n".join(lines) + b"\n\n" + letter.message


def unpack(octets: bytes) -> Letter:
    """Return the letter that `pack` made into `octets`.

    Raises:
        LetterError: it made no such thing. The text is for the log.
    """
    if not octets.startswith(_MAGIC):
        raise LetterError("it is not in the form of this version of franker-sendmail")
    head, blank, message = octets[len(_MAGIC) :].partition(b"\n\n")
    senders: list[str] = []
    recipients: list[str] = []
    sizes: list[bytes] = []
    never_notify = False
    for line in head.split(b"\n"):
        word, _, value = line.partition(b" ")
        if word == b"from":
            senders.append(_text(value))
        elif word == b"to":
            recipients.append(_text(value))
        elif word == b"octets":
            sizes.append(value)
        elif line == b"notify never":
            never_notify = True
        else:
            raise LetterError("its head has a line that means nothing")
    if not blank or len(senders) != 1 or not recipients or not all(recipients):
        raise LetterError("its head is not whole")
    if sizes != [b"%d" % len(message)]:
        raise LetterError("it is not as long as it says")
    return Letter(senders[0], list(dict.fromkeys(recipients)), message, never_notify=never_notify)


def octets_of(address: str) -> bytes:
    """Return an address as octets."""
    return address.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    text = value.decode("utf-8", "surrogateescape")
    if any(letter < " " or letter == "\x7f" for letter in text):
        raise LetterError("its head has control characters")
    return text
