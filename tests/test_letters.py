"""Dead letters as files: whole or not there, and nobody's words become fields of their own."""

import os
import stat
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mail.fields import parse
from proxy.queue.job import JobEnvelope
from proxy.queue.letters import LetterFileError, as_eml, write_letter

BODY = b"Subject: s\r\n\r\ntext\r\n"
ID = "01m7zzzzzzzzzzzzzzzzzzzzz0-1"


def test_a_letter_tells_its_envelope_and_ends_with_the_message_as_it_was() -> None:
    mail = JobEnvelope(
        "app@example.com",
        ("a@example.net", "b@example.net"),
        1_795_167_781.0,
        rule="payroll",
        owner="team@example.com",
        replies={"a@example.net": "550 5.1.1 Niemand heißt so"},
        replaced={"From": "root (Cron)"},
        client="10.0.0.7",
    )
    eml = as_eml(ID, "outbound", mail, BODY)
    letter = message_from_bytes(eml, policy=policy.default)
    assert eml.endswith(BODY)
    assert {name: letter.get_all(name) for name in letter} == {
        "X-Franker-Id": [ID],
        "X-Franker-Stream": ["outbound"],
        "X-Franker-Accepted": ["2026-11-20T09:43:01Z"],
        "X-Franker-Reverse-Path": ["<>"],
        "X-Franker-Mail-From": ["<app@example.com>"],
        "X-Franker-Recipient": ["<a@example.net>; 550 5.1.1 Niemand heißt so", "<b@example.net>"],
        "X-Franker-Rule": ["payroll"],
        "X-Franker-Owner": ["team@example.com"],
        "X-Franker-Client": ["10.0.0.7"],
        "X-Franker-Replaced": ["From: root (Cron)"],
        "Subject": ["s"],
    }


@given(st.text(max_size=300), st.text(max_size=300), st.floats(-1e15, 1e15))
def test_no_words_of_others_make_a_field_or_end_the_header(
    address: str, reply: str, when: float
) -> None:
    mail = JobEnvelope(address, (address,), when, replies={address: reply}, owner=address or "o")
    parsed = parse(as_eml(ID, "outbound", mail, BODY))
    assert parsed.body == b"text\r\n"
    names = [name.decode() for name, _ in parsed.fields]
    assert names == [
        "X-Franker-Id",
        "X-Franker-Stream",
        "X-Franker-Accepted",
        "X-Franker-Reverse-Path",
        "X-Franker-Mail-From",
        "X-Franker-Recipient",
        "X-Franker-Owner",
        "Subject",
    ]


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    first = write_letter(tmp_path, ID, b"one")
    assert write_letter(tmp_path, ID, b"one") == first
    second = write_letter(tmp_path, ID, b"two")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{ID}.2.eml", f"{ID}.eml"]


def test_a_letter_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, int, list[str]]] = []

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        names = sorted(path.suffix for path in tmp_path.iterdir())
        synced.append((stat.filemode(found.st_mode)[0], found.st_size, names))

    monkeypatch.setattr(os, "fsync", fsync)
    written = write_letter(tmp_path, ID, b"one")
    (kind, size, names), (second, _, after) = synced
    assert (kind, size) == ("-", 3)
    assert ".eml" not in names
    assert (second, after) == ("d", [written.suffix])


def test_letters_are_for_their_owners_eyes_only(tmp_path: Path) -> None:
    path = write_letter(tmp_path / "dead", ID, b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", ".x", "a/b", "a\0b", "x" * 200])
def test_an_id_that_is_not_ours_names_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(LetterFileError):
        write_letter(tmp_path / "dead", name, b"x")
    assert list(tmp_path.iterdir()) == []
