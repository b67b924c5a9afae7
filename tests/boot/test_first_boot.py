"""The one command on a Debian that is not running yet, as images are made; then its first boot."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import open_site
from tests.boot.folder import fetch
from tests.boot.programs import raw
from tests.boot.site import Site

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]


@pytest.fixture
def asleep(suite: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Debian without a Redis or the means to make a Python environment, not booted."""
    with open_site(suite, wheel, tmp_path_factory, awake=False) as there:
        (there.folder / "etc/systemd/system/redis-server.service").unlink()
        fetch(there.folder, "apt-get", "purge", "--yes", "redis-server", "python3-venv")
        yield there


def test_from_a_checkout_with_all_that_is_missing_and_at_work_after_the_first_boot(
    asleep: Site,
) -> None:
    fetch(asleep.folder, "/bin/sh", "-c", f"rm /etc/pip.conf; {asleep.installer}")
    asleep.start()
    asleep.give_token()
    assert raw(asleep, "after the first boot").startswith("250 ")
    asleep.arrived("after the first boot")
    # The server came as a package, whose own service nobody asked for.
    assert asleep.machine.tell("systemctl is-active redis-server") == "inactive"
