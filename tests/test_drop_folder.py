"""The drop folder: everybody may write there, and nobody can make its reader do harm."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config import load
from proxy.drop import folder as folder_module
from proxy.drop.folder import DropFolder, Dropped, NoLetterError, drop_folder
from proxy.sendmail import drop
from proxy.sendmail.letter import Letter, pack
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_for

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of two users need root")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for one test that other users can reach, too."""
    folder = new_data_dir()
    folder.chmod(0o755)
    yield folder
    remove_data_dir(folder)


@pytest.fixture
def folder(place: Path) -> DropFolder:
    made = DropFolder(place / "drop")
    assert made.prepare() == ""
    return made


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


def refusal(folder: DropFolder, name: str) -> str:
    with pytest.raises(NoLetterError) as told:
        folder.read(name)
    return str(told.value)


def names(folder: DropFolder) -> list[str]:
    return [found.once for found in folder.look().letters]


# The folder itself


def test_everybody_may_put_files_in_and_nobody_sees_them(folder: DropFolder) -> None:
    mode = stat.S_IMODE(folder.path.stat().st_mode)
    assert mode & 0o1777 == 0o1733


def test_a_folder_of_another_mode_is_mended(place: Path) -> None:
    (place / "drop").mkdir(mode=0o700)
    assert DropFolder(place / "drop").prepare() == ""
    assert stat.S_IMODE((place / "drop").stat().st_mode) & 0o1777 == 0o1733


def test_a_link_in_its_place_is_refused(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "drop").symlink_to(place / "elsewhere")
    assert str(place / "drop") in DropFolder(place / "drop").prepare()
    assert stat.S_IMODE((place / "elsewhere").stat().st_mode) & 0o022 == 0


def test_a_file_in_its_place_is_refused(place: Path) -> None:
    (place / "drop").write_text("x")
    assert DropFolder(place / "drop").prepare()


def test_where_it_is_follows_the_data_folder(place: Path) -> None:
    settings = load(None, {"FRANKER_DATA_DIR": "/var/lib/franker"}, searched=()).settings
    assert drop_folder(settings, Path("/var/lib/franker")) == Path("/var/spool/franker/drop")
    assert drop_folder(settings, place) == place / "drop"
    named = load(None, {"FRANKER_DROP__FOLDER": "/srv/drop"}, searched=()).settings
    assert drop_folder(named, place) == Path("/srv/drop")


def test_where_the_proxy_listens_is_read_by_everybody(folder: DropFolder) -> None:
    folder.say_listening(["127.0.0.1:2525", "unix:/x"])
    folder.say_listening(["127.0.0.1:25"])
    assert drop.listening(str(folder.path)) == ["127.0.0.1:25", ""]
    assert stat.S_IMODE((folder.path / drop.LISTENING).stat().st_mode) == 0o644
    assert names(folder) == []


@needs_root
def test_where_somebody_else_says_that_it_listens_is_not_believed(folder: DropFolder) -> None:
    lie = folder.path / drop.LISTENING
    lie.write_text("127.0.0.1:6666\n")
    os.chown(lie, NOBODY, -1)
    assert drop.listening(str(folder.path)) == []


def test_a_link_that_says_where_it_listens_is_not_followed(folder: DropFolder, place: Path) -> None:
    (place / "lie").write_text("127.0.0.1:6666\n")
    (folder.path / drop.LISTENING).symlink_to(place / "lie")
    assert drop.listening(str(folder.path)) == []
    folder.say_listening(["127.0.0.1:25"])
    assert (place / "lie").read_text() == "127.0.0.1:6666\n"


def test_a_folder_in_the_place_of_what_it_says_goes_aside(folder: DropFolder) -> None:
    (folder.path / drop.LISTENING / "full").mkdir(parents=True)
    folder.say_listening(["127.0.0.1:25"])
    assert drop.listening(str(folder.path)) == ["127.0.0.1:25", ""]
    assert len(list(folder.path.iterdir())) == 2


# A letter's way


def test_a_letter_is_found_read_and_removed(folder: DropFolder) -> None:
    path = put(folder, 1)
    [found] = folder.look().letters
    assert (found.once, found.uid) == (once(1), os.getuid())
    dropped = folder.read(found.once)
    assert dropped.letter.recipients == ["you@example.net"]
    assert abs(dropped.came - path.stat().st_ctime) < 1
    folder.remove(dropped)
    assert not path.exists()
    assert folder.look().waiting == 0


@needs_root
def test_it_is_its_files_owners(folder: DropFolder) -> None:
    put(folder, 1, uid=NOBODY)
    assert folder.read(once(1)).uid == NOBODY


def test_its_file_is_for_owner_and_reader_only(folder: DropFolder) -> None:
    path = put(folder, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_gid == folder.path.stat().st_gid


def test_without_the_setgid_bit_its_reader_can_read_it_all_the_same(folder: DropFolder) -> None:
    folder.path.chmod(0o1733)
    assert stat.S_IMODE(put(folder, 1).stat().st_mode) == 0o644


def test_a_umask_takes_nothing_from_the_reader(folder: DropFolder) -> None:
    before = os.umask(0o077)
    try:
        path = put(folder, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_name_that_is_taken_is_not_written_over(folder: DropFolder) -> None:
    put(folder, 1)
    (folder.path / (drop.UNFINISHED + once(2))).symlink_to("/nowhere")
    with pytest.raises(FileExistsError):
        drop.put(str(folder.path), once(2), b"x")
    assert not (folder.path / once(2)).exists()


def test_what_could_not_be_written_leaves_nothing(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drop.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        put(folder, 1)
    assert list(folder.path.iterdir()) == []


def test_what_somebody_is_writing_is_not_read(folder: DropFolder) -> None:
    (folder.path / (drop.UNFINISHED + once(1))).write_bytes(a_letter())
    look = folder.look()
    assert (look.letters, look.waiting, look.troubles) == ((), 0, ())
    assert len(list(folder.path.iterdir())) == 1


def test_what_nobody_will_ever_end_is_removed(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / (drop.UNFINISHED + once(1))).write_bytes(b"x")
    monkeypatch.setattr(folder_module, "UNFINISHED_S", -1.0)
    folder.look()
    assert list(folder.path.iterdir()) == []


def test_the_oldest_of_a_user_come_first(folder: DropFolder) -> None:
    clock = folder.path / ".listening"
    for number in (9, 3, 7):
        before = put(folder, number).stat().st_ctime_ns
        wait_for(lambda then=before: clock.touch() or clock.stat().st_ctime_ns > then)
    assert names(folder) == [once(9), once(3), once(7)]


@needs_root
def test_the_many_of_one_user_do_not_keep_another_waiting(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "OF_ONE_USER", 5)
    for number in range(20):
        put(folder, number)
    for number in (100, 101):
        put(folder, number, uid=NOBODY)
    look = folder.look()
    assert [found.uid for found in look.letters] == [0, NOBODY, 0, NOBODY, 0, 0, 0]
    assert len(look.letters) == 7
    assert look.waiting == 22


# Whoever means harm


def test_a_symbolic_link_is_not_followed(folder: DropFolder, place: Path) -> None:
    (place / "secret").write_bytes(a_letter(b"secret\r\n"))
    (folder.path / once(1)).symlink_to(place / "secret")
    look = folder.look()
    assert (look.letters, look.troubles) == ((), (f"{once(1)}: it is a symbolic link",))
    assert "symbolic link" in refusal(folder, once(1))
    assert (place / "secret").exists()


def test_a_file_with_a_second_name_is_left_alone(folder: DropFolder, place: Path) -> None:
    (place / "secret").write_bytes(a_letter(b"secret\r\n"))
    os.link(place / "secret", folder.path / once(1))
    assert "hard links" in folder.look().troubles[0]
    assert "hard links" in refusal(folder, once(1))
    assert (place / "secret").exists()


@pytest.mark.timeout(10)
def test_a_fifo_is_not_waited_for(folder: DropFolder) -> None:
    os.mkfifo(folder.path / once(1))
    assert "a FIFO" in folder.look().troubles[0]
    assert "a FIFO" in refusal(folder, once(1))


def test_a_socket_and_a_folder_are_left_alone(folder: DropFolder) -> None:
    (folder.path / once(1)).mkdir()
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(folder.path / once(2)))
        troubles = sorted(folder.look().troubles)
    assert [text.partition(": ")[2] for text in troubles] == ["it is a folder", "it is a socket"]
    assert refusal(folder, once(1))
    assert refusal(folder, once(2))


def test_a_huge_file_is_not_read(folder: DropFolder) -> None:
    with (folder.path / once(1)).open("wb") as file:
        file.truncate(10 << 40)
    assert "larger than" in folder.look().troubles[0]
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

    monkeypatch.setattr(folder_module.os, "read", meanwhile)
    assert refusal(folder, once(1)) == "it changes while it is read"


def test_what_was_put_in_a_letters_place_while_it_was_kept_is_not_removed(
    folder: DropFolder,
) -> None:
    put(folder, 1)
    dropped = folder.read(once(1))
    other = put(folder, 2)
    other.rename(folder.path / once(1))
    folder.remove(dropped)
    assert (folder.path / once(1)).exists()


def test_a_file_that_is_gone_is_nothing_to_speak_of(folder: DropFolder) -> None:
    assert refusal(folder, once(1)) == ""
    put(folder, 2)
    dropped = folder.read(once(2))
    (folder.path / once(2)).unlink()
    folder.remove(dropped)


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

    monkeypatch.setattr(folder_module.os, "open", meanwhile)
    with pytest.raises(NoLetterError):
        folder.read(once(1))


@pytest.mark.timeout(30)
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
    read: list[Dropped] = []
    try:
        for _ in range(20_000):
            try:
                read.append(folder.read(once(1)))
            except NoLetterError:
                continue
            if len(read) > 100:
                break
    finally:
        ending.set()
        swapping.join()
    assert read
    assert all(b"mine" in one.letter.message for one in read)
