"""Fixtures shared by all tests: real parts only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir


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
