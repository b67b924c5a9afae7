"""The configuration as it holds on this host now: with what a running `franker run` has decided."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.cli.options import data_dir_of, load
from proxy.cli.running import Running, find_running

if TYPE_CHECKING:
    from proxy.config import Settings

TRIAL = "trial"
"""The folder under data_dir for mail that goes to the stand-in, so that real mail never does."""


@dataclass(frozen=True, slots=True)
class Host:
    """Settings and data folder that a command uses, and what runs here, if anything does."""

    settings: "Settings"
    data_dir: Path
    source: str
    notices: tuple[str, ...]
    running: Running | None = None


def find_host(config: Path | None) -> Host:
    """Return what holds here now; leave with 78 when the configuration is wrong.

    What `franker run` relays to Postmark comes before what it relays to the stand-in, when both
    are running.
    """
    loaded = load(config)
    data_dir, notice = data_dir_of(loaded.settings, make=False)
    notices = (*loaded.notices, *([notice] if notice else []))
    for folder in (data_dir, data_dir / TRIAL):
        running = find_running(folder)
        if running is not None:
            os.environ.update(running.environ)
            settings = load(config).settings
            return Host(settings, folder, loaded.source, notices, running)
    return Host(loaded.settings, data_dir, loaded.source, notices)
