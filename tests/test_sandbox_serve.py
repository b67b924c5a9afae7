"""The stand-in as a program, and how Franker is pointed to it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from proxy.config import Settings
from proxy.config.model import Stream
from proxy.config.secrets import Secret
from proxy.sandbox import where as places
from proxy.sandbox.account import TOKEN
from proxy.sandbox.where import Where, account_for, find, prepare, sandbox_settings
from tests.support.dialog import Dialog
from tests.support.processes import clean_environ
from tests.support.waiting import wait_for

PROGRAM = """
import asyncio, json, pathlib, sys
from proxy.sandbox.account import Account
from proxy.sandbox.serve import serve
from proxy.sandbox.where import find
facts = pathlib.Path(sys.argv[1]) / "facts"
def ready(said):
    facts.with_suffix(".part").write_text(json.dumps(dict(said)))
    facts.with_suffix(".part").rename(facts)
asyncio.run(serve(find(pathlib.Path(sys.argv[1])), Account(), ready=ready))
"""


def test_the_usual_ports_are_taken_when_they_are_free_else_others(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = held.getsockname()[1]
        assert places._free(("127.0.0.1", "127.0.0.2"), taken) != taken
    assert places._free(("127.0.0.1", "127.0.0.2"), taken) == taken


def test_two_that_start_at_the_same_time_do_not_get_the_same_ports(tmp_path: Path) -> None:
    """What the first prepared it binds only later, as another program in the same process."""
    script = (
        "import os, pathlib, sys; from proxy.sandbox.where import prepare;"
        "prepare(pathlib.Path(sys.argv[1])); os.execlp('sleep', 'sleep', '600')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "one")], env=clean_environ()
    ) as first:
        try:
            comm = Path(f"/proc/{first.pid}/comm")
            wait_for(lambda: comm.read_text() == "sleep\n", 60, "it is another program")
            one, two = find(tmp_path / "one"), prepare(tmp_path / "two")
            assert not {*one.ports, one.http_port} & {*two.ports, two.http_port}
        finally:
            first.kill()
    port = one.ports[0]
    assert places._free(("127.0.0.1", "127.0.0.2"), port) == port


def test_what_was_prepared_is_found_by_the_next_process(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "sandbox")
    assert find(tmp_path / "sandbox") == prepared
    assert prepared.ca_file.read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert len({*prepared.ports, prepared.http_port}) == 4


def test_a_broken_note_of_where_it_is_means_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "where.json").write_text("[]")
    assert find(tmp_path) == Where(tmp_path)


def test_every_stream_is_given_the_tokens_of_the_sandbox_and_no_real_one(tmp_path: Path) -> None:
    real = (Secret(env="POSTMARK_SERVER_TOKEN"),)
    settings = Settings(
        streams={
            "outbound": Stream(token=real),
            "news": Stream(id="weekly", kind="broadcast", access_key=real, secret_key=real),
        }
    )
    environ = sandbox_settings(settings, Where(tmp_path, (1, 2, 3), 4))
    streams = {
        name: Stream(**value) for name, value in json.loads(environ["FRANKER_STREAMS"]).items()
    }
    assert streams["news"].id == "weekly"
    assert streams["news"].kind == "broadcast"
    for stream in streams.values():
        assert [one.name for one in stream.token] == ["env FRANKER_SANDBOX_TOKEN"]
        assert stream.access_key == stream.secret_key == stream.api_token == ()
    assert environ["FRANKER_SANDBOX_TOKEN"] == TOKEN
    assert environ["FRANKER_POSTMARK__PORTS"] == "[1, 2, 3]"
    assert environ["FRANKER_POSTMARK__CA_FILE"] == str(tmp_path / "ca.pem")
    assert account_for(settings).streams["weekly"] == "broadcast"


def test_it_says_where_it_is_then_one_line_for_each_message(tmp_path: Path) -> None:
    where = prepare(tmp_path / "s")
    output = tmp_path / "out"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(where.folder)],
            env=clean_environ(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for((where.folder / "facts").exists, what="ready")
        facts = json.loads((where.folder / "facts").read_text())
        assert facts["HTTP"] == f"127.0.0.1:{where.http_port}"
        assert facts["SMTP"].split()[0] == f"127.0.0.1:{where.ports[0]}"

        async def send() -> None:
            async with await Dialog.open("127.0.0.1", where.ports[1]) as dialog:
                await dialog.start_tls(where.ca_file)
                await dialog.log_in(TOKEN)
                content = b"From: a@example.com\r\nX-PM-Tag: t\x1b[31m\r\n\r\nHello\r\n"
                to = ["b@example.net", "c@example.net"]
                assert (await dialog.deliver("a@example.com", to, content))[:3] == "250"

        asyncio.run(send())
        wait_for(lambda: "sandbox took 1:" in output.read_text(), what="the line")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    start, line = output.read_text().strip().split("\n\n")
    assert str(where.ca_file) in start
    assert TOKEN in start
    assert f"http://127.0.0.1:{where.http_port}/" in start
    assert "a@example.com -> b@example.net and 1 more, X-PM-Message-Stream outbound" in line
    assert f"on {where.ports[1]}: delivered" in line
    assert "\x1b" not in line
    assert os.linesep not in line
