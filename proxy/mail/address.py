"""Addresses: forward- and reverse-paths, and mailboxes in header fields (RFC 5321, RFC 5322 §3.4).

Postmark takes no mailbox outside of ASCII; domains outside of it become A-labels (RFC 5890).
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import idna

_ADDRESS = re.compile(
    r"""(?:[^\x00-\x20\x7f"(),:;<>@\[\\\]]+ | "(?:[^"\\\x00-\x1f\x7f] | \\[ -~])*")
        @ (?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)* | \[[A-Za-z0-9:.]+\])""",
    re.VERBOSE,
)
_LOCAL_PART = re.compile(
    r"""[^\x00-\x20\x7f"(),:;<>@\[\\\]]+|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*\""""
)


_LONGEST_LOCAL_PART = 64  # RFC 5321 §4.5.3.1
_LONGEST_ADDRESS = 320


class AddressError(ValueError):
    """Not an address that can be mailed to."""


class NonASCIIMailboxError(AddressError):
    """The part before the @ of `address` is not ASCII."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the mailbox of {address!r} is not ASCII")
        self.address = address


def split_address(address: str) -> tuple[str, str]:
    """Return what stands before and after the last @; a bare name has the domain ""."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def ascii_domain(domain: str) -> str:
    """Return `domain` with A-labels for what is not ASCII, and without a dot at its end.

    Raises:
        AddressError: IDNA has no A-label for it.
    """
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError(f"the domain {domain!r} has no ASCII form") from error
    return domain.removesuffix(".")


@functools.lru_cache(maxsize=1024)
def normal_address(address: str) -> str:
    """Return `address` as it can be given to Postmark: the domain in ASCII, else unchanged.

    The result holds neither white space (but in a quoted local part), nor control characters.

    Raises:
        NonASCIIMailboxError: the part before the @ is not ASCII.
        AddressError: no address of RFC 5321, or one without a domain.
    """
    if len(address) > _LONGEST_ADDRESS:
        raise AddressError(f"an address has at most {_LONGEST_ADDRESS} characters")
    if address.isascii() and _ADDRESS.fullmatch(address):
        return address
    local, domain = split_address(address)
    address = f"{local}@{ascii_domain(domain)}"
    if not _ADDRESS.fullmatch(address):
        raise AddressError(f"{address!r} is not an address")
    if not address.isascii():
        raise NonASCIIMailboxError(address)
    return address


def is_bare_name(text: str) -> bool:
    """Say whether `text` is a local part alone, as "root"."""
    return len(text) <= _LONGEST_LOCAL_PART and _LOCAL_PART.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox of a field: its display name as it is meant (quotes gone), and its address.

    Comments beside the address count as part of the name. The address may be a bare name; "" when
    there was none.
    """

    name: str
    address: str


_WORD = r"[^\s\"(),:;<>@\\]"
_SIMPLE = re.compile(
    rf"""\s?
        (?: (?: "(?P<quoted>[^"\\]*)" | (?P<phrase>[^"(),:;<>@\\]*) )
            \s? <(?P<angle>{_WORD}+@{_WORD}+)>
        | (?P<plain>{_WORD}+@{_WORD}+) )
        \s? (?:,|$)""",
    re.VERBOSE,
)
# A quoted string or a comment without its end goes on to the end of the field.
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?$)|([<>,:;(])|(\s)|[^\s"(<>,:;]+', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_COMMENT_END = re.compile(r"\\.|[()]", re.DOTALL)


def parse_mailboxes(value: str) -> list[Mailbox]:
    """Return the mailboxes of an address field's value; never fails, linear in time.

    Groups are dissolved, source routes dropped. What cannot be read as an address gives a mailbox
    without one.
    """
    return [*(_read_short(value) if len(value) <= _SHORT else _read(value))]


def _read(value: str) -> list[Mailbox]:
    value = " ".join(value.split())
    found: list[Mailbox] = []
    at, end = 0, len(value)
    while at < end:
        match = _SIMPLE.match(value, at)
        if match is None:
            return [*_parse_tokens(value)]
        quoted, phrase, angle, plain = match.groups()
        if plain is not None:
            found.append(Mailbox("", plain))
        else:
            found.append(Mailbox((phrase if quoted is None else quoted).strip(), angle))
        at = match.end()
    return found


# Programs that send much send it from one address.
_SHORT = 200
_read_short = functools.lru_cache(maxsize=1024)(_read)


def _parse_tokens(value: str) -> Iterator[Mailbox]:
    """Yield the mailboxes of a field that is more than names and angle brackets."""
    mailbox = _Unfinished()
    at, end = 0, len(value)
    while at < end:
        match = _TOKEN.match(value, at)
        if match is None:  # not reached: every character begins a token
            break
        token, at = match[0], match.end()
        if match[2] == "(":
            start, at = at, _after_comment(value, at)
            comment = value[start : at - 1] if value[at - 1 : at] == ")" else value[start:at]
            mailbox.comments.append(_ESCAPE.sub(r"\1", comment.strip()))
        elif match[2] == "<":
            mailbox.angle = []
        elif match[2] == ">":
            mailbox.closed = True
        elif match[2] == ":" and mailbox.angle is None:
            mailbox = _Unfinished()  # what came before names a group
        elif match[2] == ":" and mailbox.angle:
            mailbox.angle.clear()  # what came before is a source route
        elif match[2] in (",", ";"):
            # A comma within angle brackets parts the hosts of a source route.
            if mailbox.angle is None or mailbox.closed:
                yield from mailbox.finished()
                mailbox = _Unfinished()
        else:
            mailbox.take(token, match[1])
    yield from mailbox.finished()


def _after_comment(value: str, at: int) -> int:
    depth = 1
    while depth and (match := _COMMENT_END.search(value, at)) is not None:
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        at = match.end()
    return at if depth == 0 else len(value)


class _Unfinished:
    """The parts of one mailbox as they are read."""

    __slots__ = ("angle", "closed", "comments", "plain", "words")

    def __init__(self) -> None:
        self.words: list[str] = []  # the phrase, quotes gone
        self.plain: list[str] = []  # the same as written, in case it is the address
        self.comments: list[str] = []
        self.angle: list[str] | None = None
        self.closed = False

    def take(self, piece: str, quoted: str | None) -> None:
        """Take one word, quoted string or space."""
        if self.angle is not None and not self.closed:
            if piece != " ":
                self.angle.append(piece)
            return
        self.words.append(piece if quoted is None else _ESCAPE.sub(r"\1", quoted))
        self.plain.append(piece)

    def finished(self) -> Iterator[Mailbox]:
        """Yield the mailbox, if anything was read."""
        name = "".join(self.words).strip()
        comment = " ".join(filter(None, self.comments))
        if self.angle is not None:
            if comment:
                name = f"{name} ({comment})" if name else comment
            yield Mailbox(name, "".join(self.angle))
            return
        # Blanks between pieces part the words, not those within a quoted string.
        parts = groupby(self.plain, key=" ".__eq__)
        words = ["".join(pieces) for blank, pieces in parts if not blank]
        if not words:
            if comment:
                yield Mailbox(comment, "")
        elif len(words) == 1 and "@" not in words[0] and not words[0].isascii():
            yield Mailbox(words[0], "")  # a name alone: mailboxes outside of ASCII have a domain
        elif len(words) == 1 or any("@" in (word[0], word[-1]) for word in words):
            yield Mailbox(comment, "".join(words))
        else:  # a name and an address whose brackets were forgotten
            addresses = [word for word in words if "@" in word]
            rest = " ".join(word for word in words if "@" not in word)
            yield Mailbox(rest or comment, addresses[0] if len(addresses) == 1 else "")
