"""A fresh Debian, booted, with a Postmark of its own in its network."""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest

from tests.boot import probe
from tests.boot.folder import add_packages, base_folder, copy_of, libraries, wheel_of
from tests.boot.site import Site
from tests.support.skipping import CannotHere

SUITE = os.environ.get("BOOT_SUITE", "bookworm")

# Debian 12's Python runs the test-suite anyway.
collect_ignore = ["test_newer_python.py"] if SUITE == "bookworm" else []
if SUITE == "noble":  # Ubuntu 24.04; the image is built on a Debian
    collect_ignore += ["test_containers.py"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the machine's journal with each failure."""
    report = yield
    if call.excinfo and call.excinfo.errisinstance(CannotHere):
        report.user_properties.append(("cannot", str(call.excinfo.value)))
    funcargs = getattr(item, "funcargs", {})
    there = next((one for one in funcargs.values() if isinstance(one, Site)), None)
    if report.failed and there is not None:
        said = there.machine.tell("journalctl --no-pager --lines=80")
        report.sections.append(("the machine's journal", said))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests were to show, and in capitals what could not be tried at all."""
    figures: list[object] = []
    reasons: dict[object, None] = {}
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            shown = dict(report.user_properties)
            figures += [shown["figure"]] if report.when == "call" and "figure" in shown else []
            reasons |= {shown["cannot"]: None} if "cannot" in shown else {}
    for figure in sorted(map(str, figures)):
        terminalreporter.write_line(figure)
    for reason in reasons:
        terminalreporter.write_line(f"NOT TRIED: {reason}", bold=True)


@pytest.fixture(scope="session")
def suite() -> str:
    """The Debian to boot, bookworm or $BOOT_SUITE; a skip where none can be booted."""
    if lacking := probe.missing_tools():
        pytest.skip(lacking)
    if why := probe.impossible():
        raise CannotHere(f"{SUITE} CANNOT BE BOOTED HERE: {why}")
    with copy_of(base_folder(SUITE)) as folder:
        if why := probe.cannot_boot(folder):
            raise CannotHere(f"{SUITE} CANNOT BE BOOTED HERE: {why}")
    return SUITE


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree."""
    return wheel_of(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(suite: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A booted Debian with nothing of Franker's on it yet, for the tests of one file."""
    with open_site(suite, wheel, tmp_path_factory) as there:
        yield there


@pytest.fixture(scope="module")
def site_with_postfix(
    suite: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The same, with a Postfix at work on port 25."""
    # Postfix takes port 25 of every address, so that the far end cannot have it.
    with open_site(suite, wheel, tmp_path_factory, "postfix", ports=(587, 2525)) as there:
        there.machine.until("ss -tln | grep -q '127.0.0.1:25 \\|0.0.0.0:25 '")
        yield there


@contextmanager
def open_site(
    suite: str,
    wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
    *packages: str,
    ports: Sequence[int] = (587, 2525, 25),
    awake: bool = True,
) -> Iterator[Site]:
    """A Debian with `packages` besides, booted if `awake`; `ports` are the far end's."""
    beside = libraries(suite, wheel)
    log = tmp_path_factory.mktemp("boot") / "console.log"
    with copy_of(base_folder(suite)) as folder:
        if packages:
            add_packages(folder, *packages)
        with Site(folder, wheel, beside, log, ports) as there:
            if awake:
                there.start()
            yield there


@pytest.fixture(scope="module")
def installed(site: Site) -> Site:
    """The same after the one command that installs Franker, with a token."""
    site.machine.write("/etc/aliases", "postmaster: root\nroot: ops@example.com\n")
    site.machine.run(f"{site.installer} {site.wheel}", timeout=300)
    site.give_token()
    return site
