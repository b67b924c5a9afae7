"""A host with `franker run` at work and `franker-sendmail` on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sendmail.host import SETTINGS
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.office import Office
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.sendmail import Sendmail
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody can enter."""
    folder = new_data_dir()
    folder.chmod(0o755)
    yield folder
    remove_data_dir(folder)


@pytest.fixture(scope="module")
def host(far_end: BackgroundFarEnd, place: Path) -> Iterator[Office]:
    office = Office(place, far_end, {**SETTINGS, "drop": {"folder": str(place / "drop")}})
    yield office
    office.close()


@pytest.fixture(scope="module")
def program(place: Path) -> Sendmail:
    return Sendmail(place, place / "drop")


@pytest.fixture
def sendmail(host: Office, program: Sendmail) -> Iterator[Sendmail]:
    """The program, told where the host's proxy listens."""
    yield program
    program.listens([f"127.0.0.1:{host.smtp_port}"])
    wait_for(lambda: not program.dropped(), 30, "all letters are taken")
