"""The drop folder as its writers see it: a place for letters while the proxy takes none.

The folder has mode 1733 (the reader's own 3733 with the setgid bit): everybody can put a file in,
nobody but the reader sees what is there, nobody can touch another's. Where its group is set on
what is made in it, files are for owner and group; else anybody may read one whose name he knows,
which is 128 bits of chance that nobody is told.
"""

import os
import stat

from proxy.sendmail.output import write_all

LISTENING = ".listening"
"""The file in the folder in which the proxy says where it listens, one address a line."""

UNFINISHED = "new-"
"""Before the name of a file that is being written."""

_DIGITS = frozenset("0123456789abcdef")


def is_letter(name: str) -> bool:
    """Return whether `name` is one that a letter's file has: its id, 32 hexadecimal digits."""
    return len(name) == 32 and _DIGITS.issuperset(name)


def put(folder: str, once: str, octets: bytes) -> None:
    """Keep `octets` as the file `once` of `folder`; return when it is on the disk.

    Raises:
        OSError: it cannot be kept; nothing is left behind.
    """
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        shared = os.fstat(place).st_mode & stat.S_ISGID
        new = UNFINISHED + once
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(new, flags, 0o600, dir_fd=place)
        try:
            os.fchmod(file, 0o640 if shared else 0o644)  # whatever the umask is
            write_all(file, octets)
            os.fsync(file)
            os.rename(new, once, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            os.unlink(new, dir_fd=place)
            raise
        else:
            # The folder cannot be opened to be synced by those who may not list it; its journal
            # is, with the change of name, when the renamed file is (ext4, XFS, Btrfs).
            try:
                os.fsync(file)
                _sync(folder)
            except BaseException:
                os.unlink(once, dir_fd=place)
                raise
        finally:
            os.close(file)
    finally:
        os.close(place)


def _sync(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listening(folder: str) -> list[str]:
    """Return where the proxy listens, as it said last; nothing where nobody can say.

    Only the folder's own owner, or root, is believed, and only in a file that was made here: one
    with a second name may be anything of theirs.
    """
    try:
        owner = os.stat(folder).st_uid
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(f"{folder}/{LISTENING}", flags)
    except OSError:
        return []
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            return []
        if found.st_uid not in (0, owner):
            return []
        return os.read(file, 65536).decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    finally:
        os.close(file)
