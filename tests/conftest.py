"""Fixtures shared by all tests: real parts only."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir

if TYPE_CHECKING:
    from tests.support.office import Office
    from tests.support.tap import Tap


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
