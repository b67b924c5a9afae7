"""Signs of life: given by the loop when systemd waits for them, by nobody else's process."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from proxy.log.watchdog import pause, watched


def test_half_of_what_systemd_waits_lies_between_two_signs() -> None:
    assert pause({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == 15.0
    assert pause({"WATCHDOG_USEC": "30000000"}, 7) == 15.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"},
    ],
)
def test_no_sign_where_nobody_waits_for_one_of_this_process(environ: dict[str, str]) -> None:
    assert pause(environ, 7) is None


async def test_signs_come_as_long_as_the_loop_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        loop = asyncio.get_running_loop()
        async with watched():
            for _ in range(3):
                assert await loop.sock_recv(heard, 100) == b"WATCHDOG=1"
        while True:
            try:
                heard.recv(100)
            except BlockingIOError:
                break
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await loop.sock_recv(heard, 100)
