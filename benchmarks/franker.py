"""Franker as it ships: its private Redis, settings at their defaults but for what a setup says."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import redis

from benchmarks.far import Far
from benchmarks.processes import family, free_port
from benchmarks.scenarios import AS_SHIPPED, Setup

ROOT = Path(__file__).parents[1]
_READY_S = 120.0  # with a queue of half a million to load
_LOOK_S = 0.01
_END_S = 40.0

CONFIG = """
data_dir = "{data_dir}"
[listen]
smtp = ["127.0.0.1:{smtp}"]
http = "127.0.0.1:{http}"
[worker]
http = "127.0.0.1:{worker}"
[postmark]
transactional_host = "127.0.0.1"
broadcast_host = "127.0.0.1"
ports = [{sink}]
ca_file = "{ca_file}"
api_url = "http://127.0.0.1:9"
"""


class Franker:
    """A running Franker that relays to `far`, as `setup` says.

    As shipped it is one `franker run`; with more of a part, or without relaying, each part is
    started by itself, as its services are.
    """

    name = "franker"

    def __init__(self, folder: Path, far: Far, setup: Setup = AS_SHIPPED) -> None:
        self._setup = setup
        self._data_dir = folder / "data"
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._config = folder / "franker.toml"
        self._log = (folder / "log").open("ab")
        self._running: list[subprocess.Popen[bytes]] = []
        smtp, http = ([free_port() for _ in range(setup.proxies)] for _ in range(2))
        worker = free_port()
        self.ports = tuple(smtp)
        text = CONFIG.format(
            data_dir=self._data_dir,
            smtp=smtp[0],
            http=http[0],
            worker=worker,
            sink=far.port,
            ca_file=far.ca_file,
        )
        self._config.write_text(text, encoding="utf-8")
        try:
            if setup.relaying and setup.workers == setup.proxies == 1:
                self._start("run")
                self._wait_ready(http[0], worker)
            else:
                self._start_parts(http)
        except BaseException:
            self.close()
            raise

    def _start_parts(self, http: list[int]) -> None:
        self._start("redis")
        for smtp_port, http_port in zip(self.ports, http, strict=True):
            own = {
                "FRANKER_LISTEN__SMTP": f"127.0.0.1:{smtp_port}",
                "FRANKER_LISTEN__HTTP": f"127.0.0.1:{http_port}",
            }
            self._start("proxy", own)
        self._wait_ready(*http)
        if self._setup.relaying:
            self.release()

    def _start(self, part: str, extra: Mapping[str, str] | None = None, *words: str) -> None:
        program = Path(sys.executable).with_name("franker")
        how = [str(program)] if program.exists() else ["-P", "-m", "proxy.cli"]
        process = subprocess.Popen(
            [sys.executable, *how, part, "--config", str(self._config), *words],
            env=_environ(self._setup) | dict(extra or {}),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._running.append(process)

    def release(self) -> None:
        """Start the workers, and return when all of them relay."""
        ports = [free_port() for _ in range(self._setup.workers)]
        for number, port in enumerate(ports, start=1):
            # Worker N listens on the port that is configured + N - 1.
            own = {"FRANKER_WORKER__HTTP": f"127.0.0.1:{port - number + 1}"}
            self._start("worker", own, "--number", str(number))
        self._wait_ready(*ports)

    def _wait_ready(self, *ports: int) -> None:
        deadline = time.monotonic() + _READY_S
        left, said = list(ports), "nothing listens there"
        while left:
            if any(process.poll() is not None for process in self._running):
                raise RuntimeError(f"a part of franker ended: see {self._log.name}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"not ready within {_READY_S:.0f} s: {said}; see {self._log.name}"
                )
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{left[0]}/readyz", timeout=5) as one:
                    one.read()
                del left[0]
                continue
            except urllib.error.HTTPError as error:
                said = error.read().decode("utf-8", "replace")
            except OSError:
                pass
            time.sleep(_LOOK_S)

    def kept_octets(self) -> int:
        """Return the octets of memory that the private Redis says it uses."""
        with redis.Redis(unix_socket_path=str(self._data_dir / "redis.sock")) as client:
            said = client.info("memory")
        assert isinstance(said, dict)
        return int(said["used_memory"])

    def processes(self) -> dict[int, str]:
        """Return pid and name of all its processes."""
        return {pid: name for process in self._running for pid, name in family(process.pid).items()}

    def close(self) -> None:
        """End it, the last started first."""
        while self._running:
            process = self._running.pop()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait(10)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environ(setup: Setup) -> dict[str, str]:
    """Nothing of the operator's own Franker, a token that no server has, and what differs."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FRANKER_", "POSTMARK_", "LISTEN_", "NOTIFY_"))
    }
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    kept["PYTHONPATH"] = os.pathsep.join(paths)
    kept["POSTMARK_SERVER_TOKEN"] = "00000000-0000-4000-8000-000000000000"
    if setup.connections != AS_SHIPPED.connections:
        kept["FRANKER_POSTMARK__CONNECTIONS"] = str(setup.connections)
    if setup.max_memory:
        kept["FRANKER_REDIS__MAX_MEMORY"] = setup.max_memory
    return kept
