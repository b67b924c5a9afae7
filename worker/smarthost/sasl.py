"""AUTH mechanisms (RFC 4954) as values that answer challenges: no I/O, chance is an argument."""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Login:
    """User and password for one stream; `name` is what people may see of it."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    name: str = ""


class SaslFault(Exception):
    """The server's challenge makes no sense, or its proof is wrong; the login ends here."""


class Conversation(Protocol):
    """The client's side of one AUTH command."""

    @property
    def initial(self) -> bytes | None:
        """What goes with the AUTH command itself; None: the server speaks first."""

    @property
    def complete(self) -> bool:
        """Tell whether a 235 now is acceptable: the server has proved what it must prove."""

    def respond(self, challenge: bytes) -> bytes:
        """Return the answer to a decoded challenge, or raise SaslFault."""


def md5(octets: bytes = b"") -> "hashlib._Hash":
    """Return an MD5 object also where policy keeps MD5 for non-security uses (FIPS builds)."""
    return hashlib.md5(octets, usedforsecurity=False)


class Plain:
    """PLAIN (RFC 4616): both in one response."""

    complete = True

    def __init__(self, login: Login) -> None:
        self.initial: bytes | None = f"\0{login.user}\0{login.password}".encode()

    def respond(self, challenge: bytes) -> bytes:
        """Repeat the response for a server that overlooked it in the command."""
        if challenge or not self.initial:
            raise SaslFault("an unexpected challenge to PLAIN")
        response, self.initial = self.initial, b""
        return response


class LoginMechanism:
    """LOGIN (never standardised): user, then password, each when asked, whatever the prompt."""

    initial = None

    def __init__(self, login: Login) -> None:
        self._answers = [login.user.encode(), login.password.encode()]

    @property
    def complete(self) -> bool:
        """Tell whether both were asked for."""
        return not self._answers

    def respond(self, challenge: bytes) -> bytes:  # noqa: ARG002  # the prompt's words do not matter
        """Return the user first, the password second."""
        if not self._answers:
            raise SaslFault("a third challenge to LOGIN")
        return self._answers.pop(0)


class CramMd5:
    """CRAM-MD5 (RFC 2195): a keyed digest of the server's challenge."""

    initial = None

    def __init__(self, login: Login) -> None:
        self._login = login
        self.complete = False

    def respond(self, challenge: bytes) -> bytes:
        """Return user and digest."""
        if self.complete or not challenge:
            raise SaslFault("an unexpected challenge to CRAM-MD5")
        self.complete = True
        digest = hmac.new(self._login.password.encode(), challenge, md5).hexdigest()
        return f"{self._login.user} {digest}".encode()


class DigestMd5:
    """DIGEST-MD5 (RFC 2831), qop "auth": a digest each way, the server proving itself too."""

    initial = None

    def __init__(self, login: Login, uri: str, cnonce: str) -> None:
        self._login = login
        self._uri = uri
        self._cnonce = cnonce
        self._proof = b""
        self.complete = False

    def respond(self, challenge: bytes) -> bytes:
        """Answer the first challenge; check the server's proof in the second."""
        directives = _directives(challenge)
        if not self._proof:
            return self._digest(directives)
        proof = directives.get("rspauth", [b""])[0]
        if self.complete or not hmac.compare_digest(proof, self._proof):
            raise SaslFault("the server did not prove that it knows the password (rspauth)")
        self.complete = True
        return b""

    def _digest(self, directives: dict[str, list[bytes]]) -> bytes:
        nonce = directives.get("nonce", [])
        if len(nonce) != 1 or not nonce[0]:
            raise SaslFault("a DIGEST-MD5 challenge without exactly one nonce")
        if directives.get("algorithm") != [b"md5-sess"]:
            raise SaslFault("a DIGEST-MD5 challenge with another algorithm than md5-sess")
        if b"auth" not in re.split(rb"[ \t]*,[ \t]*", directives.get("qop", [b"auth"])[0]):
            raise SaslFault("a DIGEST-MD5 challenge without qop auth")
        utf8 = directives.get("charset") == [b"utf-8"]
        realm = directives.get("realm", [b""])[0]
        encode = _hashed_utf8 if utf8 else _latin1
        user, password = encode(self._login.user), encode(self._login.password)
        secret = md5(b":".join((user, realm, password))).digest()
        a1 = b":".join((secret, nonce[0], self._cnonce.encode()))
        middle = b":".join((nonce[0], b"00000001", self._cnonce.encode(), b"auth"))

        def answer(a2: bytes) -> bytes:
            return _hex(b":".join((_hex(a1), middle, _hex(a2))))

        self._proof = answer(b":" + self._uri.encode())
        shown = self._login.user.encode("utf-8" if utf8 else "latin-1")
        fields = [
            *([b"charset=utf-8"] if utf8 else []),
            b"username=" + _quoted(shown),
            *([b"realm=" + _quoted(realm)] if "realm" in directives else []),
            b"nonce=" + _quoted(nonce[0]),
            b"nc=00000001",
            b"cnonce=" + _quoted(self._cnonce.encode()),
            b"digest-uri=" + _quoted(self._uri.encode()),
            b"response=" + answer(b"AUTHENTICATE:" + self._uri.encode()),
            b"qop=auth",
        ]
        return b",".join(fields)


_DIRECTIVE = re.compile(
    rb'[\s,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))[ \t]*(?=,|\Z)',
    re.DOTALL,
)


def _directives(challenge: bytes) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    place = 0
    while place < len(challenge.rstrip(b" \t\r\n,")):
        match = _DIRECTIVE.match(challenge, place)
        if match is None:
            raise SaslFault("an unreadable DIGEST-MD5 challenge")
        value = match[3] if match[2] is None else re.sub(rb"\\(.)", rb"\1", match[2])
        found.setdefault(match[1].decode().lower(), []).append(value)
        place = match.end()
    return found


def _quoted(value: bytes) -> bytes:
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"'


def _hex(octets: bytes) -> bytes:
    return md5(octets).hexdigest().encode()


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise SaslFault("the server takes no UTF-8, which this login needs") from error


def _hashed_utf8(text: str) -> bytes:
    """What can be said in ISO 8859-1 is hashed in it, even with charset=utf-8 (§2.1.2.1)."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


_MAKERS: dict[str, Callable[[Login, str, str], Conversation]] = {
    "PLAIN": lambda login, _host, _chance: Plain(login),
    "LOGIN": lambda login, _host, _chance: LoginMechanism(login),
    "CRAM-MD5": lambda login, _host, _chance: CramMd5(login),
    "DIGEST-MD5": lambda login, host, chance: DigestMd5(login, f"smtp/{host}", chance),
}

MECHANISMS = tuple(_MAKERS)


def choose(wanted: Sequence[str], offered: Sequence[str]) -> str | None:
    """Return the first of `wanted` that is among `offered` (case does not matter), else None."""
    known = {name.upper() for name in offered}
    return next((name for name in wanted if name.upper() in known), None)


def start(mechanism: str, login: Login, host: str, chance: str) -> Conversation:
    """Return a new conversation; `chance` is a random token, at least 64 bits, never used twice."""
    return _MAKERS[mechanism.upper()](login, host, chance)
