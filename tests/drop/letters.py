"""Letters for tests of the drop folder."""

import os
from pathlib import Path

import pytest

from proxy.drop.file import Dropped
from proxy.drop.folder import DropFolder
from proxy.sendmail import drop
from proxy.sendmail.letter import Letter, pack

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of two users need root")


def a_letter(text: bytes = b"text\r\n") -> bytes:
    return pack(Letter("app@example.com", ["you@example.net"], b"Subject: x\r\n\r\n" + text))


def once(number: int) -> str:
    return f"{number:032x}"


def put(folder: DropFolder, number: int, octets: bytes | None = None, uid: int = 0) -> Path:
    """Put a letter there as sendmail does; `uid` other than 0 makes it that user's."""
    drop.put(str(folder.path), once(number), a_letter() if octets is None else octets)
    path = folder.path / once(number)
    if uid:
        os.chown(path, uid, -1)
    return path


def read(folder: DropFolder, name: str) -> Dropped:
    """Return the letter; fail when it is none."""
    letters, troubles = folder.read([name])
    assert troubles == {}
    [letter] = letters
    return letter


def refusal(folder: DropFolder, name: str) -> str:
    """Return why it is no letter, "" when it is gone; fail when it is one."""
    letters, troubles = folder.read([name])
    assert letters == []
    return troubles.get(name, "")


def names(folder: DropFolder) -> list[str]:
    return [found.once for found in folder.look().letters]


def a_letter_to(to: str) -> bytes:
    text = f"From: app@example.com\r\nTo: {to}\r\nSubject: x\r\n\r\ntext\r\n"
    return pack(Letter("app@example.com", [to], text.encode()))


def leave(folder: Path, number: int, to: str, uid: int = 0) -> Path:
    """Leave a letter of that user there, without waiting for the disk; return its path."""
    new = folder / f"new-{number}"
    new.write_bytes(a_letter_to(to))
    os.chown(new, uid, -1)
    return new.rename(folder / once(number))
