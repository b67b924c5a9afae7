"""Line ends, the end of data, fields, addresses, words: the readers that look at octets alone."""

import contextlib
import re

from proxy.listener.commands import declared_size, parse_path
from proxy.listener.content import Content
from proxy.mail.address import AddressError, is_bare_name, normal_address, parse_mailboxes
from proxy.mail.content_type import ContentType
from proxy.mail.fields import Header, parse, unfolded
from proxy.mail.lines import LONGEST, canonical_lines, has_long_line
from proxy.mail.local import parse_aliases
from proxy.mail.raw import encode_field, repair_fields
from proxy.mail.words import decode_words, encode_mailbox, encode_text, fold, one_line
from tests.fuzz.target import Choices, Target
from tests.support.end_of_data import by_lines, undotted
from worker.smarthost.transaction import dot_stuffed

ENDS = (
    b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0", b".", b"..", b"\r\n.\r\n", b"\n.\n",
    b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\x0b", b"\x0c",
    b"\x85", "\u2028".encode(), b" ", b"\t", b"x", b"MAIL FROM:<a@b>",
)  # fmt: skip

_LENIENT_END = re.compile(rb"(?:\A|\r\n|\r|\n)\.(?:\r\n|\r|\n)")


def check_line_ends(octets: bytes) -> None:
    """One message in is one message out, for the strictest and the laxest reader."""
    canonical, kinds = canonical_lines(octets)
    assert canonical.count(b"\r\n") == canonical.count(b"\n") == canonical.count(b"\r")
    assert b"\0" not in canonical
    assert (canonical == octets) == (not kinds)
    assert canonical_lines(canonical) == (canonical, ())
    assert len(canonical) <= 2 * len(octets) + 2
    assert has_long_line(canonical) == any(len(one) > LONGEST for one in canonical.split(b"\r\n"))
    for content in (canonical, octets):
        wire = dot_stuffed(content)
        assert wire.count(b"\r\n") == wire.count(b"\n") == wire.count(b"\r")
        # Nobody, however lax, finds an end but the one that we write.
        assert _LENIENT_END.search(wire) is None
    back = Content(10**9, crlf=True)
    assert back.feed(dot_stuffed(canonical) + b".\r\nQUIT\r\n")
    assert back.rest == b"QUIT\r\n"
    assert back.take() == canonical


def check_end_of_data(octets: bytes) -> None:
    """The end is where reading octet by octet finds it, however they are cut, and nowhere else."""
    choices = Choices(octets)
    crlf, step, limit = choices.number(2) == 1, 1 + choices.number(9), (10**6, 8)[choices.number(2)]
    octets = choices.rest()
    wanted = by_lines(octets, crlf)
    content = Content(limit, crlf=crlf)
    rest = None
    for at in range(0, len(octets), step):
        if content.feed(octets[at : at + step]):
            rest = content.rest + octets[at + step :]
            break
        assert content.held <= limit + 3 + step
    assert (rest is None) == (wanted is None)
    if wanted is not None:
        assert rest == wanted[1]
        assert content.size == len(wanted[0])
        assert content.whole == (len(wanted[0]) <= limit)
        if content.whole:
            assert content.take() == undotted(wanted[0], content.crlf)


FIELDS = (
    b"From", b"To", b"subject", b": ", b":", b" :", b" ", b"\t", b"\r\n", b"\r\n ", b"\r\n\r\n",
    b"From ", b">From ", b"X-", b"\xfc", b"=?utf-8?q?=0D=0A?=", b"a@b.example", b"<", b">", b'"',
    b"Content-Type", b"text/html; charset=", b"multipart/mixed; boundary=", b"x" * 300, b"\x7f",
    b"name*0*=utf-8''%0D%0A", b"\x1b$B", b"\x1b(B", b";", b"=",
)  # fmt: skip
_NAME = re.compile(rb"[!-9;-~]{1,256}")
_FIELD_LINE = re.compile(rb"[!-9;-~]{1,256}:")
_FOLDED = re.compile(rb"\r\n(?![ \t])|\r(?!\n)|(?<!\r)\n")


def check_fields(octets: bytes) -> None:
    """Fields and body are all there is, no field holds another, and repairs leave ASCII lines."""
    octets, _ = canonical_lines(octets)
    parsed = parse(octets)
    header = Header(parsed.fields)
    if not parsed.complete:
        return
    written = header.octets()
    before = octets[: parsed.body_at]
    if "mbox" in parsed.kinds:
        before = before[before.index(b"\r\n") + 2 :]
    if "blank_line" not in parsed.kinds:
        assert before.endswith(b"\r\n")
        before = before[:-2]
    plain = re.sub(rb"(?m)^([!-9;-~]+)[ \t]+:", rb"\1:", before)
    if "bad_line" in parsed.kinds:
        check_left_out(plain, written)
    else:
        assert plain == written
    check_sound(parsed.fields)
    fields, _ = repair_fields(parsed.fields, before, "windows-1252", strict=False)
    assert [name for name, _ in fields] == [name for name, _ in parsed.fields]
    check_sound(fields)
    repaired = Header(fields).octets()
    assert repaired.isascii()
    assert not has_long_line(repaired)
    again = parse(repaired + b"\r\n")
    assert again.fields == fields
    assert repair_fields(fields, repaired, "windows-1252", strict=False) == (fields, set())
    kind = ContentType(header := Header(fields))
    assert isinstance(kind.boundary + kind.charset, str)
    kind.set_charset("utf-8")
    check_sound([*header])


def check_left_out(before: bytes, written: bytes) -> None:
    """What is missing of a header are whole lines, none of which begins a field that we read."""
    kept = iter(written.splitlines(keepends=True))
    wanted = next(kept, None)
    for line in before.splitlines(keepends=True):
        if line == wanted:
            wanted = next(kept, None)
        else:
            assert not _FIELD_LINE.match(line), line
    assert wanted is None


def check_sound(fields: list[tuple[bytes, bytes]]) -> None:
    """No field's value begins another field or ends the header."""
    for name, value in fields:
        assert _NAME.fullmatch(name), name
        assert _FOLDED.search(value) is None, value


ADDRESSES = (
    b"<", b">", b"@", b".", b",", b";", b":", b'"', b"\\", b"(", b")", b" ", b"\t", b"a", b"root",
    b"a@b.example", b"FROM:", b"TO:", b"[127.0.0.1]", b"\r\n", b"\n", b"\0", b"\x7f",
    "bücher".encode(), "ж".encode(), b"xn--", b"=?utf-8?q?=0D=0A?=", b"SIZE=", b"99999999999",
    b"NOTIFY=NEVER", b"%", b"!", b"\xff", b"|/bin/sh", b"/etc/passwd", b":include:", b"\\\n",
)  # fmt: skip
_ENDS_A_COMMAND = re.compile(r"[^\x20-\x7e]")


def check_addresses(octets: bytes) -> None:
    """No address that is taken can end a command or a field, or hold a parameter of its own."""
    text = octets.decode("utf-8", "surrogateescape")
    for keyword in ("FROM", "TO"):
        path = parse_path(keyword, text)
        if path is not None:
            check_address(path.address)
            assert all(name.isascii() for name in path.parameters)
            declared_size(path.parameters)
    for mailbox in parse_mailboxes(octets.decode("utf-8", "replace")):
        address = check_address(mailbox.address)
        if address:
            written = encode_mailbox(mailbox.name, address)
            assert written.isascii()
            assert re.search(rb"\r\n(?! )|\r(?!\n)|(?<!\r)\n", written) is None
            (back,) = parse_mailboxes(unfolded(written).decode())
            assert back.address == address
            assert decode_words(back.name).split() == one_line(mailbox.name).split()
    for targets in parse_aliases(text).values():
        for target in targets:
            assert is_bare_name(target) or check_address(target)


def check_address(address: str) -> str:
    """Return the address as it goes out, "" when it is none."""
    try:
        taken = normal_address(address)
    except AddressError:
        return ""
    assert _ENDS_A_COMMAND.search(taken) is None
    assert taken == normal_address(taken)
    local, _, domain = taken.rpartition("@")
    assert local
    assert re.fullmatch(r"[A-Za-z0-9_.-]+|\[[A-Za-z0-9:.]+\]", domain)
    # Outside of quotes nothing that has a meaning of its own; inside no quote that ends them.
    inside = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', local)
    assert inside or not set(local) & set('<>"\\ ,;:()[]@')
    return taken


WORDS = (
    b"=?", b"?=", b"?q?", b"?B?", b"utf-8", b"utf-16", b"utf-7", b"iso-2022-jp", b"hz", b"idna",
    b"punycode", b"unicode_escape", b"zlib", b"rot13", b"koi8-r", b"*en", b"=0D=0A", b"=00", b"_",
    b"DQpCY2M6IHg=", b"=?utf-8?q?=0D=0ABcc:_x?=", b" ", b"\r\n ", b"\t", "Ж".encode(), b"\xff",
    b"x" * 90, b"=?x?b?////?=", "\u2028\x85".encode(), b"(", b'"', b"a@b",
)  # fmt: skip


def check_words(octets: bytes) -> None:
    """What is written reads back as what was meant; no text can end its field."""
    text = octets.decode("utf-8", "replace")
    decoded = decode_words(text)
    assert len(decoded) <= 2 * len(text) + 4
    for meant in (text, decoded):
        for name in (b"Subject", b"X-PM-Tag", b"X-" + b"a" * 70):
            value = encode_text(meant, name)
            check_sound([(name, value)])
            assert value.isascii()
            assert not has_long_line(name + b":" + value + b"\r\n")
            line = one_line(meant)
            back = decode_words(unfolded(value).decode("ascii"))
            if value.isascii() and b"=?" in value:
                assert back.split() == line.split()
            else:
                assert back.split(" ") == line.split(" ") or b"\r\n" in value
    if text.isascii():
        line = one_line(text)
        folded = fold(line.encode("ascii"), b"X-Long")
        assert not has_long_line(b"X-Long:" + folded + b"\r\n")
    with contextlib.suppress(AddressError):
        check_sound([(b"To", encode_field(b"to", line_of(text)))])


def line_of(text: str) -> str:
    """Return `text` as a rule may have it: one line."""
    return "".join(letter for letter in text if letter.isprintable())


TARGETS = (
    Target("line-ends", check_line_ends, ENDS, 240),
    Target("end-of-data", check_end_of_data, ENDS, 190),
    Target("fields", check_fields, FIELDS, 100),
    Target("addresses", check_addresses, ADDRESSES, 100),
    Target("words", check_words, WORDS, 15),
)
