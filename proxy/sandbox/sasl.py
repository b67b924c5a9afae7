"""The server's half of the four login mechanisms, as exchanges without I/O.

Each is a generator: it yields challenges, is sent the client's responses, and returns the user
whose login is proved, or raises `LoginRefused`. The first challenge of PLAIN is empty, so that a
client's initial response (RFC 4954 §4) can stand in for the answer to it; likewise for LOGIN.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType

Exchange = Generator[bytes, bytes, str]
Passwords = Callable[[str], str | None]
"""Gives the password of a user, None for one that is not known."""


class LoginRefused(Exception):
    """The client did not prove who it is. `user` is who it said it was, when it said so."""

    def __init__(self, user: str = "") -> None:
        super().__init__("login refused")
        self.user = user


def _same(user: str, given: bytes, passwords: Passwords) -> str:
    password = passwords(user)
    if password is None or not hmac.compare_digest(password.encode(), given):
        raise LoginRefused(user)
    return user


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def plain(passwords: Passwords, nonce: str, host: str) -> Exchange:  # noqa: ARG001 - all alike
    """RFC 4616: authorization identity, user and password in one go."""
    parts = (yield b"").split(b"\0")
    if len(parts) != 3:
        raise LoginRefused
    return _same(_text(parts[1]), parts[2], passwords)


def login(passwords: Passwords, nonce: str, host: str) -> Exchange:  # noqa: ARG001 - all alike
    """The mechanism that never became an RFC: asks for one, then for the other."""
    user = yield b"Username:"
    given = yield b"Password:"
    return _same(_text(user), given, passwords)


def cram_md5(passwords: Passwords, nonce: str, host: str) -> Exchange:
    """RFC 2195: user and the keyed MD5 of a challenge."""
    challenge = f"<{nonce}@{host}>".encode()
    user, _, digest = _text((yield challenge)).rpartition(" ")
    password = passwords(user)
    if password is None:
        raise LoginRefused(user)
    expected = hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()
    if not hmac.compare_digest(expected, digest.lower()):
        raise LoginRefused(user)
    return user


_DIRECTIVE = re.compile(r'\s*([a-zA-Z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))\s*(?:,|$)')


def directives(text: str) -> dict[str, str]:
    """Return the directives of RFC 2831 §7.1, quoting undone, names in lower case."""
    return {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _DIRECTIVE.finditer(text)
    }


def digest_response(given: Mapping[str, str], password: str, verb: str) -> str:
    """Return the response value of RFC 2831 §2.1.2.1 (`verb` "AUTHENTICATE" or "")."""

    def md5(octets: bytes) -> bytes:
        return hashlib.md5(octets).digest()  # noqa: S324 - the mechanism's own digest

    secret = md5(f"{given['username']}:{given.get('realm', '')}:{password}".encode())
    a1 = secret + f":{given['nonce']}:{given['cnonce']}".encode()
    a2 = f"{verb}:{given['digest-uri']}".encode()
    middle = f":{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}:".encode()
    return md5(md5(a1).hex().encode() + middle + md5(a2).hex().encode()).hex()


def digest_md5(passwords: Passwords, nonce: str, host: str) -> Exchange:
    """RFC 2831, qop=auth: the client proves the password, and the server does so in turn."""
    challenge = f'realm="{host}",nonce="{nonce}",qop="auth",algorithm=md5-sess,charset=utf-8'
    given = {"qop": "auth", "nc": ""} | directives(_text((yield challenge.encode())))
    user = given.get("username", "")
    password = passwords(user)
    complete = {"nonce", "cnonce", "digest-uri", "response"} <= given.keys()
    if (
        password is None
        or not complete
        or given["nonce"] != nonce
        or given["nc"] != "00000001"
        or given["qop"] != "auth"
        or not given["digest-uri"].lower().startswith("smtp/")
    ):
        raise LoginRefused(user)
    if not hmac.compare_digest(
        digest_response(given, password, "AUTHENTICATE"), given["response"].lower()
    ):
        raise LoginRefused(user)
    yield f"rspauth={digest_response(given, password, '')}".encode()
    return user


MECHANISMS: Mapping[str, Callable[[Passwords, str, str], Exchange]] = MappingProxyType(
    {"PLAIN": plain, "LOGIN": login, "CRAM-MD5": cram_md5, "DIGEST-MD5": digest_md5}
)
"""In the order in which EHLO offers them."""

INITIAL_RESPONSE = frozenset({"PLAIN", "LOGIN"})
"""Mechanisms in which the client may speak first."""
