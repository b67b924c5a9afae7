"""Control groups of a machine's own.

A container that is not registered gets the groups `payload` and `supervisor` below those of whoever
starts it: two machines would share them, and each systemd would clear away the other's services.
"""

import contextlib
import os
import shlex
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.waiting import wait_for

_GONE_S = 30.0


@contextlib.contextmanager
def own_groups() -> Iterator["Groups"]:
    """Groups for one container, which are gone when its processes are."""
    name = f"franker-{uuid.uuid4().hex[:8]}"  # the same everywhere: systemd expects it so
    groups = Groups([place / name for place in _places()])
    try:
        groups.make()
        yield groups
    finally:
        groups.close()


class Groups:
    """New groups, one in each hierarchy that systemd uses."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def make(self) -> None:
        """Make them."""
        for folder in self._folders:
            folder.mkdir()

    def command(self, *command: str | Path) -> list[str]:
        """Return what runs `command` in these groups, with the process id of its beginning."""
        enter = [f"echo $$ > {shlex.quote(str(one / 'cgroup.procs'))}" for one in self._folders]
        script = " && ".join([*enter, 'exec "$@"'])
        return ["/bin/sh", "-c", script, "sh", *map(str, command)]

    def close(self) -> None:
        """Remove them; the kernel lets go of one a moment after its last process has ended."""
        wait_for(self._removed, _GONE_S, "control groups without processes")

    def _removed(self) -> bool:
        for folder in self._folders:
            for place, _folders, _files in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(place).rmdir()
        return not any(folder.exists() for folder in self._folders)


def _places() -> list[Path]:
    """Return the folders of this process's own groups in the hierarchies that systemd uses."""
    groups = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        groups[controllers] = path
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, of = line.split(" - ", 1)
        top, point = mounted.split()[3:5]
        kind, _source, options = of.split()[:3]
        name = "" if kind == "cgroup2" else "name=systemd"
        if kind != "cgroup2" and (kind != "cgroup" or name not in options.split(",")):
            continue
        below = os.path.relpath(groups[name], top)
        place = Path(point) if below.startswith("..") else Path(point, below)
        found.append(place if place.is_dir() else Path(point))
    return found
