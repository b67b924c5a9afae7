"""What another user of this host can do in the drop folder, tried for real as such a one."""

import os
import subprocess
from pathlib import Path

import pytest

from proxy.drop.folder import DropFolder
from proxy.sendmail import drop
from tests.drop.letters import NOBODY, names, needs_root, once, put, read
from tests.support.sendmail import python_for_everybody

_ATTACKS = """
import os, socket, sys
drop, victim, elsewhere, own = sys.argv[1:]
x = os.path.join
attacks = {
    "see what is there": lambda: os.listdir(drop),
    "read another's letter": lambda: open(x(drop, victim)).read(),
    "write to it": lambda: open(x(drop, victim), "r+b"),
    "write over it": lambda: open(x(drop, victim), "wb"),
    "remove it": lambda: os.unlink(x(drop, victim)),
    "rename it": lambda: os.rename(x(drop, victim), x(drop, "a" * 32)),
    "put another in its place": lambda: os.rename(x(drop, own), x(drop, victim)),
    "give it a second name": lambda: os.link(x(drop, victim), x(elsewhere, "second")),
    "have it opened for all": lambda: os.chmod(x(drop, victim), 0o666),
    "say where the proxy listens": lambda: open(x(drop, ".listening"), "w"),
    "remove what says that": lambda: os.unlink(x(drop, ".listening")),
    "rename it, too": lambda: os.rename(x(drop, ".listening"), x(drop, "gone")),
    "open the folder for all": lambda: os.chmod(drop, 0o777),
    "remove the folder": lambda: os.rmdir(drop),
    "rename the folder": lambda: os.rename(drop, drop + "2"),
    "give a letter to another": lambda: os.chown(x(drop, own), 0, 0),
    "make a device": lambda: os.mknod(x(drop, "b" * 32), 0o20666, os.makedev(1, 5)),
}
for name, attack in attacks.items():
    try:
        attack()
    except OSError:
        continue
    print(name)
"""


def state(file: Path) -> tuple[int, ...]:
    """Return all that others could change of `file`; when it was last read is no harm."""
    found = file.stat()
    changed = found.st_mtime_ns, found.st_ctime_ns
    return found.st_mode, found.st_ino, found.st_nlink, found.st_uid, found.st_gid, *changed


@needs_root
@pytest.mark.skipif(not python_for_everybody(), reason="no Python that everybody can start")
def test_another_user_can_do_nothing_but_put_letters_in(folder: DropFolder, place: Path) -> None:
    folder.say_listening(["127.0.0.1:25"])
    victim = put(folder, 1)
    own = put(folder, 2, uid=NOBODY)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, NOBODY, -1)
    before = state(victim), victim.read_bytes()
    done = subprocess.run(
        [
            *(python_for_everybody(), "-ISc", _ATTACKS),
            *map(str, (folder.path, victim.name, elsewhere, own.name)),
        ],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert (state(victim), victim.read_bytes()) == before
    assert drop.listening(str(folder.path)) == ["127.0.0.1:25", ""]
    assert sorted(names(folder)) == [once(1), once(2)]
    assert read(folder, once(1)).uid == 0
