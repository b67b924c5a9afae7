"""The compose file is one, the image holds what it needs, and its health check tells the truth.

That the image can be built and run is shown in `tests/boot`, where an engine can be started.
"""

import http.server
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.redis_server import RedisServer

COMPOSE = ROOT / "docker-compose.yml"
READYZ = ROOT / "containers/readyz"
DOCKERFILE = (ROOT / "Dockerfile").read_text()

needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="no docker-compose (package docker-compose)"
)


def composed(*files: Path, profiles: tuple[str, ...] = ()) -> str:
    """Return the compose file as docker-compose understands it; fail when it does not."""
    command = ["docker-compose", *(f"--file={file}" for file in (COMPOSE, *files))]
    command += [f"--profile={profile}" for profile in profiles]
    done = subprocess.run(
        [*command, "config"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_compose
@pytest.mark.parametrize("profiles", [(), ("monitoring",), ("sandbox",), ("monitoring", "sandbox")])
def test_the_compose_file_is_clean(profiles: tuple[str, ...]) -> None:
    composed(profiles=profiles)


def test_what_is_not_for_everybody_has_a_profile() -> None:
    text = COMPOSE.read_text().partition("\nservices:")[2].partition("\nnetworks:")[0]
    services = re.split(r"(?m)^  (\w+):$", text)[1:]
    found = {}
    for name, text in zip(services[::2], services[1::2], strict=True):
        profile = re.findall(r"(?m)^    profiles: \[(\w+)\]$", text)
        found[name] = profile[0] if profile else ""
    assert found == {
        "redis": "",
        "proxy": "",
        "worker": "",
        "sandbox": "sandbox",
        "prometheus": "monitoring",
        "alertmanager": "monitoring",
        "grafana": "monitoring",
    }


@needs_compose
def test_what_the_page_shows_to_lay_over_it_can_be(tmp_path: Path) -> None:
    page = (ROOT / "docs/containers.md").read_text()
    shown = re.findall(r"(?s)<!-- compose -->\n```yaml\n(.*?)```", page)
    assert len(shown) == page.count("```yaml")
    for number, text in enumerate(shown):
        file = tmp_path / f"{number}.yml"
        file.write_text(text)
        composed(file)


@needs_compose
def test_nothing_is_published_beyond_this_host() -> None:
    text = composed(profiles=("monitoring", "sandbox"))
    # As docker-compose 1 shows it, and as 2 does.
    ports = re.findall(r"(?m)^    - (\S+:\d+/tcp)$", text)
    ports += re.findall(r"(?m)^      - mode: ingress\n        (.*\n.*\n.*)", text)
    assert len(ports) == COMPOSE.read_text().count("\n    ports: ")
    assert [port for port in ports if not re.match(r"127\.0\.0\.1:|host_ip: 127\.", port)] == []


def test_every_file_that_compose_mounts_is_there() -> None:
    for place in re.findall(r"(?m)^ +- (\./[^:]+):", COMPOSE.read_text()):
        assert (ROOT / place).exists(), place


def test_every_file_that_the_image_copies_is_in_its_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", DOCKERFILE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, name


def test_the_image_is_not_roots_and_knows_its_health() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    [user] = re.findall(r"(?m)^USER (\d+):\d+$", last)
    assert int(user) > 0
    assert re.search(r'(?m)^HEALTHCHECK .*CMD \["readyz"', last)


@needs_compose
def test_every_setting_that_image_and_compose_give_is_one() -> None:
    from proxy.config import load

    image = dict(re.findall(r"\b(FRANKER_\w+)=(\S+)", DOCKERFILE))
    given = dict(re.findall(r"(?m)^ +(FRANKER_\w+): (\S+)$", composed()))
    assert {"FRANKER_LISTEN__SMTP", "FRANKER_LISTEN__ALLOW"} <= image.keys() | given.keys()
    settings = load(None, {**image, **given}).settings
    assert settings.listen.smtp[0].address == "0.0.0.0:25"
    assert "0.0.0.0/0" not in settings.listen.allow


def test_the_image_alone_lets_nobody_else_in() -> None:
    from proxy.config import load

    image = dict(re.findall(r"\b(FRANKER_\w+)=(\S+)", DOCKERFILE))
    assert load(None, image).settings.listen.allow == ("127.0.0.0/8", "::1/128")


def test_what_stands_in_the_file_of_settings_loads_when_it_is_used() -> None:
    from proxy.config import load

    text = (ROOT / "containers/franker.env").read_text()
    shown = dict(re.findall(r"(?m)^#(FRANKER_\w+)=(.*)$", text))
    settings = load(None, shown).settings
    assert settings.local.postmaster == "ops@example.com"
    assert [rule.name for rule in settings.rules] == ["payroll"]


@contextmanager
def answering(status: int, text: str) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def readyz(*places: object) -> tuple[int, str]:
    command = [sys.executable, "-ISE", str(READYZ), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_who_is_ready_is_healthy() -> None:
    with answering(200, "ok\n") as one, answering(200, "ok\n") as two:
        assert readyz(one, two) == (0, "ready\n")


def test_who_is_not_ready_is_not_healthy_and_the_reason_is_shown() -> None:
    with answering(200, "ok\n") as one, answering(503, "outbound: credentials\n") as two:
        assert readyz(one, two) == (1, f"{two}: 503: outbound: credentials\n")


def test_who_does_not_answer_is_not_healthy() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, text = readyz(closed.getsockname()[1])
    assert (code, "refused" in text) == (1, True)


def test_redis_is_healthy_when_it_answers(redis_server: RedisServer) -> None:
    assert readyz(redis_server.socket) == (0, "ready\n")
    redis_server.stop()
    assert readyz(redis_server.socket)[0] == 1


def test_the_dashboard_that_compose_opens_first_is_ours() -> None:
    home = re.findall(r"HOME_DASHBOARD_PATH: (\S+)", COMPOSE.read_text())
    [mount] = re.findall(r"- \./(\S+):/var/lib/grafana/dashboards:ro", COMPOSE.read_text())
    file = ROOT / mount / Path(home[0]).name
    assert json.loads(file.read_text())["title"] == "Franker"
