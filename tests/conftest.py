"""Fixtures shared by all tests: real parts only."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.crash.disk import available
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.skipping import CannotHere

if TYPE_CHECKING:
    from tests.support.office import Office
    from tests.support.tap import Tap


collect_ignore: list[str] = []
_probe = new_data_dir()
if not available(_probe):  # in a container, or not as root
    collect_ignore.append("test_full_disk.py")
remove_data_dir(_probe)


# How long an example takes, and how long making it took, say nothing on a machine with other work:
# what hangs, the time limit of each test ends.
settings.register_profile(
    "without-deadline",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("without-deadline")


def pytest_configure() -> None:
    """Forget this host's own token and settings: no test may send real mail."""
    for name in list(os.environ):
        if name.startswith(("POSTMARK_", "FRANKER_")) and name != "FRANKER_TESTS_NO_SKIP":
            del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skipped test a failed one where everything must be there: FRANKER_TESTS_NO_SKIP."""
    report = yield
    if (
        report.skipped
        and os.environ.get("FRANKER_TESTS_NO_SKIP")
        and not hasattr(report, "wasxfail")
        and not (call.excinfo and call.excinfo.errisinstance(CannotHere))
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped, and no test may be skipped here: {report.longrepr}"
    return report


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A new folder for one test, with a short name, so that sockets fit in it."""
    folder = new_data_dir()
    yield folder
    remove_data_dir(folder)


@pytest.fixture
def redis_server(data_dir: Path) -> Iterator[RedisServer]:
    """A fresh, empty, durable Redis on `data_dir`/redis.sock for one test."""
    server = RedisServer(data_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def office() -> Iterator["Office"]:
    """Everything at work, as `franker run` starts it, relaying to a stand-in for Postmark."""
    from tests.support.far_end import background_far_end
    from tests.support.office import Office

    folder = new_data_dir()
    with background_far_end() as far_end:
        at_work = Office(folder, far_end)
        yield at_work
        at_work.close()
    remove_data_dir(folder)


@pytest.fixture
def tap(office: "Office") -> Iterator["Tap"]:
    """A wire to the office's listener that writes down what a client sends."""
    from tests.support.tap import Tap

    with Tap(office.smtp_port) as wire:
        yield wire
