"""The file by which `franker run` tells commands on its host where its store and listener are."""

import contextlib
import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "run.json"


@dataclass(frozen=True, slots=True)
class Running:
    """A live `franker run`: the settings it decided itself, and where it listens."""

    pid: int
    environ: dict[str, str]
    smtp: tuple[str, ...]  # as in listen.smtp
    http: str


def find_running(data_dir: Path) -> Running | None:
    """Return what runs on `data_dir`; None when nothing does or it cannot be read by this user."""
    try:
        with (data_dir / FILE_NAME).open("rb") as file:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None  # nobody holds it: left over
            said = json.load(file)
        proxy = said["parts"].get("proxy", {})
        return Running(
            pid=said["pid"],
            environ=said["environ"],
            smtp=tuple(proxy.get("SMTP", "").split()),
            http=proxy.get("HTTP", ""),
        )
    except (OSError, ValueError, KeyError):
        return None
