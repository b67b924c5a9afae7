"""The form in which a message lies in the drop folder, and where that folder is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sendmail.drop import is_letter
from proxy.sendmail.letter import Letter, LetterError, pack, unpack
from proxy.sendmail.where import drop_folder


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


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("0123456789abcdef" * 2, True),
        ("0123456789abcdef" * 2 + "\n", False),
        ("0123456789ABCDEF" * 2, False),
        ("0" * 31, False),
        ("0" * 33, False),
        ("٠" * 32, False),
        (".listening", False),
        (".listening.abc", False),
        ("new-" + "0" * 32, False),
        ("new-" + "0" * 28, False),
        ("", False),
    ],
)
def test_a_letters_name_is_32_hexadecimal_digits(name: str, *, is_one: bool) -> None:
    assert is_letter(name) == is_one
