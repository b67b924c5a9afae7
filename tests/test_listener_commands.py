"""What MAIL and RCPT are understood to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.listener.commands import declared_size, parse_path
from proxy.listener.replies import reply, too_large, words

PATHS = [
    ("FROM:<a@example.com>", "a@example.com"),
    ("from:<a@example.com>", "a@example.com"),
    ("FROM: <a@example.com>", "a@example.com"),
    ("FROM :<a@example.com>", "a@example.com"),
    ("FROM:   <a@example.com>", "a@example.com"),
    ("FROM <a@example.com>", "a@example.com"),
    ("FROM:a@example.com", "a@example.com"),
    ("FROM: a@example.com", "a@example.com"),
    ("FROM:< a@example.com >", "a@example.com"),
    ("FROM:<>", ""),
    ("FROM: <>", ""),
    ("FROM:<@relay.example,@other.example:a@example.com>", "a@example.com"),
    ("FROM:@relay.example:a@example.com", "a@example.com"),
    ("FROM:App Server <a@example.com>", "a@example.com"),
    ('FROM:"Server, App" <a@example.com>', "a@example.com"),
    ("FROM:root", "root"),
    ("FROM:<root>", "root"),
    ('FROM:<"a b"@example.com>', '"a b"@example.com'),
    ('FROM:<"a>b"@example.com>', '"a>b"@example.com'),
    ('FROM:"a b"@example.com', '"a b"@example.com'),
    ("FROM:<a+b=c@example.com>", "a+b=c@example.com"),
    ("FROM:<é@bücher.example>", "é@bücher.example"),
    ("FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]"),
]


@pytest.mark.parametrize(("argument", "address"), PATHS)
def test_an_address_is_found_however_it_is_written(argument: str, address: str) -> None:
    path = parse_path("FROM", argument)
    assert path is not None
    assert path.address == address
    assert path.parameters == {}


@pytest.mark.parametrize(("argument", "address"), PATHS)
def test_parameters_are_found_behind_any_form(argument: str, address: str) -> None:
    path = parse_path("FROM", argument + "  size=100 BODY=8BITMIME SMTPUTF8 AUTH=<>")
    assert path is not None
    assert path.address == address
    assert path.parameters == {"SIZE": "100", "BODY": "8BITMIME", "SMTPUTF8": "", "AUTH": "<>"}


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "FROM",
        "FROM:",
        "FROM: ",
        "TO:<a@example.com>",
        "<a@example.com>",
        "a@example.com",
        "FROM:<a@example.com",
        "FROM:a@example.com>",
        "FROM:<a@example.com> =5",
        "FROM:<a@example.com> S!ZE=5",
        "FROM:<a\x07@example.com>",
        "FROM:<" + "a" * 600 + "@example.com>",
    ],
)
def test_what_names_no_address_is_not_understood(argument: str) -> None:
    assert parse_path("FROM", argument) is None


@given(st.text(max_size=80), st.sampled_from(["FROM", "TO"]))
def test_no_argument_makes_the_parser_fail(argument: str, keyword: str) -> None:
    path = parse_path(keyword, f"{keyword}:{argument}")
    if path is not None:
        assert not any(ord(letter) < 32 for letter in path.address)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ['"', "<", '"a', "\\", "a ", "@", "<a", '"\\', "=", "a=b "])
def test_no_argument_takes_long(unit: str) -> None:
    parse_path("FROM", "FROM:" + unit * 8000)
    parse_path("FROM", "FROM:<" + unit * 8000)
    parse_path("FROM", "FROM:<a@example.com> " + unit * 8000)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("5120", 5120), ("9" * 20, int("9" * 20))],
)
def test_a_declared_size_is_a_number(text: str, size: int) -> None:
    assert declared_size({"SIZE": text}) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e6", "ten", "9" * 21, "²"])
def test_what_is_no_number_is_no_size(text: str) -> None:
    assert declared_size({"SIZE": text}) is None


def test_no_declared_size_is_nothing() -> None:
    assert declared_size({}) == 0


def test_a_reply_has_code_enhanced_code_and_text() -> None:
    assert reply(550, "5.1.1", "No") == b"550 5.1.1 No\r\n"


def test_no_text_can_end_a_reply_line_or_leave_ascii() -> None:
    answer = reply(550, "5.1.1", "é\r\n250 2.0.0 Ok\x00\x1b[2J")
    assert answer == b"550 5.1.1 \\xe9??250 2.0.0 Ok??[2J\r\n"


def test_a_long_text_becomes_lines_of_at_most_512_octets() -> None:
    answer = reply(550, "5.1.1", "word " * 300 + "x" * 1200)
    lines = answer.split(b"\r\n")[:-1]
    assert len(lines) > 4
    assert all(line.startswith(b"550-5.1.1 ") for line in lines[:-1])
    assert lines[-1].startswith(b"550 5.1.1 ")
    assert all(len(line) <= 510 for line in lines)
    assert words(answer).count("word") == 300


def test_the_answer_to_a_large_message_names_both_sizes_and_the_key() -> None:
    text = too_large(12_000_000, 10_000_000).decode()
    assert text == (
        "552 5.3.4 Message of 12000000 octets is over the limit of 10000000 octets "
        "(listen.max_message_size)\r\n"
    )
