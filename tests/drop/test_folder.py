"""The drop folder: a letter's way in and out of it."""

import os
import stat
from pathlib import Path

import pytest

from proxy.config import load
from proxy.drop import look as look_module
from proxy.drop.folder import DropFolder, drop_folder
from proxy.sendmail import drop, where
from tests.drop.letters import NOBODY, a_letter, names, needs_root, once, put, read
from tests.support.waiting import wait_for

# The folder itself


def test_everybody_may_put_files_in_and_nobody_sees_them(folder: DropFolder) -> None:
    mode = stat.S_IMODE(folder.path.stat().st_mode)
    assert mode & 0o1777 == 0o1733


def test_a_folder_of_another_mode_is_mended(place: Path) -> None:
    (place / "drop").mkdir(mode=0o700)
    assert DropFolder(place / "drop").prepare() == ""
    assert stat.S_IMODE((place / "drop").stat().st_mode) & 0o1777 == 0o1733


def test_a_folder_that_everybody_may_look_into_is_mended(place: Path) -> None:
    (place / "drop").mkdir()
    (place / "drop").chmod(0o1777)
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


@pytest.mark.parametrize(
    ("said", "data_dir", "folder"),
    [
        ("", "/var/lib/franker", "/var/spool/franker/drop"),
        ("", "/var/lib/franker/", "/var/spool/franker/drop"),
        ("", "/var/lib/x/../franker", "/var/spool/franker/drop"),
        ("", "/var/lib/./franker", "/var/spool/franker/drop"),
        ("", "/srv/mail", "/srv/mail/drop"),
        ("", "/srv/mail/", "/srv/mail/drop"),
        ("/srv/drop", "/var/lib/franker", "/srv/drop"),
        ("/srv/drop", "/srv/mail", "/srv/drop"),
    ],
)
def test_proxy_and_sendmail_find_the_same_folder(said: str, data_dir: str, folder: str) -> None:
    environ = {"FRANKER_DROP__FOLDER": said, "FRANKER_DATA_DIR": data_dir}
    settings = load(None, environ, searched=()).settings
    assert drop_folder(settings, Path(settings.data_dir)) == Path(folder)
    assert where.drop_folder({**environ, "FRANKER_CONFIG": "/nowhere"}) == folder


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
    dropped = read(folder, found.once)
    assert dropped.letter.recipients == ["you@example.net"]
    assert abs(dropped.came - path.stat().st_ctime) < 1
    folder.remove([dropped])
    assert not path.exists()
    assert folder.look().waiting == 0


@needs_root
def test_it_is_its_files_owners(folder: DropFolder) -> None:
    put(folder, 1, uid=NOBODY)
    assert read(folder, once(1)).uid == NOBODY


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

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        put(folder, 1)
    assert list(folder.path.iterdir()) == []


def test_what_somebody_is_writing_is_not_read(folder: DropFolder) -> None:
    (folder.path / (drop.UNFINISHED + once(1))).write_bytes(a_letter())
    look = folder.look()
    assert (look.letters, look.waiting, look.troubles) == ((), 0, {})
    assert len(list(folder.path.iterdir())) == 1


def test_what_nobody_will_ever_end_is_removed(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / (drop.UNFINISHED + once(1))).write_bytes(b"x")
    monkeypatch.setattr(look_module, "UNFINISHED_S", -1.0)
    folder.look()
    assert list(folder.path.iterdir()) == []


def test_the_oldest_of_a_user_come_first(folder: DropFolder) -> None:
    clock = folder.path / ".listening"
    came = 0

    def time_goes_on() -> bool:
        clock.touch()
        return clock.stat().st_ctime_ns > came

    for number in (9, 3, 7):
        wait_for(time_goes_on)
        came = put(folder, number).stat().st_ctime_ns
    assert names(folder) == [once(9), once(3), once(7)]


@needs_root
def test_the_many_of_one_user_do_not_keep_another_waiting(
    folder: DropFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_module, "OF_ONE_USER", 5)
    for number in range(20):
        put(folder, number)
    for number in (100, 101):
        put(folder, number, uid=NOBODY)
    look = folder.look()
    uids = [found.uid for found in look.letters]
    assert set(uids[:2]) == set(uids[2:4]) == {0, NOBODY}
    assert uids[4:] == [0, 0, 0]
    assert look.waiting == 22
