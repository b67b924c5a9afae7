"""What tests of `franker-sendmail` do with the host that they run it on."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.office import Office
from tests.support.sendmail import python_for_everybody
from tests.support.waiting import wait_for

needs_users = pytest.mark.skipif(
    os.geteuid() != 0 or not python_for_everybody(),
    reason="mail of several users needs root, and a Python that all of them can start",
)

RULES = [
    {"name": "nobody's", "user": ["65534"], "tag": "by-nobody", "owner": "owner@example.com"},
    {"name": "no more", "recipient": ["refused@*"], "action": "reject"},
    {"name": "away", "recipient": ["discarded@*"], "action": "discard"},
]
SETTINGS = {
    "local": {"from": "servers@example.com", "aliases": {"daemon": "daemon@example.com"}},
    "notify": {"to": "ops@example.com", "from": "franker@example.com"},
    "listen": {"max_recipients": 3},
    "rules": RULES,
}


def kill_proxy(host: Office) -> None:
    os.kill(host.pid_of("proxy"), signal.SIGKILL)


@contextlib.contextmanager
def stopped_proxy(host: Office) -> Iterator[None]:
    pid = host.pid_of("proxy")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def store(host: Office) -> Iterator[Any]:
    """A client of the host's Redis."""
    path = str(host.installation.data_dir / "redis.sock")
    with contextlib.closing(redis.Redis(unix_socket_path=path)) as client:
        yield client


def proxy_answers(host: Office) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", host.smtp_port), timeout=5) as dialog,
    ):
        return dialog.recv(3) == b"220"
    return False


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """A server that gives these replies, one to each thing it hears, the first unasked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    with near:
                        for number, reply in enumerate(replies):
                            heard = near.recv(65536) if number else b""
                            while replies[number - 1].startswith(b"354") and heard[-3:] != b".\r\n":
                                heard += near.recv(65536)
                            near.sendall(reply)
                        while near.recv(65536):
                            pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def a_message(to: str, text: str = "text") -> bytes:
    return f"From: app@example.com\nTo: {to}\nSubject: hello\n\n{text}\n".encode()


def dead_letter(host: Office, recipient: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def look() -> bool:
        listed = json.loads(host.installation.run("queue", "dead", "--json").stdout)
        found[:] = [one for one in listed if recipient in one["recipients"]]
        return bool(found)

    wait_for(look, 20, f"a dead letter to {recipient}")
    assert len(found) == 1
    return found[0]
