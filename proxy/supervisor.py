"""The parent of `franker run`: starts the parts, restarts what falls, ends with them.

    python -m proxy.supervisor [--log kv|json] --run-file FILE PART...

Each PART (redis, sandbox, proxy, worker) runs as `franker PART`, in a session of its own, so that
Ctrl-C reaches only this process, which ends them in order: those that take and send mail first,
then what they talk to, Redis last. Standard library only, so that it stays small and cannot fall
for the reasons its children do.

A part says that it is ready with systemd's protocol (sd_notify(3)): `READY=1`, and facts as
`X_NAME=value`. SIGHUP is passed on to those that read the configuration again, once they are
ready; one that comes because the terminal is gone ends everything. The run file is locked as long
as this process lives, and holds what a command on the same host wants to know about it (see
proxy/cli/running.py).

Exit codes: 0 stopped by a signal; 1 a part could not be started at all; 78 configuration.
"""

import argparse
import contextlib
import ctypes
import json
import os
import re
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from proxy.run_file import RunFile
from proxy.terminal import has_terminal
from proxy.welcome import welcome

EX_CONFIG = 78
_REREADING = ("proxy", "worker")
_ENDING_ORDER = (("proxy", "worker"), ("sandbox",), ("redis",))
_GRACE_S = 15.0  # what is in flight gets 10 s from its own process; then it is killed
_LASTED_S = 30.0  # a part that lived this long starts again without counting old failures
_HOPELESS = 6  # failures running of a part that has never been ready
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
REDIS_LINE = re.compile(r"\d+:(?:signal-handler \(\d+\)|[A-Z] .*? [.*#-]) (.*)")
REDIS_ROUTINE = re.compile(
    r"oO0OoO0|(?:Redis|Valkey) version=|Configuration loaded|Server initialized"
    r"|Received SIGTERM|User requested shutdown|ready to exit"
)
"""What Redis says at every start and end, of interest to nobody."""
_LONGEST_LINE = 65536
_FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def restart_delay(failures: int) -> float:
    """Return the seconds to wait before the next start after `failures` (>= 1) running."""
    return min(15.0, 0.1 * 2.0 ** (failures - 1))


def describe_end(status: int) -> str:
    """Return a wait status in words: "exit code 1", "signal SIGKILL"."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


@dataclass
class Part:
    """One child: how it is started, and how it fares."""

    name: str
    argv: list[str]
    listening: socket.socket
    pid: int = 0  # 0: not running
    started: float = 0.0  # monotonic seconds
    due: float = 0.0  # when it is started next, monotonic seconds
    failures: int = 0
    ready: bool = False  # has been so at least once
    up: bool = False  # this process of it is ready
    stale: bool = False  # it has yet to be told that the configuration may have changed
    rereading: bool = False  # it was told, and has not said that it is ready again
    facts: dict[str, str] = field(default_factory=dict)


class Supervisor:
    """Runs parts until a signal says stop, or one of them says that no start can help."""

    def __init__(self, parts: list[Part], run_file: RunFile, *, json_log: bool) -> None:
        self._parts = parts
        self._run_file = run_file
        self._json_log = json_log
        self._stopping = False
        self._hung_up = False
        self._rereading = False  # systemd was told so
        self._had_terminal = has_terminal()
        self._exit_code = 0
        self._announced = False
        self._wake = selectors.DefaultSelector()
        self._unread: dict[int, bytes] = {}  # the beginning of a line, by the pipe it came from
        self._library = ctypes.CDLL(None, use_errno=True)

    def run(self) -> int:
        """Start everything, keep it running, and return the exit code when it has ended."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._wake.register(read_end, selectors.EVENT_READ, lambda: _drain(read_end))
        for part in self._parts:
            self._wake.register(part.listening, selectors.EVENT_READ, partial(self._hear, part))
        try:
            while not self._stopping:
                self._start_due()
                self._wait(self._next_due())
                self._reap()
                self._pass_on()
        finally:
            self._stopping = True
            self._end_all()
        return self._exit_code

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._had_terminal and not has_terminal():
            self._stop(number, frame)
        else:
            self._hung_up = True

    def _pass_on(self) -> None:
        """Have the configuration read again by those who should; who is not ready is told later."""
        parts = [part for part in self._parts if part.name in _REREADING]
        if self._hung_up:
            self._hung_up, self._rereading = False, self._announced
            for part in parts:
                part.stale = True
            if self._rereading:
                _tell_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        told = [part for part in parts if part.stale and part.up]
        for part in told:
            part.stale, part.rereading = False, True
        _signal(told, signal.SIGHUP)
        if self._rereading and not any(part.rereading for part in parts):
            self._rereading = False
            _tell_systemd("READY=1")

    def _next_due(self) -> float | None:
        waiting = [part.due for part in self._parts if not part.pid]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _wait(self, timeout: float | None) -> None:
        """Deal with whatever happens next; return at the latest after `timeout` seconds."""
        for key, _events in self._wake.select(timeout):
            key.data()

    def _hear(self, part: Part) -> None:
        """Read what `part` says of itself."""
        lines = part.listening.recv(65536).decode("utf-8", "replace").splitlines()
        said = dict(line.partition("=")[::2] for line in lines)
        part.facts.update({key[2:]: value for key, value in said.items() if key[:2] == "X_"})
        if said.get("READY") == "1":
            part.ready = part.up = True
            part.rereading = False
        self._run_file.write({p.name: {"pid": str(p.pid), **p.facts} for p in self._parts})
        if not self._announced and all(p.ready for p in self._parts if p.name != "redis"):
            # Redis says nothing of itself; that the others are ready says it.
            for each in self._parts:
                each.ready = True
            self._announced = True
            _write(1, welcome({p.name: p.facts for p in self._parts}))
            _tell_systemd("READY=1")

    def _start_due(self) -> None:
        now = time.monotonic()
        for part in self._parts:
            if not part.pid and part.due <= now:
                part.started = now
                part.pid = self._fork(part)

    def _fork(self, part: Part) -> int:
        """Start `part`, and return its process id."""
        wire = os.pipe() if part.name == "redis" else None
        # A signal that comes before the child has forgotten our handlers must not be lost in it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        parent, pid = os.getpid(), os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            if wire is not None:
                os.close(wire[1])
                hear = partial(self._hear_redis, wire[0])
                self._wake.register(wire[0], selectors.EVENT_READ, hear)
            return pid
        try:
            os.setsid()
            # Whatever happens to this process, even SIGKILL, its children do not outlive it.
            self._library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if wire is not None:
                os.dup2(wire[1], 1)
                os.dup2(wire[1], 2)
            environ = {**os.environ, "NOTIFY_SOCKET": part.listening.getsockname()}
            _pass_sockets(environ, to_proxy=part.name == "proxy", parent=parent)
            os.execve(part.argv[0], part.argv, environ)  # noqa: S606 - a fixed program
        except BaseException as error:  # nothing may return from the fork's child
            os.write(2, f"cannot start {part.name}: {error}\n".encode())
        os._exit(1)

    def _hear_redis(self, read_end: int) -> None:
        """Log what Redis says in the form of everything else, its daily routine left out."""
        octets = os.read(read_end, 65536)
        if not octets:
            self._wake.unregister(read_end)
            os.close(read_end)
        # A line may come in pieces: Redis writes those of its signal handler so.
        *lines, rest = (self._unread.pop(read_end, b"") + octets).split(b"\n")
        if octets and len(rest) < _LONGEST_LINE:
            self._unread[read_end] = rest
        elif rest:
            lines.append(rest)
        for line in (raw.decode("utf-8", "backslashreplace").rstrip("\r") for raw in lines):
            said = REDIS_LINE.fullmatch(line)
            if said is None:  # `franker redis` before it became the server: a line of our own form
                _write(2, f"{line}\n")
            elif not REDIS_ROUTINE.search(said[1]):
                self._log("redis", text=said[1])

    def _reap(self) -> None:
        """Take note of every child that ended, also of those adopted as process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for part in self._parts:
                if part.pid == pid:
                    part.pid, part.up, part.rereading = 0, False, False
                    if not self._stopping:
                        self._judge(part, status)

    def _judge(self, part: Part, status: int) -> None:
        """Decide what follows from the unexpected end of `part`."""
        now = time.monotonic()
        part.failures = 1 if now - part.started > _LASTED_S else part.failures + 1
        end = describe_end(status)
        if os.waitstatus_to_exitcode(status) == EX_CONFIG:
            self._log("part_ended", part=part.name, end=end, then="stop: configuration")
            self._exit_code, self._stopping = EX_CONFIG, True
        elif not part.ready and part.failures >= _HOPELESS:
            self._log("part_ended", part=part.name, end=end, then="stop: it never got ready")
            self._exit_code, self._stopping = 1, True
        else:
            delay = restart_delay(part.failures)
            part.due = now + delay
            self._log("part_ended", part=part.name, end=end, then=f"restart in {delay:.1f} s")

    def _end_all(self) -> None:
        """End the parts stage by stage; those that do not listen are killed."""
        _tell_systemd("STOPPING=1")
        for stage in _ENDING_ORDER:
            group = [part for part in self._parts if part.name in stage]
            _signal(group, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            while any(part.pid for part in group):
                left = deadline - time.monotonic()
                if left <= 0:
                    for part in group:
                        if part.pid:
                            self._log("part_killed", part=part.name, after=f"{_GRACE_S:.0f} s")
                    _signal(group, signal.SIGKILL)
                    deadline = time.monotonic() + _GRACE_S
                self._wait(max(0.0, left))
                self._reap()

    def _log(self, event: str, **facts: str) -> None:
        millis = time.time_ns() // 1_000_000
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000))
        stamp = f"{stamp}.{millis % 1000:03d}Z"
        if self._json_log:
            line = json.dumps({"time": stamp, "event": event, **facts})
        else:
            quoted = (f"{key}={_quoted(value)}" for key, value in facts.items())
            line = " ".join((stamp, event, *quoted))
        _write(2, f"{line}\n")


def _write(descriptor: int, text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it: no reason to stop
        os.write(descriptor, text.encode())


def _quoted(value: str) -> str:
    return json.dumps(value) if " " in value or not value else value


def _signal(parts: Iterable[Part], number: signal.Signals) -> None:
    for part in parts:
        if part.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(part.pid, number)


def _tell_systemd(text: str) -> None:
    """Send one line of sd_notify(3) to whoever started this process, if it wants to hear."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), _datagram() as channel:
            channel.sendto(text.encode(), address.replace("@", "\0", 1))


def _drain(read_end: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(read_end, 4096)


def _pass_sockets(environ: dict[str, str], *, to_proxy: bool, parent: int) -> None:
    """In a child of `parent`: hand on to the proxy what systemd passed, close it in the others."""
    passed = int(environ.get("LISTEN_FDS", "0"))
    if environ.get("LISTEN_PID") == str(parent) and to_proxy:
        environ["LISTEN_PID"] = str(os.getpid())
        return
    if environ.get("LISTEN_PID") == str(parent):
        os.closerange(_FIRST_PASSED_FD, _FIRST_PASSED_FD + passed)
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(name, None)


def _datagram() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _part(name: str, folder: str) -> Part:
    channel = _datagram()
    channel.bind(f"{folder}/{name}")
    program = Path(sys.executable).with_name("franker")  # so that ps(1) shows "franker proxy"
    how = [str(program)] if program.exists() else ["-P", "-m", "proxy.cli"]
    return Part(name, [sys.executable, *how, name], channel)


def main() -> int:
    """Run what the command line names; return the exit code."""
    arguments = argparse.ArgumentParser(prog="proxy.supervisor")
    arguments.add_argument("--log", choices=("kv", "json"), default="kv")
    arguments.add_argument("--run-file", type=Path, required=True)
    arguments.add_argument("parts", nargs="+", choices=("redis", "sandbox", "proxy", "worker"))
    given = arguments.parse_args()
    try:
        run_file = RunFile(given.run_file)
    except BlockingIOError:
        sys.stderr.write(f"franker run: already running ({given.run_file} is locked)\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="franker-") as folder:
        parts = [_part(name, folder) for name in given.parts]
        return Supervisor(parts, run_file, json_log=given.log == "json").run()


if __name__ == "__main__":
    sys.exit(main())
