"""What sendmail(1) makes of its arguments and of the message on its standard input."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sendmail import message as message_module
from proxy.sendmail.addresses import addresses_in
from proxy.sendmail.letter import Letter, LetterError, pack, unpack
from proxy.sendmail.message import Message, TooLargeError, read_message
from proxy.sendmail.options import UsageError, read_options
from proxy.sendmail.where import drop_folder

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


# The message


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


# The letter


@given(
    st.text(alphabet="ab@.é<>\udcff"),
    st.lists(st.text(alphabet="ab@. é", min_size=1), min_size=1, unique=True),
    st.binary(),
    st.booleans(),
)
def test_a_letter_comes_out_as_it_went_in(
    sender: str, recipients: list[str], octets: bytes, never: bool
) -> None:
    found = unpack(pack(Letter(sender, recipients, octets, never_notify=never)))
    assert (found.sender, found.recipients, found.message, found.never_notify) == (
        sender,
        recipients,
        octets,
        never,
    )


@given(st.binary())
def test_what_is_no_letter_is_known_as_such(octets: bytes) -> None:
    with pytest.raises(LetterError):
        unpack(octets)


@given(st.data())
def test_a_letter_that_was_cut_or_grown_is_none(data: st.DataObject) -> None:
    octets = pack(Letter("a@b", ["c@d"], b"Subject: x\r\n\r\ntext\r\n"))
    cut = data.draw(st.integers(0, len(octets) - 1))
    with pytest.raises(LetterError):
        unpack(octets[:cut])
    with pytest.raises(LetterError):
        unpack(octets + b"x")


@pytest.mark.parametrize(
    "head",
    [
        b"from a\nfrom b\nto c\noctets 0\n\n",
        b"to c\noctets 0\n\n",
        b"from a\noctets 0\n\n",
        b"from a\nto \noctets 0\n\n",
        b"from a\nto c\nto d\x01\noctets 0\n\n",
        b"from a\r\nto c\noctets 0\n\n",
        b"from a\nto c\noctets 00\n\n",
        b"from a\nto c\nwhatever\noctets 0\n\n",
        b"from a\nto c\n\n",
    ],
)
def test_a_head_that_somebody_else_wrote_is_none(head: bytes) -> None:
    with pytest.raises(LetterError):
        unpack(b"franker drop 1\n" + head)


# The folder


def test_the_folder_comes_from_the_environment_first(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "franker.toml"
    config.write_text('[drop]\nfolder = "/in/the/file"\n')
    environ = {"FRANKER_CONFIG": str(config)}
    assert drop_folder(environ) == "/in/the/file"
    assert drop_folder({**environ, "FRANKER_DROP__FOLDER": "/said"}) == "/said"


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("", "/var/spool/franker/drop"),
        ('data_dir = "/var/lib/franker"\n', "/var/spool/franker/drop"),
        ('data_dir = "/srv/mail"\n', "/srv/mail/drop"),
        ('data_dir = "/srv/mail"\n[drop]\nfolder = "/x"\n', "/x"),
        ('[drop]\nfolder = ""\n', "/var/spool/franker/drop"),
        ("# [drop]\n# folder = '/x'\n", "/var/spool/franker/drop"),
        ("data_dir = not TOML", "/var/spool/franker/drop"),
        ("data_dir = 5\n[drop]\nfolder = 7\n", "/var/spool/franker/drop"),
    ],
)
def test_the_folder_is_what_the_configuration_says(tmp_path, text: str, folder: str) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "franker.toml"
    config.write_text(text)
    assert drop_folder({"FRANKER_CONFIG": str(config)}) == folder


def test_without_a_configuration_the_folder_is_the_default() -> None:
    assert drop_folder({"FRANKER_CONFIG": "/nowhere/at/all"}) == "/var/spool/franker/drop"
    assert drop_folder({"FRANKER_CONFIG": "/nowhere", "FRANKER_DATA_DIR": "/x"}) == "/x/drop"
