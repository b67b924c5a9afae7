"""SIGHUP to the parent of `franker run`: passed on, unless the terminal is gone."""

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import ROOT, clean_environ
from tests.support.waiting import wait_for
from tests.test_supervisor import PARENT, PART, Parent, parent

__all__ = ["parent"]


def test_it_is_passed_on_to_those_that_read_the_configuration_again_and_to_no_other(
    parent: Callable[..., Parent],
) -> None:
    running = parent(redis="stay", sandbox="stay", proxy="stay", worker="stay")
    running.wait_ready()
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: set(running.lines("again")) == {"proxy", "worker"}, what="both were told")
    running.process.terminate()
    assert running.process.wait(30) == 0
    # SIGHUP ends the others without a word.
    assert set(running.lines("end")) == {"redis", "sandbox", "proxy", "worker"}
    assert len(running.lines("start")) == 4


def test_a_part_that_is_not_ready_yet_is_told_when_it_is(
    parent: Callable[..., Parent],
) -> None:
    running = parent(proxy="stay", worker="late")
    wait_for(lambda: set(running.lines("start")) == {"proxy", "worker"}, what="started")
    run_file = running.diary.with_name("run.json")
    wait_for(lambda: "2599" in run_file.read_text(), what="the proxy is ready")
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: running.lines("again") == ["proxy"], what="the one that is ready was told")
    running.diary.with_name("diary.go").touch()
    wait_for(lambda: running.lines("again") == ["proxy", "worker"], what="the other, too")


def test_systemd_hears_when_the_parts_begin_to_read_and_when_all_have_done_so(
    parent: Callable[..., Parent], data_dir: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(data_dir / "notify.sock"))
        told.settimeout(60)
        (data_dir / "part.py").write_text(PART)
        (data_dir / "diary").touch()
        command = [sys.executable, "-c", PARENT, str(data_dir)]
        parts = json.dumps({"proxy": "stay", "worker": "stay"})
        environ = clean_environ(NOTIFY_SOCKET=str(data_dir / "notify.sock"))
        with subprocess.Popen([*command, parts], cwd=ROOT, env=environ) as running:
            assert told.recv(4096) == b"READY=1"
            running.send_signal(signal.SIGHUP)
            assert told.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert told.recv(4096) == b"READY=1"
            assert sorted((data_dir / "diary").read_text().split()).count("again") == 2
            running.terminate()
            assert told.recv(4096) == b"STOPPING=1"


def test_a_terminal_that_is_closed_ends_everything(data_dir: Path) -> None:
    (data_dir / "part.py").write_text(PART)
    diary = data_dir / "diary"
    diary.touch()
    ours, its = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-c", PARENT, str(data_dir), json.dumps({"proxy": "stay"})]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environ(),
        stdin=its,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=take_terminal,
    ) as running:
        try:
            os.close(its)
            run_file = data_dir / "run.json"
            wait_for(lambda: run_file.exists() and "2599" in run_file.read_text(), what="ready")
            running.send_signal(signal.SIGHUP)
            wait_for(lambda: "again proxy" in diary.read_text(), what="read again")
            os.close(ours)
            assert running.wait(20) == 0
        finally:
            running.kill()
    assert "end proxy" in diary.read_text()
