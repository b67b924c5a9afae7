"""Everybody may write to the drop folder, and nobody can make its reader do harm."""

import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from proxy.drop import look as look_module
from proxy.drop.file import Dropped
from proxy.drop.folder import DropFolder
from proxy.sendmail import drop
from tests.drop.letters import a_letter, names, once, put, read, refusal


def test_a_symbolic_link_is_not_followed(folder: DropFolder, place: Path) -> None:
    (place / "secret").write_bytes(a_letter(b"secret\r\n"))
    (folder.path / once(1)).symlink_to(place / "secret")
    look = folder.look()
    assert (look.letters, look.troubles) == ((), {once(1): "it is a symbolic link"})
    assert "symbolic link" in refusal(folder, once(1))
    assert (place / "secret").exists()


def test_a_file_with_a_second_name_is_left_alone(folder: DropFolder, place: Path) -> None:
    (place / "secret").write_bytes(a_letter(b"secret\r\n"))
    os.link(place / "secret", folder.path / once(1))
    assert "hard links" in folder.look().troubles[once(1)]
    assert "hard links" in refusal(folder, once(1))
    assert (place / "secret").exists()


@pytest.mark.timeout(10)
def test_a_fifo_is_not_waited_for(folder: DropFolder) -> None:
    os.mkfifo(folder.path / once(1))
    assert "a FIFO" in folder.look().troubles[once(1)]
    assert "a FIFO" in refusal(folder, once(1))


def test_a_socket_and_a_folder_are_left_alone(folder: DropFolder) -> None:
    (folder.path / once(1)).mkdir()
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(folder.path / once(2)))
        troubles = folder.look().troubles
    assert troubles == {once(1): "it is a folder", once(2): "it is a socket"}
    assert refusal(folder, once(1))
    assert refusal(folder, once(2))


def test_a_huge_file_is_not_read(folder: DropFolder) -> None:
    with (folder.path / once(1)).open("wb") as file:
        file.truncate(10 << 40)
    assert "larger than" in folder.look().troubles[once(1)]
    assert "larger than" in refusal(folder, once(1))


def test_names_that_sendmail_does_not_give_are_left_alone(folder: DropFolder) -> None:
    bad = ["\x1b[2J\n", "x" * 200, once(1) + "\n", once(1).upper().replace("0", "A"), "mail"]
    for name in bad:
        (folder.path / name).write_bytes(a_letter())
    look = folder.look()
    assert look.letters == ()
    assert len(look.troubles) == len(bad)
    assert len(list(folder.path.iterdir())) == len(bad)


def test_rubbish_is_named_a_few_at_a_time(folder: DropFolder) -> None:
    for number in range(100):
        (folder.path / f"rubbish{number}").touch()
    put(folder, 1)
    look = folder.look()
    assert len(look.troubles) == 20
    assert len(look.letters) == 1


def test_a_file_that_is_no_letter_is_left_alone(folder: DropFolder) -> None:
    for number, octets in enumerate((b"", b"x" * 5000, a_letter()[:-1], a_letter() + b"x")):
        put(folder, number, octets)
        assert refusal(folder, once(number))
    assert len(list(folder.path.iterdir())) == 4


def test_a_file_that_changes_while_it_is_read_is_left_alone(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, 1)
    read = os.read

    def meanwhile(file: int, count: int) -> bytes:
        with path.open("ab") as grown:
            grown.write(b"x")
        return read(file, count)

    monkeypatch.setattr(os, "read", meanwhile)
    assert refusal(folder, once(1)) == "it changes while it is read"


def test_what_was_put_in_a_letters_place_while_it_was_kept_is_not_removed(
    folder: DropFolder,
) -> None:
    put(folder, 1)
    dropped = read(folder, once(1))
    other = put(folder, 2)
    other.rename(folder.path / once(1))
    folder.remove([dropped])
    assert (folder.path / once(1)).exists()


def test_a_file_that_is_gone_is_nothing_to_speak_of(folder: DropFolder) -> None:
    assert refusal(folder, once(1)) == ""
    put(folder, 2)
    dropped = read(folder, once(2))
    (folder.path / once(2)).unlink()
    folder.remove([dropped])


@pytest.mark.parametrize("instead", [True, False])
def test_a_second_name_taken_away_after_it_was_opened_gives_nothing(
    folder: DropFolder, place: Path, monkeypatch: pytest.MonkeyPatch, *, instead: bool
) -> None:
    secret = place / "secret"
    secret.write_bytes(a_letter(b"secret\r\n"))
    os.link(secret, folder.path / once(1))
    really_open = os.open

    def meanwhile(path: str, *arguments: int, **more: int) -> int:
        file = really_open(path, *arguments, **more)
        if path == once(1):
            (folder.path / once(1)).unlink()
            if instead:
                put(folder, 1)
        return file

    monkeypatch.setattr(os, "open", meanwhile)
    refusal(folder, once(1))


def test_files_swapped_again_and_again_never_give_what_is_elsewhere(
    folder: DropFolder, place: Path
) -> None:
    (place / "secret").write_bytes(a_letter(b"secret\r\n"))
    ending = threading.Event()

    def swap() -> None:
        number = 0
        target = folder.path / once(1)
        while not ending.is_set():
            number += 1
            new = folder.path / f"swap{number}"
            if number % 3 == 0:
                new.symlink_to(place / "secret")
            elif number % 3 == 1:
                os.link(place / "secret", new)
            else:
                new.write_bytes(a_letter(b"mine\r\n"))
            new.rename(target)
            if number % 3 == 2:
                ending.wait(0.001)  # long enough to be read now and then

    swapping = threading.Thread(target=swap)
    swapping.start()
    found: list[Dropped] = []
    try:
        for _ in range(20_000):
            found += folder.read([once(1)])[0]
            if len(found) > 100:
                break
    finally:
        ending.set()
        swapping.join()
    assert found
    assert all(b"mine" in one.letter.message for one in found)


def test_no_file_ends_a_look(folder: DropFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has mounted on a folder of his cannot even be looked at."""
    (folder.path / once(1)).mkdir()
    put(folder, 2)
    really_stat = os.stat

    def refusing(path: str, **more: Any) -> os.stat_result:
        if path == once(1):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_stat(path, **more)

    monkeypatch.setattr(os, "stat", refusing)
    assert names(folder) == [once(2)]
    assert folder.look().troubles == {once(1): "Permission denied"}


def test_a_folder_put_in_a_letters_place_as_it_is_removed_is_left(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, 1)
    dropped = read(folder, once(1))
    really_unlink = os.unlink

    def meanwhile(path: str, **more: int) -> None:
        (folder.path / once(1)).rename(folder.path / once(2))
        (folder.path / once(1)).mkdir()
        really_unlink(path, **more)

    monkeypatch.setattr(os, "unlink", meanwhile)
    folder.remove([dropped])
    assert (folder.path / once(1)).is_dir()


def test_a_look_remembers_no_more_of_a_user_than_he_gets_and_his_oldest(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "OF_ONE_USER", 5)
    monkeypatch.setattr(look_module, "_MOST_HELD", 10)
    held: list[int] = []
    really = look_module._keep_oldest

    def keep_oldest(letters: list[tuple[int, look_module.Found]]) -> None:
        held.append(len(letters))
        really(letters)

    monkeypatch.setattr(look_module, "_keep_oldest", keep_oldest)
    came = {once(number): put(folder, number).stat().st_ctime_ns for number in range(40)}
    look = folder.look()
    assert max(held) == 11
    assert look.waiting == 40
    taken = sorted(came.pop(found.once) for found in look.letters)
    assert len(taken) == 5
    assert taken[-1] <= min(came.values())


def test_what_is_passed_over_is_forgotten_when_it_is_gone(folder: DropFolder) -> None:
    for number in (1, 2):
        put(folder, number, b"rubbish")
    assert folder.look(frozenset({once(1), once(3)})).passed == {once(1)}


def test_a_second_name_of_a_file_of_ours_is_not_believed_where_we_listen(
    folder: DropFolder, place: Path
) -> None:
    (place / "ours").write_text("127.0.0.1:6666\n")
    os.link(place / "ours", folder.path / drop.LISTENING)
    assert drop.listening(str(folder.path)) == []
