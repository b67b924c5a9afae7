"""The test-suite, run by the Python of the Debian that is booted where that is a newer one."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.boot.folder import add_packages, base_folder, copy_of, fetch
from tests.support.processes import ROOT

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

# More than half of the suite's time goes into these: they end processes at every moment, or wait.
# What Python, its libraries and Redis have to do with that, the others show, too. BOOT_WHOLE=1 runs
# them as well.
LONG = (
    *("benchmarks", "clock_steps", "conftest", "crash_rounds", "crashes", "graceful_end"),
    *("journal_copies", "journal_process", "monitoring_live", "notices_crashes", "out_of_memory"),
    *("restored_processes", "unknown_crashes", "upstream_trouble"),
)

# A file's tests stay together, as `make test` has it; tests of programs that are not there are left
# out by themselves.
RUN = """
set -e
cd /srv/franker
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
.venv/bin/python -m pip install --quiet --editable '.[all]' --group dev
.venv/bin/python --version
exec .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --tb=short "$@"
"""


def test_the_test_suite_passes(suite: str, record_property: Callable[[str, object], None]) -> None:
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True
    ).stdout
    long = [] if os.environ.get("BOOT_WHOLE") else [f"tests/test_{name}.py" for name in LONG]
    assert [file for file in long if not (ROOT / file).exists()] == []
    with copy_of(base_folder(suite)) as folder:
        for name in filter(None, tracked.decode().split("\0")):
            if not (ROOT / name).exists():  # removed, and not committed yet
                continue
            place = folder / "srv/franker" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)
        add_packages(folder, "git", "make")
        said = fetch(folder, "/bin/sh", "-c", RUN, "sh", *(f"--ignore={file}" for file in long))
    version, *_, closing = said.splitlines()
    record_property("figure", f"{suite}, {version}: {closing}")
    assert " passed" in closing
