"""The test-suite, run by the Python of the Debian that is booted where that is a newer one."""

import shutil
import subprocess

import pytest

from tests.boot.folder import add_packages, base_folder, copy_of, fetch
from tests.support.processes import ROOT

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2400)]

# A file's tests stay together, as `make test` has it; tests of programs that are not there are left
# out by themselves.
RUN = """
set -e
cd /srv/franker
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
.venv/bin/python -m pip install --quiet --editable '.[all]' --group dev
.venv/bin/python -m pytest --numprocesses 2 --dist loadfile --tb=short
"""


def test_the_test_suite_passes(suite: str) -> None:
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True
    ).stdout
    with copy_of(base_folder(suite)) as folder:
        for name in filter(None, tracked.decode().split("\0")):
            place = folder / "srv/franker" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)
        add_packages(folder, "git", "make")
        fetch(folder, "/bin/sh", "-c", RUN)
