"""Franker as it ships: `franker run` with its private Redis, settings at their defaults."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from benchmarks.far import Far
from benchmarks.processes import family, free_port

ROOT = Path(__file__).parents[1]
_READY_S = 30.0
_END_S = 40.0

_CONFIG = """
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
    """A running Franker that relays to `far`; only addresses differ from the defaults.

    `parts` names the processes to start: ("run",), or single ones for a measurement of the queue.
    """

    name = "franker"

    def __init__(self, folder: Path, far: Far, parts: tuple[str, ...] = ("run",)) -> None:
        self.port, self._http, self._worker_http = free_port(), free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = folder / "data"
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self._config = folder / "franker.toml"
        self._config.write_text(
            _CONFIG.format(
                data_dir=self.data_dir,
                smtp=self.port,
                http=self._http,
                worker=self._worker_http,
                sink=far.port,
                ca_file=far.ca_file,
            ),
            encoding="utf-8",
        )
        self._log = (folder / "log").open("ab")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for part in parts:
            self.start(part)

    def start(self, part: str) -> None:
        """Start one command of `franker`, and wait until it is ready."""
        program = Path(sys.executable).with_name("franker")
        how = [str(program)] if program.exists() else ["-P", "-m", "proxy.cli"]
        self._processes[part] = subprocess.Popen(
            [sys.executable, *how, part, "--config", str(self._config)],
            env=_environ(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        if part in ("run", "proxy"):
            self._wait_ready(self._http)
        if part in ("run", "worker"):
            self._wait_ready(self._worker_http)

    def _wait_ready(self, port: int) -> None:
        deadline = time.monotonic() + _READY_S
        url = f"http://127.0.0.1:{port}/readyz"
        said = "nothing listens there"
        while time.monotonic() < deadline:
            for part, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"franker {part} ended: see {self._log.name}")
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    answer.read()
                    return
            except urllib.error.HTTPError as error:
                said = error.read().decode("utf-8", "replace")
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not ready within {_READY_S:.0f} s: {said}; see {self._log.name}")

    def processes(self) -> dict[int, str]:
        """Return pid and name of all its processes."""
        return {
            pid: name
            for process in self._processes.values()
            for pid, name in family(process.pid).items()
        }

    def close(self) -> None:
        """End it, the last started first."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environ() -> dict[str, str]:
    """Nothing of the operator's own Franker, and a token that no server has."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FRANKER_", "POSTMARK_", "LISTEN_", "NOTIFY_"))
    }
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    token = "00000000-0000-4000-8000-000000000000"
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "POSTMARK_SERVER_TOKEN": token}


def used_memory(data_dir: Path) -> int:
    """Return the octets that the private Redis in `data_dir` says it uses."""
    import redis

    with redis.Redis(unix_socket_path=str(data_dir / "redis.sock")) as client:
        said = client.info("memory")
    assert isinstance(said, dict), json.dumps(str(said))
    return int(said["used_memory"])
