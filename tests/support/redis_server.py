"""A real private Redis for one test: started, stopped, killed and paused at will."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy.queue.aof import mend
from proxy.queue.server import FOLDER, server_arguments
from tests.support.waiting import wait_for


class RedisServer:
    """A redis-server process as `franker redis` runs it: on `data_dir`/redis.sock.

    `options` are settings of Redis beside (or instead of) Franker's own; a list is several words.
    `port` other than 0 lets it listen on 127.0.0.1 too. `binary` may be a Valkey server.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: str = "redis-server",
        port: int = 0,
        options: Mapping[str, str | list[str]] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.socket = data_dir / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.port = port
        self._binary = binary
        self.options: dict[str, str | list[str]] = {"loglevel": "notice", "bind": "127.0.0.1"}
        self.options.update(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it answers (all its files read)."""
        assert not self.running
        files = self.data_dir / FOLDER
        files.mkdir(exist_ok=True)
        mend(files)
        self.socket.unlink(missing_ok=True)
        arguments = [self._binary, *server_arguments(self.data_dir), "--port", str(self.port)]
        for name, value in self.options.items():
            arguments += [f"--{name}", *([value] if isinstance(value, str) else value)]
        with (self.data_dir / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, 30, "redis-server answers")

    def _answers(self) -> bool:
        assert self.running, (self.data_dir / "redis.log").read_text()
        probe = redis.Redis(
            unix_socket_path=str(self.socket), socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(probe.ping())
        except redis.RedisError:
            return False
        finally:
            probe.close()

    def stop(self) -> None:
        """End it in order (SIGTERM) and wait for that."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if self.running:
            os.kill(self.pid, signal.SIGCONT)
        wait_for(lambda: self._ends(number), 30, "redis-server ends")

    def _ends(self, number: int) -> bool:
        """Ask it to end, unless it has: a SIGTERM while it writes its first append-only file is
        answered with "Writing initial AOF, can't exit", and forgotten."""
        assert self._process is not None
        if self.running:
            os.kill(self.pid, number)
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            return False
        return True

    def restart(self) -> None:
        """Start it again on the same files."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it without ending it: it accepts connections and answers nothing (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a plain synchronous connection, for a test to look into the server."""
        client = redis.Redis(unix_socket_path=str(self.socket), socket_timeout=30)
        self._clients.append(client)
        return client

    def log(self) -> str:
        """Return what the server has said so far."""
        return (self.data_dir / "redis.log").read_text()


def new_data_dir() -> Path:
    """Return a new folder whose name is short enough for a unix socket in it (108 octets)."""
    return Path(tempfile.mkdtemp(prefix="fr"))


def remove_data_dir(data_dir: Path) -> None:
    """Remove what `new_data_dir` made."""
    shutil.rmtree(data_dir, ignore_errors=True)
