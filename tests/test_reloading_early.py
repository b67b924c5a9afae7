"""SIGHUP to a process that has hardly begun."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.support.processes import Installation
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for


@pytest.mark.parametrize("process", ["proxy", "worker"])
def test_one_that_comes_while_the_configuration_is_first_read_is_obeyed_afterwards(
    process: str, redis_server: RedisServer, data_dir: Path
) -> None:
    one = Installation(data_dir, {"redis": {"url": f"unix://{data_dir}/redis.sock"}})
    text = one.config.read_bytes()
    one.config.unlink()
    os.mkfifo(one.config)
    with contextlib.closing(one):
        program = one.start(process)
        pipe = _pipe_to_a_reader(one.config)
        program.signal(signal.SIGHUP)
        one.config.unlink()
        one.config.write_bytes(text)
        os.write(pipe, text)
        os.close(pipe)
        program.wait_for(f" reloaded process={process} ")


def _pipe_to_a_reader(path: Path) -> int:
    """Open the FIFO `path` for writing, as soon as somebody reads it."""
    opened: list[int] = []

    def read() -> bool:
        with contextlib.suppress(OSError):
            opened.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    wait_for(read, 30, "the configuration is read")
    return opened[0]
