"""The drop folder: made so that everybody can put letters in, and nobody sees or takes another's.

Everything here may block: it is for a thread.
"""

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from proxy.config import Settings
from proxy.drop.file import Dropped, NoLetterError, read_letter, remove_letter
from proxy.drop.look import Look, look_at
from proxy.sendmail.drop import LISTENING
from proxy.sendmail.where import folder_of

MODE = 0o1733


def drop_folder(settings: Settings, data_dir: Path) -> Path:
    """Return the drop folder of this configuration."""
    return Path(folder_of(settings.drop.folder, str(data_dir)))


class DropFolder:
    """The folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> str:
        """Make the folder if it is not there; return "" or why it cannot be used."""
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            with self._open() as place:
                found = os.fstat(place)
                own = found.st_uid == os.geteuid()
                if not own and os.geteuid() != 0:
                    return f"{self.path} belongs to another user, so nothing could be taken out"
                if own and found.st_mode & 0o1777 != MODE:
                    _open_to_all(place)
        except OSError as error:
            return f"{self.path}: {error.strerror or error}"
        return ""

    def say_listening(self, addresses: Sequence[str]) -> None:
        """Write down for sendmail where the proxy listens; what somebody else put there goes aside.

        Raises:
            OSError: that cannot be.
        """
        new = f"{LISTENING}.{secrets.token_hex(16)}"
        with self._open() as place:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(new, flags, 0o644, dir_fd=place)
            try:
                os.fchmod(file, 0o644)
                os.write(file, "".join(f"{one}\n" for one in addresses).encode())
            finally:
                os.close(file)
            try:
                os.rename(new, LISTENING, src_dir_fd=place, dst_dir_fd=place)
            except OSError:  # a folder of somebody's
                os.rename(LISTENING, f"aside-{new}", src_dir_fd=place, dst_dir_fd=place)
                os.rename(new, LISTENING, src_dir_fd=place, dst_dir_fd=place)

    def look(self, but: frozenset[str] = frozenset()) -> Look:
        """Return what is there; see `look_at`.

        Raises:
            OSError: the folder cannot be read.
        """
        with self._open() as place:
            return look_at(place, but)

    def read(self, names: Sequence[str]) -> tuple[list[Dropped], dict[str, str]]:
        """Return the letters of these names, and why the others are none; what is gone is neither.

        Raises:
            OSError: they cannot be read now.
        """
        letters: list[Dropped] = []
        troubles: dict[str, str] = {}
        with self._open() as place:
            for name in names:
                try:
                    letters.append(read_letter(name, place))
                except NoLetterError as error:
                    if str(error):
                        troubles[name] = str(error)
        return letters, troubles

    def remove(self, letters: Sequence[Dropped]) -> None:
        """Remove the files of letters that are kept elsewhere, durably.

        Raises:
            OSError: that cannot be.
        """
        if not letters:
            return
        with self._open() as place:
            for letter in letters:
                remove_letter(letter, place)
            os.fsync(place)

    def _open(self) -> "_Place":
        return _Place(self.path)


class _Place:
    """The folder itself, open for as long as the block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _open_to_all(place: int) -> None:
    """Let everybody put files in; where the system allows it, with our group, so only we read."""
    try:
        os.fchmod(place, MODE | stat.S_ISGID)
    except PermissionError:
        os.fchmod(place, MODE)
