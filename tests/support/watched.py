"""A site that a real Prometheus watches: failures are caused here, and alerts awaited."""

import contextlib
import signal
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.sandbox.account import TOKEN
from tests.support.far_end import BackgroundFarEnd
from tests.support.processes import Installation, Program
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_for

SOON_S = 90.0
"""Nothing takes that long but a failure: the alerts here come within seconds."""

_AGAIN_S = 4.0


class Trickle:
    """Hands in some messages a second until `stop`, whatever it is answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(0.25):
            with (
                contextlib.suppress(OSError, smtplib.SMTPException),
                smtplib.SMTP("127.0.0.1", self._port, timeout=5) as client,
            ):
                for _ in range(3):
                    number += 1
                    to = [f"t{number}@example.net"]
                    client.sendmail("app@example.com", to, letter("daily"))

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(20)


def letter(subject: str, octets: int = 200) -> bytes:
    body = ("x" * 70 + "\r\n") * (octets // 72 + 1)
    return f"From: app@example.com\r\nSubject: {subject}\r\n\r\n{body}".encode()


class Watched:
    """Every process of its own, a far end, and a Prometheus that watches."""

    def __init__(self, folder: Path, far_end: BackgroundFarEnd) -> None:
        self.far_end = far_end
        self.api_token = folder / "api-token"
        self.api_token.write_text(TOKEN)
        self.settings: dict[str, Any] = {
            "postmark": far_end.postmark(),
            "redis": {"max_memory": "6MB"},
            "retry": {"first": "1s", "cap": "1s"},
            "streams": {
                "outbound": {
                    "token": {"env": "POSTMARK_SERVER_TOKEN"},
                    "api_token": {"file": self.api_token},
                }
            },
        }
        self.site = Installation(folder, self.settings)
        self.site.environ["POSTMARK_SERVER_TOKEN"] = TOKEN
        self.redis = self.site.start("redis")
        self.proxy = self._started("proxy", " started process=proxy")
        self.worker = self._started("worker", " started process=worker")
        self.prometheus = Prometheus(
            folder,
            {
                "franker-proxy": [f"127.0.0.1:{self.site.http_port}"],
                "franker-worker": [f"127.0.0.1:{self.site.worker_port}"],
            },
        )
        self._began = time.monotonic()

    def _started(self, name: str, word: str) -> Program:
        program = self.site.start(name)
        program.wait_for(word, SOON_S)
        return program

    def restart_proxy(self) -> None:
        self.proxy = self._started("proxy", " started process=proxy")

    def restart_worker(self) -> None:
        self.worker = self._started("worker", " started process=worker")

    def send(self, subject: str = "one", octets: int = 200, to: str = "a@example.net") -> None:
        with smtplib.SMTP("127.0.0.1", self.site.smtp_port, timeout=30) as client:
            client.sendmail("app@example.com", [to], letter(subject, octets))

    def send_until_refused(self) -> None:
        """Hand in great messages until the store is full; fail when it never is."""
        with pytest.raises(smtplib.SMTPDataError, match="452"):
            self._send_much()

    def _send_much(self) -> None:
        for number in range(20):
            self.send(f"number {number}", 900_000)

    @contextlib.contextmanager
    def not_durable(self) -> Iterator[None]:
        """Let Redis be one that may lose what it has confirmed."""
        client = redis.Redis(unix_socket_path=str(self.site.data_dir / "redis.sock"))
        client.config_set("appendfsync", "everysec")
        try:
            yield
        finally:
            client.config_set("appendfsync", "always")
            client.close()

    @contextlib.contextmanager
    def standing_still(self, program: Program) -> Iterator[None]:
        """Stop a process without ending it."""
        program.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            program.signal(signal.SIGCONT)

    def begins(self) -> None:
        """Forget what has fired so far."""
        self._began = time.monotonic()

    def fires(
        self, alert: str, *, again: Callable[[], object] | None = None, **labels: str
    ) -> None:
        """Wait until `alert` fires, or see that it has since `begins`.

        `again` causes it once more, from time to time: on a busy machine Prometheus may see nothing
        of what happens once, since the hours of our rules are seconds here.
        """
        due = time.monotonic() + _AGAIN_S

        def has_fired() -> bool:
            nonlocal due
            if self.prometheus.fired(alert, time.monotonic() - self._began, **labels):
                return True
            if again is not None and time.monotonic() > due:
                again()
                due = time.monotonic() + _AGAIN_S
            return False

        self._wait(has_fired, f"{alert} fires")

    def is_over(self, alert: str) -> None:
        """Wait until `alert` fires no more."""
        self._wait(lambda: not self.prometheus.firing(alert), f"{alert} is over")

    def holds(self, expression: str) -> None:
        """Wait until Prometheus has an answer to `expression`."""
        self._wait(lambda: self.prometheus.ask(expression), expression)

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        try:
            wait_for(condition, SOON_S, what)
        except AssertionError as error:
            firing = sorted(self.prometheus.all_firing())
            logs = f"{self.proxy.log[-1500:]}\n{self.worker.log[-1500:]}"
            raise AssertionError(f"{error}; firing: {firing}\n{logs}") from None

    def close(self) -> None:
        self.prometheus.close()
        self.site.close()
