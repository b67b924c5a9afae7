"""The real `franker` processes for tests: own ports, own folder, own end."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 60.0  # for failure only: five processes start at once on a machine that is busy


def free_port(row: int = 1) -> int:
    """Return the first of `row` TCP ports of 127.0.0.1 and ::1 that nobody uses at this moment.

    They lie below those that Linux gives to connections going out, of which a test makes thousands.
    """
    for _attempt in range(50):
        first = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as bound:
            for port in range(first, first + row):
                _bind(bound, socket.AF_INET, ("127.0.0.1", port))
                if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
                    _bind(bound, socket.AF_INET6, ("::1", port))
            return first
    raise AssertionError("no free port")


def _bind(bound: contextlib.ExitStack, family: int, address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as one:
        sock = one.enter_context(socket.socket(family))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        bound.push(one.pop_all())


def franker_command(*arguments: str) -> list[str]:
    """Return the command line of `franker ARGUMENTS` under this interpreter."""
    program = Path(sys.executable).with_name("franker")
    how = [str(program)] if program.exists() else ["-P", "-m", "proxy.cli"]
    return [sys.executable, *how, *arguments]


def clean_environ(**more: str) -> dict[str, str]:
    """Return an environment in which nothing of this host's own Franker or Postmark is left."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FRANKER_", "POSTMARK_", "LISTEN_", "NOTIFY_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def toml(sections: Mapping[str, Any]) -> str:
    """Return `sections` as TOML: top-level values first, one inline value a line."""

    def inline(value: object) -> str:
        if isinstance(value, Mapping):
            return (
                "{ " + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + " }"
            )
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(inline, value)) + "]"
        return json.dumps(str(value) if isinstance(value, Path) else value)

    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in sections.items())


def run_franker(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = _DEADLINE_S,
) -> subprocess.CompletedProcess[str]:
    """Run a command of `franker` to its end."""
    return subprocess.run(
        franker_command(*arguments),
        env=clean_environ(**(environ or {})),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Program:
    """One running `franker` command; what it writes is in `output` and `log`."""

    def __init__(self, *arguments: str, folder: Path, environ: Mapping[str, str]) -> None:
        name = "-".join(arguments).replace("/", "_")[-60:]
        self._stdout = folder / f"{name}.{time.monotonic_ns()}.out"
        self._stderr = self._stdout.with_suffix(".err")
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                franker_command(*arguments),
                env=clean_environ(**environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What was written to standard output so far."""
        return self._stdout.read_text(encoding="utf-8", errors="replace")

    @property
    def log(self) -> str:
        """What was written to standard error so far."""
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def wait_for(self, text: str, timeout: float = _DEADLINE_S) -> None:
        """Return when `text` was written to either stream; fail when it ends first or never."""
        deadline = time.monotonic() + timeout
        while text not in self.output and text not in self.log:
            ended = self.exit_code
            if ended is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"no {text!r} (exit code {ended}) in:\n{self.output}\n{self.log[-8000:]}"
                )
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it at once, and wait until it is gone."""
        self._process.kill()
        self._process.wait(30)

    def stop(self, timeout: float = _DEADLINE_S) -> int:
        """Ask it to end, wait until it has, and return its exit code; fail when it does not."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as late:
            self._process.kill()
            self._process.wait(30)
            raise AssertionError(f"did not end within {timeout} s:\n{self.log[-8000:]}") from late


class Installation:
    """A folder with a configuration on free ports, in which commands are started.

    `settings` is laid over the test's defaults, section by section.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.smtp_port, self.http_port = free_port(), free_port()
        self.worker_port = free_port(row=2)  # a second worker listens on the next
        self.environ: dict[str, str] = {"XDG_STATE_HOME": str(folder / "state")}
        self.programs: list[Program] = []
        self.config = folder / "franker.toml"
        self.configure(settings or {})

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration anew; processes read it at their start."""
        sections: dict[str, Any] = {
            "data_dir": self.data_dir,
            "listen": {
                "smtp": [f"127.0.0.1:{self.smtp_port}", f"[::1]:{self.smtp_port}"],
                "http": f"127.0.0.1:{self.http_port}",
            },
            "worker": {"http": f"127.0.0.1:{self.worker_port}"},
        }
        for name, value in settings.items():
            if isinstance(value, Mapping) and isinstance(sections.get(name), dict):
                sections[name] = {**sections[name], **value}
            else:
                sections[name] = value
        self.config.write_text(toml(sections), encoding="utf-8")

    def start(self, *arguments: str) -> Program:
        """Start `franker ARGUMENTS --config ...`."""
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        command = (*arguments, "--config", str(self.config))
        program = Program(*command, folder=self.folder, environ=self.environ)
        self.programs.append(program)
        return program

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `franker ARGUMENTS --config ...` to its end."""
        command = (*arguments, "--config", str(self.config))
        return run_franker(*command, environ=self.environ, stdin=stdin)

    def close(self) -> None:
        """End what was started here, the last first; fail when one had to be killed."""
        with contextlib.ExitStack() as stack:  # one that does not end keeps no other from ending
            for program in self.programs:
                if program.exit_code is None:
                    stack.callback(program.stop)


def http_get(address: str, path: str) -> tuple[int, str]:
    """Return status and text of http://ADDRESS/PATH."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()
