"""What sendmail(1) makes of its arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sendmail.addresses import addresses_in
from proxy.sendmail.options import UsageError, read_options

# Addresses


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@b.example", ["a@b.example"]),
        ("a@b.example, c@d.example", ["a@b.example", "c@d.example"]),
        ("Ann Other <a@b.example>", ["a@b.example"]),
        ('"Other, Ann" <a@b.example>, c', ["a@b.example", "c"]),
        ("a@b.example c@d.example", ["a@b.example", "c@d.example"]),
        ("a b@c.example", ["a", "b@c.example"]),
        ("a @ b . example", ["a@b.example"]),
        (
            "team: a@b.example, c@d.example;, e@f.example",
            ["a@b.example", "c@d.example", "e@f.example"],
        ),
        ("undisclosed-recipients:;", []),
        ("a@b.example (Ann (the other) Other)", ["a@b.example"]),
        ("(c) a(x)@b.example", ["a@b.example"]),
        ('"a b"@c.example', ['"a b"@c.example']),
        ('"a, b"@c.example', ['"a, b"@c.example']),
        ('"a\\"<x>"@c.example', ['"a\\"<x>"@c.example']),
        ("<@one.example,@two.example:a@b.example>", ["a@b.example"]),
        ("< a@b.example >", ["a@b.example"]),
        ("root", ["root"]),
        ("\r\n a@b.example,\r\n\tc@d.example", ["a@b.example", "c@d.example"]),
        (",,;", []),
        ("", []),
        ("<>", []),
        ("a\x01b@c.example", ["a?b@c.example"]),
        ("<a@b.example", ["a@b.example"]),
        ('"never ended', ['"never ended']),
        ("(never ended", []),
    ],
)
def test_addresses_are_found_in_a_list(text: str, found: list[str]) -> None:
    assert addresses_in(text) == found


@given(st.text(alphabet='ab@.,;:<>()"\\ \r\n\t\x00é'))
def test_no_text_makes_an_address_that_could_end_a_line(text: str) -> None:
    for address in addresses_in(text):
        assert address
        assert all(letter >= " " and letter != "\x7f" for letter in address)


# Options


def test_several_letters_share_a_dash() -> None:
    options = read_options("sendmail", ["-tioi", "-oem", "-odb", "-o7", "a@b.example"])
    assert options.from_header
    assert not options.dot_ends
    assert options.recipients == ["a@b.example"]


@pytest.mark.parametrize("arguments", [["-i"], ["-oi"], ["-oiX"], ["-ti"], ["-o", "i"]])
def test_a_dot_does_not_end_the_message_with(arguments: list[str]) -> None:
    assert not read_options("sendmail", arguments).dot_ends


@pytest.mark.parametrize("arguments", [["-f", "me"], ["-fme"], ["-r", "me"], ["-rme"], ["-tfme"]])
def test_the_sender_is_named_by(arguments: list[str]) -> None:
    assert read_options("sendmail", arguments).sender == "me"


def test_options_end_at_the_first_recipient() -> None:
    options = read_options("sendmail", ["a@b.example", "-f", "me"])
    assert options.recipients == ["a@b.example", "-f", "me"]
    assert options.sender is None


def test_after_two_dashes_everything_is_a_recipient() -> None:
    assert read_options("sendmail", ["-i", "--", "-x@y.example"]).recipients == ["-x@y.example"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-z"],
        ["-bz"],
        ["-bd"],
        ["-bv"],
        ["-bt"],
        ["-n"],
        ["-f"],
        ["-B", "9BIT"],
        ["-X", "/tmp/log"],
        ["-oA"],
        ["-V"],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        read_options("sendmail", arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-Am"], ["-C", "/etc/x"], ["-G"], ["-h", "5"], ["-L", "tag"], ["-m"], ["-O", "Timeout=1"],
        ["-oA/etc/aliases"], ["-p", "proto"], ["-U"], ["-x"], ["-e", "m"], ["-XV"], ["-c"], ["-s"],
        ["-B", "8BITMIME"], ["-V", "id"], ["-R", "hdrs"], ["-v"], ["-bm"],
    ],
)  # fmt: skip
def test_what_concerns_others_is_taken(arguments: list[str]) -> None:
    options = read_options("sendmail", [*arguments, "a@b.example"])
    assert (options.mode, options.recipients, options.warnings) == ("send", ["a@b.example"], [])


@pytest.mark.parametrize(
    ("name", "arguments", "mode"),
    [
        ("mailq", [], "list"),
        ("newaliases", [], "aliases"),
        ("sendmail", ["-bp"], "list"),
        ("sendmail", ["-bi"], "aliases"),
        ("sendmail", ["-I"], "aliases"),
        ("sendmail", ["-bs"], "smtp"),
        ("sendmail", ["-q"], "nothing"),
        ("sendmail", ["-q30m"], "nothing"),
        ("sendmail", ["-bh"], "nothing"),
        ("franker-sendmail", [], "send"),
        ("mailq", ["-bm"], "send"),
    ],
)
def test_the_mode_comes_from_the_name_and_from_b(
    name: str, arguments: list[str], mode: str
) -> None:
    assert read_options(name, arguments).mode == mode


@pytest.mark.parametrize(
    ("value", "never", "warned"),
    [
        ("never", True, False),
        ("NEVER", True, False),
        ("failure,delay", False, False),
        ("never,failure", False, True),
        ("sometimes", False, True),
    ],
)
def test_only_never_asks_for_silence(value: str, *, never: bool, warned: bool) -> None:
    options = read_options("sendmail", ["-N", value])
    assert options.never_notify is never
    assert bool(options.warnings) is warned
