"""The header's scan, line ends, and mailboxes in fields: the readers everything else stands on."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.mail.address import (
    AddressError,
    Mailbox,
    NonASCIIMailboxError,
    normal_address,
    parse_mailboxes,
)
from proxy.mail.fields import LONGEST_HEADER, Header, parse, unfolded
from proxy.mail.lines import canonical_lines, has_long_line, is_canonical
from proxy.mail.words import decode_words, encode_mailbox, encode_text, one_line


def header_of(*fields: tuple[bytes, bytes]) -> Header:
    return Header(list(fields))


def test_a_scan_gives_back_every_octet():
    octets = b"A:1\r\nB: \r\nC: x\r\n\ty\r\n z\r\n\r\nbody\r\n\r\nmore\r\n"
    parsed = parse(octets)
    assert parsed.fields == [(b"A", b"1"), (b"B", b" "), (b"C", b" x\r\n\ty\r\n z")]
    assert Header(parsed.fields).octets() + b"\r\n" + parsed.body == octets
    assert parsed.kinds == ()


@pytest.mark.parametrize(
    ("octets", "names", "body"),
    [
        (b"A: 1\r\n", [b"A"], b""),
        (b"\r\nA: 1\r\n", [], b"A: 1\r\n"),
        (b"A: 1\r\nno field\r\nB: 2\r\n", [b"A"], b"no field\r\nB: 2\r\n"),
        (b" starts with a space\r\nA: 1\r\n", [], b" starts with a space\r\nA: 1\r\n"),
        (b"\xdcber: x\r\n", [], b"\xdcber: x\r\n"),
        (b"A : 1\r\n\r\nx\r\n", [b"A"], b"x\r\n"),
        (b": nothing\r\n", [], b": nothing\r\n"),
        (b"n" * 300 + b": x\r\n", [], b"n" * 300 + b": x\r\n"),
        (b"", [], b""),
    ],
)
def test_the_header_ends_where_fields_end(octets, names, body):
    parsed = parse(octets)
    assert [name for name, _ in parsed.fields] == names
    assert parsed.body == body


@pytest.mark.parametrize(
    ("octets", "names", "kinds"),
    [
        (b"A: 1\r\nX Foo: 5\r\nBcc: x@y\r\n\r\nbody\r\n", [b"A", b"Bcc"], ("bad_line",)),
        (
            b"A: 1\r\njunk\r\nX-A: 2\r\nBcc: x@y\r\n\r\nbody\r\n",
            [b"A", b"X-A", b"Bcc"],
            ("bad_line",),
        ),
        (b"A: 1\r\njunk\r\n more\r\nTo: x@y\r\n\r\nbody\r\n", [b"A", b"To"], ("bad_line",)),
        (b" folded\r\nFrom: a@b\r\nTo: c@d\r\n\r\nbody\r\n", [b"From", b"To"], ("bad_line",)),
        (b"A: 1\r\njunk\r\nTo: x@y\r\nbody\r\n", [b"A", b"To"], ("bad_line", "blank_line")),
    ],
)
def test_a_header_that_clearly_goes_on_is_not_ended_by_a_line_that_is_no_field(
    octets: bytes, names: list[bytes], kinds: tuple[str, ...]
):
    parsed = parse(octets)
    assert [name for name, _ in parsed.fields] == names
    assert parsed.body == b"body\r\n"
    assert parsed.kinds == kinds


@pytest.mark.parametrize(
    "text",
    [
        b"Dear all,\r\nnote: this\r\n",
        b"Dear all,\r\n\r\nBcc: is a field\r\n",
        b"-----Original Message-----\r\nSubject: old\r\n",
        b"junk\r\n" * 11 + b"Bcc: x@y\r\n",
    ],
)
def test_text_without_an_empty_line_before_it_stays_text(text: bytes):
    parsed = parse(b"Subject: new\r\n" + text)
    assert parsed.body == text
    assert parsed.kinds == ("blank_line",)


FILLED = b"From: a@b\r\n" + b"X-Filled: " + b"x" * (LONGEST_HEADER - 25) + b"\r\n"


@pytest.mark.parametrize(
    ("octets", "left"),
    [
        (b"X-Long: " + b"x" * LONGEST_HEADER + b"\r\nBcc: x@y\r\n\r\nbody\r\n", 0),
        (b"x" * LONGEST_HEADER + b"\r\nFrom: a@b\r\nBcc: x@y\r\n\r\nbody\r\n", 0),
        (b"A: 1\r\n" + b"x" * LONGEST_HEADER + b"\r\nBcc: x@y\r\n\r\nbody\r\n", 6),
        (b"x" * (LONGEST_HEADER - 9) + b"\r\nFrom: a@b\r\n\r\nbody\r\n", LONGEST_HEADER - 7),
        (FILLED + b"Junk\r\nX: 2\r\nBcc: x@y\r\n\r\nbody\r\n", len(FILLED)),
        (FILLED + b"Junk\r\n" * 9 + b"Bcc: x@y\r\n\r\nbody\r\n", len(FILLED)),
        (FILLED + b"X: " + b"x" * 99 + b"\r\nBcc: x@y\r\n\r\nbody\r\n", len(FILLED)),
        (FILLED + b"To: " + b"x" * 99 + b"\r\n\r\nbody\r\n", len(FILLED)),
    ],
    ids=range(8),
)
def test_a_header_that_goes_on_further_than_is_looked_is_not_complete(octets: bytes, left: int):
    parsed = parse(octets)
    assert not parsed.complete
    assert parsed.rest == octets[left:]


@pytest.mark.parametrize(
    "text",
    [
        b"x" * LONGEST_HEADER + b"\r\n" + b"Dear all,\r\n",
        b"Dear all,\r\n" + b"note: this\r\n" * 100_000,
        b"Dear all,\r\n" * 100_000,
    ],
    ids=range(3),
)
@pytest.mark.parametrize("header", [b"", b"From: a@b\r\n", FILLED], ids=len)
def test_a_long_text_without_an_empty_line_before_it_stays_text(header: bytes, text: bytes):
    parsed = parse(header + text)
    assert parsed.complete
    assert parsed.body == text


def test_fields_are_found_changed_added_and_removed_without_regard_to_case():
    header = header_of((b"To", b" a"), (b"TO", b" b"), (b"X", b" 1"))
    assert header.first(b"to") == b" a"
    assert header.values(b"to") == [b" a", b" b"]
    assert header.repeated() == [b"to"]
    header.set(b"to", b" c")
    header.set(b"New", b" 2")
    header.put_on_top(b"First", b" 0")
    header.add(b"Last", b" 3")
    assert header.octets() == b"First: 0\r\nTo: c\r\nX: 1\r\nNew: 2\r\nLast: 3\r\n"
    assert header.remove(b"x")
    assert not header.remove(b"x")
    assert b"x" not in header
    assert header.first(b"x") is None


def test_a_folded_value_becomes_one_line():
    assert unfolded(b" a\r\n\tb\r\n  c ") == b"a\tb  c"


@pytest.mark.parametrize("length", [0, 1, 997, 998, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("before", [b"", b"x" * 998 + b"\r\n", b"a\r\n" * 500])
def test_a_line_is_long_from_999_octets_on(length, before):
    octets = before + b"x" * length + b"\r\n" + b"y\r\n" * 3
    assert has_long_line(octets) is (length > 998)


@given(st.lists(st.sampled_from([*b"\r\n\0\t\x0b\x0c\x1c\x85\xffa"])).map(bytes))
@example(b"a\r\n" * 9 + b"\r")
def test_line_ends_are_canonical_where_cr_and_lf_stand_only_together(octets):
    rest = octets.replace(b"\r\n", b"")
    assert is_canonical(octets) is (b"\r" not in rest and b"\n" not in rest)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"a", b"\r\n", b"x" * 998])).map(b"".join))
def test_line_ends_are_canonical_after_one_pass_and_stay_so(octets):
    once, kinds = canonical_lines(octets)
    assert once.count(b"\r\n") == once.count(b"\n") == once.count(b"\r")
    assert b"\0" not in once
    assert canonical_lines(once) == (once, ())
    assert bool(kinds) is (once != octets)
    longest = max(map(len, once.split(b"\r\n")))
    assert has_long_line(once) is (longest > 998)


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        ("a@b.example", [("", "a@b.example")]),
        ("Bob <a@b.c>, \"Doe, J\" <j@x> ,z@q", [("Bob", "a@b.c"), ("Doe, J", "j@x"), ("", "z@q")]),
        ("root (Cron Daemon) <root>", [("root (Cron Daemon)", "root")]),
        ("root (Cron Daemon)", [("Cron Daemon", "root")]),
        ("root", [("", "root")]),
        ("<root>", [("", "root")]),
        ("John Doe j@x.example", [("John Doe", "j@x.example")]),
        ("undisclosed-recipients:;", []),
        ("G: a@b, c@d;, e@f", [("", "a@b"), ("", "c@d"), ("", "e@f")]),
        ("<@h1,@h2:u@x.y>", [("", "u@x.y")]),
        ("a @ b.c", [("", "a@b.c")]),
        ("", []),
        (" , ,", []),
        ("<>", [("", "")]),
        ("x@y; z@q", [("", "x@y"), ("", "z@q")]),
        ('"q \\" x" <"a b"@c>', [('q " x', '"a b"@c')]),
        ("a@b (nested (x) \\) y) , c", [("nested (x) ) y", "a@b"), ("", "c")]),
        ("Cron Daemon", [("Cron Daemon", "")]),
        ("Jörg", [("Jörg", "")]),
        ('"a@b.example" <c@d.example>', [("a@b.example", "c@d.example")]),
        ("a@b.example <c@d.example>", [("a@b.example", "c@d.example")]),
    ],
)  # fmt: skip
def test_mailboxes_are_read_as_people_write_them(value, mailboxes):
    assert parse_mailboxes(value) == [Mailbox(*mailbox) for mailbox in mailboxes]


@settings(deadline=None)
@given(st.text(st.sampled_from('ab@<>,;:()"\\ \té.'), max_size=40))
def test_any_address_field_can_be_read(value):
    for mailbox in parse_mailboxes(value):
        assert "\n" not in mailbox.name + mailbox.address


@pytest.mark.parametrize("piece", ['"\\', "(", " ", "a@b,", "<", '"', "a ", ":", "(a)", "@", "=?"])
def test_no_address_field_takes_long_to_read(piece):
    began = time.process_time()
    parse_mailboxes(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a@b.example", "a@b.example"),
        ('"a b"@c.example', '"a b"@c.example'),
        ("a..b.@docomo.example", "a..b.@docomo.example"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@b.example.", "a@b.example"),
        ("Me@BÜCHER.example", "Me@xn--bcher-kva.example"),
        ("o'neil+tag@x_y.example", "o'neil+tag@x_y.example"),
    ],
)
def test_addresses_that_postmark_can_take(address, expected):
    assert normal_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b",
        "a@",
        "a b@c",
        "a@b c",
        "a@b\r\n",
        "a\0@b",
        "<a@b>",
        "a@b,c@d",
        "a@b..c",
        "a@b>",
    ],
)
def test_what_is_no_address_is_told(address):
    with pytest.raises(AddressError):
        normal_address(address)


def test_a_mailbox_outside_of_ascii_is_told_apart():
    with pytest.raises(NonASCIIMailboxError):
        normal_address("jörg@example.com")


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?K=C3=B6ln?=", "Köln"),
        ("=?ISO-8859-1?Q?K=F6ln?= am =?UTF-8?B?UmhlaW4=?=", "Köln am Rhein"),
        ("=?utf-8?b?w7w=?= =?utf-8?b?w7w=?=", "üü"),
        ("=?utf-8?b?ww==?= =?utf-8?b?vA==?=", "ü"),
        ("=?utf-8?b?w7w=?= =?iso-8859-1?q?=FC?=", "üü"),
        ("=?utf-8*de?q?=C3=BC?=", "ü"),
        ("=?utf-8?b?w7w?=", "ü"),
        ("=?x-nowhere?q?=FC?=", "ü"),
        ("=?idna?q?=FC?=", "ü"),
        ("=?punycode?q?K=F6ln-?=", "Köln-"),
        ("=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
        ("=? =? ?=", "=? =? ?="),
    ],
)
def test_encoded_words_are_decoded_as_far_as_they_can_be(text, decoded):
    assert decode_words(text) == decoded


@given(st.text(max_size=400))
def test_any_text_survives_its_encoding_in_a_field(text):
    text = one_line(text.encode("utf-8", "replace").decode())
    value = encode_text(text, b"Subject")
    assert all(len(line) <= 998 for line in value.split(b"\r\n"))
    assert decode_words(unfolded(value).decode("ascii")) == text


@given(st.text(max_size=200))
def test_any_display_name_survives_its_encoding_in_a_field(text):
    name = " ".join(one_line(text.encode("utf-8", "replace").decode()).split())
    value = encode_mailbox(name, "a@b.example")
    assert value.isascii()
    [mailbox] = parse_mailboxes(unfolded(value).decode("ascii"))
    assert mailbox.address == "a@b.example"
    assert decode_words(mailbox.name) == name


@pytest.mark.parametrize("text", ["日本語の件名" * 30, "x ü" * 90, "a" * 200 + "é" * 50])
def test_every_encoded_word_is_whole_in_itself_and_short(text):
    words = unfolded(encode_text(text, b"Subject")).decode("ascii").split()
    assert max(map(len, words)) <= 75
    assert "".join(decode_words(word) for word in words) == text
