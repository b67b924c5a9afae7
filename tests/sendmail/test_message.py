"""What sendmail(1) makes of the message on its standard input."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sendmail import message as message_module
from proxy.sendmail.message import Message, TooLargeError, read_message


def chunks(*pieces: bytes) -> Callable[[], bytes]:
    left: Iterator[bytes] = iter(pieces)
    return lambda: next(left, b"")


@pytest.mark.parametrize(
    ("came", "read"),
    [
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\nb", b"a\r\nb\r\n"),
        (b"a\n.\nb\n", b"a\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n"),
        (b"a\n.", b"a\r\n"),
        (b".\nb\n", b""),
        (b".", b""),
        (b"", b""),
        (b"a\n..\n.b\n", b"a\r\n..\r\n.b\r\n"),
        (b"a\rb\n", b"a\rb\r\n"),
    ],
)
def test_the_message_ends_at_a_dot_and_its_lines_with_crlf(came: bytes, read: bytes) -> None:
    assert read_message(chunks(came), dot_ends=True) == read


@given(st.binary(max_size=20), st.integers(1, 4))
def test_the_dot_is_found_however_the_message_is_cut(tail: bytes, width: int) -> None:
    came = b"head\n.\n" + tail
    cut = [came[at : at + width] for at in range(0, len(came), width)]
    assert read_message(chunks(*cut), dot_ends=True) == b"head\r\n"


def test_nothing_is_read_after_the_dot() -> None:
    def read() -> bytes:
        assert pieces, "it went on reading"
        return pieces.pop(0)

    pieces = [b"a\n", b".\n"]
    assert read_message(read, dot_ends=True) == b"a\r\n"


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=8))
def test_without_the_dot_everything_belongs_to_the_message(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    read = read_message(chunks(*pieces), dot_ends=False)
    plain = whole.replace(b"\r\n", b"\n")
    assert read.replace(b"\r\n", b"\n") in (plain, plain + b"\n")


def test_a_message_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_module, "LARGEST", 100)
    with pytest.raises(TooLargeError):
        read_message(lambda: b"a" * 10, dot_ends=True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_message_is_as_large_as_it_is_with_crlf(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(message_module, "LARGEST", 90)
    assert len(read_message(chunks((b"a" + end) * 30), dot_ends=False)) == 90
    with pytest.raises(TooLargeError):
        read_message(chunks((b"a" + end) * 30 + b"a"), dot_ends=False)


def test_recipients_come_from_to_cc_and_bcc_and_bcc_is_taken_out() -> None:
    message = Message(b"to: a@b\r\nCC: c@d,\r\n e@f\r\nBcc: g@h\r\nX: i@j\r\n\r\nTo: k@l\r\n")
    assert message.recipients() == ["a@b", "c@d", "e@f", "g@h"]
    message.take_out_blind()
    assert message.octets() == b"to: a@b\r\nCC: c@d,\r\n e@f\r\nX: i@j\r\n\r\nTo: k@l\r\n"


def test_of_a_message_that_is_sent_on_only_the_resent_fields_count() -> None:
    message = Message(b"To: a@b\r\nResent-To: c@d\r\nResent-Bcc: e@f\r\n\r\nx\r\n")
    assert message.recipients() == ["c@d", "e@f"]
    message.take_out_blind()
    assert b"e@f" not in message.octets()


@pytest.mark.parametrize(
    ("octets", "whole"),
    [
        (b"no field\r\nTo: a@b\r\n", b"\r\nno field\r\nTo: a@b\r\n"),
        (b"To: a@b\r\n", b"To: a@b\r\n\r\n"),
        (b"From x Mon\r\n>From y\r\nTo: a@b\r\n\r\nx\r\n", b"To: a@b\r\n\r\nx\r\n"),
        (b"", b"\r\n"),
        (b"A: b\r\nno field\r\nBcc: c@d\r\n\r\n", b"A: b\r\nno field\r\nBcc: c@d\r\n\r\n"),
    ],
)
def test_a_header_ends_before_what_is_no_field(octets: bytes, whole: bytes) -> None:
    assert Message(octets).octets() == whole


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", b"From: me\r\n"),
        ("Ann Other", b"From: Ann Other <me>\r\n"),
        ("Other, Ann", b'From: "Other, Ann" <me>\r\n'),
        ('a"\\b', b'From: "a\\"\\\\b" <me>\r\n'),
        ("a\r\nBcc: x@y", b'From: "a  Bcc: x@y" <me>\r\n'),
        ("Jürgen", b"From: J\xc3\xbcrgen <me>\r\n"),
        ("L\udcf6we", b'From: "L\xf6we" <me>\r\n'),
    ],
)
def test_a_missing_from_is_made_of_name_and_address(name: str, line: bytes) -> None:
    message = Message(b"Subject: x\r\n\r\n")
    assert b"from" not in message
    message.put_from(name, "me")
    assert message.octets() == line + b"Subject: x\r\n\r\n"
