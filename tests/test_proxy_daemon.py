"""The proxy process: what it opens, says, and does when it is told to end."""

import asyncio
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

import proxy
from proxy.daemon import _missing_logins, serve
from proxy.listener.counting import REASONS
from proxy.mail.repairs import Repair
from proxy.own_host import StartError, host_names, read_aliases
from tests.support.listening import MESSAGE, settings_for
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for, wait_until

RUN = """
import asyncio, json, sys
import uvloop
from proxy.config.model import Settings
from proxy.daemon import serve
settings = Settings.model_validate(json.loads(sys.argv[1]))
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(serve(settings, "a test", ("a notice",)))
"""


class Running:
    """A proxy process, and what it said."""

    def __init__(self, process: subprocess.Popen[str], facts: dict[str, str], log: Path) -> None:
        self.process = process
        self.smtp = facts["X_SMTP"].split()
        self.http = facts["X_HTTP"]
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self) -> smtplib.SMTP:
        host, _, port = self.smtp[0].rpartition(":")
        return smtplib.SMTP(host, int(port), timeout=30)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as answer:
            return str(answer.read().decode())


@contextmanager
def running(data_dir: Path, **tables: Any) -> Iterator[Running]:
    """Run the proxy in a process of its own, and wait until it says that it is ready."""
    settings = settings_for(data_dir, **tables)
    text = settings.model_dump_json(by_alias=True, exclude_unset=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(data_dir / "notify.sock"))
        told.settimeout(60)
        environ = os.environ | {"NOTIFY_SOCKET": str(data_dir / "notify.sock")}
        log = data_dir / "proxy.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, text], stderr=file, text=True, env=environ
            )
        try:
            lines = told.recv(4096).decode().splitlines()
            assert lines[0] == "READY=1"
            found = Running(process, dict(line.split("=", 1) for line in lines), log)
            yield found
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert told.recv(4096) == b"STOPPING=1"
                assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def test_a_message_handed_to_the_process_is_in_the_queue_and_in_its_metrics(
    redis_server: RedisServer,
) -> None:
    with running(redis_server.data_dir) as proxy:
        with proxy.client() as client:
            client.sendmail("app@example.com", ["you@example.net"], MESSAGE)
            assert redis_server.client().llen("rq:queue:franker-outbound") == 1
            metrics = proxy.get("/metrics").splitlines()
            assert 'franker_messages_accepted_total{stream="outbound"} 1.0' in metrics
            assert "franker_connections 1.0" in metrics
            assert "franker_store_durable 1.0" in metrics
            assert "franker_message_size_bytes_count 1.0" in metrics
            assert "franker_accept_duration_seconds_count 1.0" in metrics
        assert proxy.get("/readyz") == "ok\n"
        assert proxy.get("/healthz") == "ok\n"
        assert ' notice text="a notice"' in proxy.log
        assert " started process=proxy " in proxy.log
        assert " kept id=" in proxy.log
    assert " stopping process=proxy " in proxy.log
    assert "defect" not in proxy.log


def test_every_series_is_there_with_0_before_anything_happens(redis_server: RedisServer) -> None:
    with running(redis_server.data_dir) as proxy:
        metrics = proxy.get("/metrics").splitlines()
    for name, label, values in (
        ("messages_accepted", "stream", ("outbound",)),
        ("messages_refused", "reason", REASONS),
        ("messages_repaired", "kind", get_args(Repair)),
        ("defects", "where", ("listener", "commit")),
    ):
        for value in values:
            assert f'franker_{name}_total{{{label}="{value}"}} 0.0' in metrics


def test_no_reason_for_a_refusal_is_missing_from_those_that_begin_at_0() -> None:
    said = set()
    for file in (Path(proxy.__path__[0]) / "listener").glob("*.py"):
        said |= set(re.findall(r'MESSAGES_REFUSED\.labels\("(\w+)"\)', file.read_text()))
        said |= set(re.findall(r'self\.refuse\([^\n]*, "(\w+)"', file.read_text()))
    assert {"size", "memory", "client", "syntax", "http", "tls"} <= said <= set(REASONS)


def test_queue_depths_are_shown(redis_server: RedisServer) -> None:
    redis_server.client().rpush("rq:queue:franker-outbound", "a", "b")
    with running(redis_server.data_dir) as proxy:
        line = 'franker_queue_messages{state="queued",stream="outbound"} 2.0'
        wait_for(lambda: line in proxy.get("/metrics").splitlines(), what=line)


def test_sigterm_in_the_middle_of_mail_lets_it_be_kept(redis_server: RedisServer) -> None:
    with running(redis_server.data_dir) as proxy:
        client = proxy.client()
        client.ehlo()
        client.mail("app@example.com")
        client.rcpt("you@example.net")
        assert client.docmd("DATA")[0] == 354
        proxy.process.send_signal(signal.SIGTERM)
        wait_for(lambda: " stopping " in proxy.log, what="it was told to end")
        client.send(MESSAGE + b".\r\n")
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421
        client.close()
        assert proxy.process.wait(30) == 0
        assert redis_server.client().llen("rq:queue:franker-outbound") == 1


@asynccontextmanager
async def serving(data_dir: Path, **tables: Any) -> AsyncIterator[None]:
    """Serve within this process until the block ends."""
    ready, stop = asyncio.Event(), asyncio.Event()
    settings = settings_for(data_dir, **tables)
    task = asyncio.create_task(serve(settings, "a test", (), ready=ready, stop=stop))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    yield
    stop.set()
    await task


async def test_readiness_is_503_with_the_reason_while_the_store_is_not_to_be_trusted(
    redis_server: RedisServer,
) -> None:
    redis_server.client().config_set("appendfsync", "no")
    http = f"127.0.0.1:{free_port()}"
    settings = settings_for(redis_server.data_dir, listen={"http": http})
    stop = asyncio.Event()
    task = asyncio.create_task(serve(settings, "a test", (), stop=stop))

    async def not_durable() -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{http}/readyz") as a,
            ):
                return a.status == 503 and "appendfsync is no" in await a.text()
        except aiohttp.ClientConnectionError:
            return False

    await wait_until(not_durable, 60, "503 and the reason")
    stop.set()
    await task


async def test_an_address_that_is_taken_stops_the_start_with_its_name(
    redis_server: RedisServer,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"listen.smtp: {address}: another program"):
            async with serving(redis_server.data_dir, listen={"smtp": [address]}):
                pass


async def test_a_certificate_that_is_not_there_stops_the_start(redis_server: RedisServer) -> None:
    files = {"cert": "/nonexistent/cert.pem", "key": "/nonexistent/key.pem"}
    smtp = [{"address": "127.0.0.1:0", "tls": files}]
    with pytest.raises(StartError, match=r"listen\.smtp 127\.0\.0\.1:0 tls: "):
        async with serving(redis_server.data_dir, listen={"smtp": smtp}):
            pass


async def test_an_aliases_file_that_is_not_there_stops_the_start(
    redis_server: RedisServer,
) -> None:
    with pytest.raises(StartError, match=r"local\.aliases_file: /nonexistent: No such file"):
        async with serving(redis_server.data_dir, local={"aliases_file": "/nonexistent"}):
            pass


async def test_a_http_port_that_is_taken_is_said_and_mail_is_taken(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        http = f"127.0.0.1:{taken.getsockname()[1]}"
        async with serving(redis_server.data_dir, listen={"http": http}):
            pass
    shown = capfd.readouterr().err
    assert f"listen.http: {http}: " in shown
    assert "mail is taken without metrics" in shown


def test_a_stream_without_a_login_is_told_by_the_names_of_its_secrets(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTMARK_SERVER_TOKEN", raising=False)
    assert _missing_logins(settings_for(data_dir)) == "POSTMARK_SERVER_TOKEN"
    monkeypatch.setenv("POSTMARK_SERVER_TOKEN", "a-token")
    assert _missing_logins(settings_for(data_dir)) == ""


def test_the_host_has_a_name() -> None:
    name, names = host_names()
    assert name
    assert socket.gethostname().lower() in names


def test_aliases_are_read_when_a_file_is_named(data_dir: Path) -> None:
    file = data_dir / "aliases"
    file.write_text("root: ops@example.com\n")
    assert read_aliases(settings_for(data_dir)) == ""
    named = settings_for(data_dir, local={"aliases_file": str(file)})
    assert read_aliases(named) == "root: ops@example.com\n"
