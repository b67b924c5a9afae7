"""Messages built to cost: none takes long, none leaves anything behind."""

import encodings
import re
import time

import pytest

from tests.support.mail import LOCAL, accepted, hand_in, policy

POLICY = policy(local=LOCAL)
HEADER = b"From: App <app@example.com>\r\nSubject: s\r\n"
MIXED = HEADER + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
LONG_BODY = 500_000
LONG_HEADER = 100_000
SECONDS = 3.0
"""Of processor time; the slowest takes a quarter of a second here."""


def filled(unit: bytes, size: int = LONG_BODY) -> bytes:
    return unit * (size // len(unit))


NESTED = b"".join(
    b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (level, level + 1)
    for level in range(40)
)
BODIES = {
    "parts": MIXED + filled(b"--b\r\n\xff\r\n"),
    "parts with fields": MIXED + filled(b"--b\r\nA: \xff\r\n\r\n\xff\r\n"),
    "an epilogue of line ends": MIXED + b"--b\r\n\r\nx\r\n--b--\r\n\xff" + filled(b"\r\n"),
    "parts within parts": MIXED.replace(b"=b", b"=b0") + NESTED + filled(b"\xff\r\n"),
    "the same boundary in each": MIXED + b"--b\r\n" + filled(MIXED[:99]) + b"\xff",
    "a boundary of dashes": MIXED.replace(b"=b", b"=" + b"-" * 150) + b"\xff" + filled(b"-"),
    "messages in messages": HEADER
    + filled(b"Content-Type: message/rfc822\r\n\r\n", 9000)
    + filled(b"\xff"),
    "octets without a line": HEADER + b"\r\n" + filled(b"\xff"),
    "bare line ends": HEADER + b"\r\n" + filled(b"\r"),
    "NULs": HEADER + b"\r\n" + filled(b"\0"),
    "blanks": HEADER + b"\r\n" + filled(b" "),
    "soft line breaks": HEADER
    + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n\xff"
    + filled(b"=\r\n"),
    "base64 and not": HEADER + b"Content-Transfer-Encoding: base64\r\n\r\n\xff" + filled(b"A!"),
    "HTML without an end": HEADER + b"Content-Type: text/html\r\n\r\n\xff" + filled(b"<meta "),
    "fields": HEADER + filled(b"a:\xff\r\n", LONG_HEADER) + b"\r\nx",
    "folds": HEADER + b"A: b\r\n" + filled(b" \r\n", LONG_HEADER) + b"\r\nx",
    "the same field": HEADER + filled(b"To: root\r\n", LONG_HEADER) + b"\r\nx",
    "metadata": HEADER + b"".join(b"X-PM-Metadata-%d: x\r\n" % n for n in range(9000)) + b"\r\nx",
}
VALUES = {
    "encoded words": b"=?utf-8?q?a?= ",
    "words half begun": b"=?a?q?",
    "comments": b"(",
    "quotes": b'"',
    "escapes": b'"\\',
    "brackets": b"<",
    "routes": b"@a:",
    "groups": b"g:a@b;",
    "local names": b"root, ",
    "parameters": b';a="\xff',
    "parameters in pieces": b"; a*0*=utf-8''%ff",
    "semicolons": b"; ",
    "raw octets": b"\xff",
    "Japanese": b'\x1b$B$"\x1b(B',
    "one word": b"x",
}


@pytest.mark.parametrize("content", BODIES.values(), ids=list(BODIES))
def test_no_message_takes_long(content: bytes) -> None:
    began = time.process_time()
    hand_in(content, POLICY)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", ["From", "To", "Subject", "Content-Type", "X-PM-Tag"])
@pytest.mark.parametrize("unit", VALUES.values(), ids=list(VALUES))
def test_no_field_takes_long(name: str, unit: bytes) -> None:
    field = f"{name}: ".encode() + b"text/plain; x=\xff" * (name == "Content-Type")
    content = HEADER * (name != "From") + field + filled(unit, LONG_HEADER) + b"\r\n\r\n\xff\r\n"
    began = time.process_time()
    hand_in(content, POLICY)
    assert time.process_time() - began < SECONDS


def named(number: int) -> bytes:
    """A message whose charsets and boundary nobody has heard of before."""
    name = b"name-%d-" % number + b"x" * (30 + 3000 * (number % 2))
    return (
        b"From: =?%b?q?x?= <app@example.com>\r\nSubject: =?%b?b?eA==?=\r\n"
        b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n"
        b"Content-Type: text/plain; charset=%b\r\n\r\n\xff\r\n--%b--\r\n" % ((name,) * 6)
    )


def test_no_name_out_of_a_message_is_remembered() -> None:
    given = policy({"name": "r", "subject": ["*x*"], "from": "r@example.com"}, local=LOCAL)
    caches = (encodings._cache, re._cache)  # type: ignore[attr-defined]  # where they would stay
    for number in range(50):
        hand_in(named(number), given)
    before = [len(cache) for cache in caches]
    for number in range(50, 250):
        hand_in(named(number), given)
    assert [len(cache) for cache in caches] == before


def test_a_multipart_of_1000_parts_is_repaired_part_by_part() -> None:
    taken = accepted(MIXED + b"--b\r\n\r\nGr\xfc\xdfe\r\n" * 1_000, POLICY)
    header, _, parts = taken.job.body.partition(b"\r\n\r\n")
    assert b"Content-Type: multipart/mixed; boundary=b" in header
    assert parts.count(b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n") == 1_000
