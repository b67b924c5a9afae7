"""A drop folder for one test, ready for everybody."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.drop.folder import DropFolder
from tests.support.redis_server import new_data_dir, remove_data_dir


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for one test that other users can reach, too."""
    folder = new_data_dir()
    folder.chmod(0o755)
    yield folder
    remove_data_dir(folder)


@pytest.fixture
def folder(place: Path) -> DropFolder:
    made = DropFolder(place / "drop")
    assert made.prepare() == ""
    return made
