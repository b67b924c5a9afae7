"""The compose file on a real engine: mail goes through, a worker is killed, mail goes through."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from proxy.sandbox.account import TOKEN
from tests.boot.engine import IMAGE, Engine, EngineMissing, missing_tools, running_engine
from tests.boot.stack import GATEWAY, PORTS, PROJECT, SOON_S, USER, Stack
from tests.support.far_end import background_far_end
from tests.support.forwarding import Forwarding
from tests.support.skipping import CannotHere
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if lacking := missing_tools():
        pytest.skip(lacking)
    with ExitStack() as stack:
        try:
            one = stack.enter_context(running_engine())
        except EngineMissing as error:
            raise CannotHere(str(error)) from None
        one.build_image(os.environ.get("BOOT_SUITE", "bookworm"))
        yield one


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Proxy, two workers and Redis, all healthy."""
    folder = tmp_path_factory.mktemp("compose")
    with background_far_end() as far_end, ExitStack() as exits:
        one = Stack(engine, folder, far_end)
        # Makes the networks, so that the far end can have its door there before anybody knocks.
        one.compose("up", "--no-start", "--no-build", "--scale=worker=2")
        door = Forwarding(GATEWAY, dict(zip(PORTS, far_end.ports, strict=True)))
        exits.callback(door.close)
        one.up()
        for service, count in (("redis", 1), ("proxy", 1), ("worker", 2)):
            one.until_healthy(service, count)
        yield one


def test_the_image_is_small_and_not_roots(
    engine: Engine, record_property: Callable[[str, object], None]
) -> None:
    image = engine.inspect(IMAGE)
    ours = image["Size"] - engine.inspect("franker-test/base")["Size"]
    shown = f"the image: {image['Size'] / 1e6:.0f} MB, of these {ours / 1e6:.0f} MB above Debian"
    record_property("figure", shown)
    assert ours < 150e6
    assert image["Config"]["User"] == f"{USER}:{USER}"
    found = engine.docker("run", "--rm", "--network=none", "--entrypoint=id", IMAGE, "-u")
    assert found.strip() == str(USER)


def test_the_image_holds_no_tool_to_install_more(engine: Engine) -> None:
    look = "import importlib.util as u; print([n for n in ('pip', 'setuptools') if u.find_spec(n)])"
    python = "--entrypoint=/opt/franker/bin/python"
    assert engine.docker("run", "--rm", python, "--network=none", IMAGE, "-c", look) == "[]\n"


def test_mail_of_this_host_goes_through(stack: Stack) -> None:
    stack.send("host@example.net")
    stack.arrives("host@example.net")


def test_mail_of_a_container_goes_through(stack: Stack) -> None:
    assert stack.speak("mail", "proxy").startswith("220 ")
    stack.arrives("inside@example.net")


@pytest.mark.parametrize("network", ["watch"])
def test_who_is_in_another_network_is_refused(stack: Stack, network: str) -> None:
    assert stack.speak(network, "proxy").startswith("554 ")


def test_an_image_without_settings_lets_nobody_in(stack: Stack) -> None:
    name = f"{PROJECT}_alone"
    # Alone it is `franker run`: everything, with a Redis of its own.
    network = f"--network={PROJECT}_mail"
    stack.engine.docker("run", "--detach", f"--name={name}", network, IMAGE)
    try:
        ready = "Franker is ready"
        wait_for(lambda: ready in stack.engine.docker("logs", name), SOON_S, ready, step=0.2)
        assert stack.speak("mail", name).startswith("554 ")
    finally:
        stack.engine.docker("rm", "--force", "--volumes", name)


def test_its_parts_run_with_nothing_that_they_do_not_need(stack: Stack) -> None:
    for service in ("proxy", "worker", "redis"):
        host = stack.engine.inspect(stack.containers(service)[0])["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
    assert stack.engine.inspect(stack.containers("redis")[0])["HostConfig"]["NetworkMode"] == "none"


def test_the_token_is_in_no_container_s_environment(stack: Stack) -> None:
    for service in ("proxy", "worker", "redis"):
        assert TOKEN not in json.dumps(stack.engine.inspect(stack.containers(service)[0]))


def test_commands_work_in_a_container(stack: Stack) -> None:
    listing = ("exec", "-T", "proxy", "franker", "queue", "list")
    wait_for(lambda: "Nothing is kept" in stack.compose(*listing), SOON_S, "all mail is sent")
    found = json.loads(stack.compose("exec", "-T", "worker", "franker", "check", "--json"))
    store = next(one for one in found if one["what"] == "store")
    assert store["state"] == "ok"


def test_a_worker_is_killed_and_mail_goes_through(stack: Stack) -> None:
    first = [f"before{number}@example.net" for number in range(30)]
    for recipient in first:
        stack.send(recipient)
    victim = stack.engine.inspect(stack.containers("worker")[0])
    os.kill(victim["State"]["Pid"], signal.SIGKILL)
    then = [f"after{number}@example.net" for number in range(30)]
    for recipient in then:
        stack.send(recipient)
    for recipient in (*first, *then):
        stack.arrives(recipient, 2 * SOON_S)
    wait_for(
        lambda: stack.engine.inspect(victim["Id"])["RestartCount"] > victim["RestartCount"],
        SOON_S,
        "the engine starts the worker again",
    )
    stack.until_healthy("worker", 2)


def test_redis_is_killed_and_mail_goes_through(stack: Stack) -> None:
    redis = stack.engine.inspect(stack.containers("redis")[0])
    os.kill(redis["State"]["Pid"], signal.SIGKILL)
    recipients = [f"store{number}@example.net" for number in range(10)]
    for recipient in recipients:
        stack.send(recipient)
    for recipient in recipients:
        stack.arrives(recipient, 2 * SOON_S)
    stack.until_healthy("proxy")


def test_there_may_be_more_workers_at_any_time(stack: Stack) -> None:
    stack.up(workers=3)
    stack.until_healthy("worker", 3)
    stack.send("scaled@example.net")
    stack.arrives("scaled@example.net")
    stack.up(workers=2)


def test_prometheus_finds_every_proxy_and_every_worker(stack: Stack) -> None:
    stack.engine.build_watcher()
    stack.up("redis", "proxy", "worker", "prometheus", "alertmanager")

    def ask(path: str) -> Any:
        address = f"http://127.0.0.1:{stack.prometheus_port}/api/v1/{path}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None  # it has not begun yet

    def up() -> list[str]:
        found = ask("query?query=up%20==%201") or {"result": []}
        return sorted(one["metric"]["job"] for one in found["result"])

    expected = ["franker-proxy", "franker-worker", "franker-worker"]
    wait_for(lambda: up() == expected, 2 * SOON_S, "all are scraped")
    rules = ask("rules") or {"groups": []}
    assert [group["name"] for group in rules["groups"]] == ["franker", "franker-recording"]
    wait_for(
        lambda: (ask("alertmanagers") or {}).get("activeAlertmanagers"), SOON_S, "Alertmanager"
    )


def _ends(stack: Stack, service: str) -> tuple[float, int]:
    """Stop the first container of `service`; return after how many seconds it ended, and how."""
    container = stack.containers(service)[0]
    began = time.monotonic()
    stack.engine.docker("stop", "--time=60", container)
    seconds = time.monotonic() - began
    return seconds, stack.engine.inspect(container)["State"]["ExitCode"]


@pytest.mark.parametrize("service", ["worker", "proxy", "redis"])
def test_sigterm_ends_each_part_in_order_within_15_seconds(stack: Stack, service: str) -> None:
    seconds, code = _ends(stack, service)
    assert (seconds < 15, code) == (True, 0), seconds


def test_mail_that_waits_outlives_the_containers(stack: Stack) -> None:
    stack.up()
    stack.until_healthy("proxy")
    stack.up(workers=0)
    stack.send("kept@example.net")
    stack.compose("--profile=monitoring", "down")
    assert not stack.far_end.to("kept@example.net")
    stack.up()  # the networks are others now; the far end's door listens on the same address
    stack.arrives("kept@example.net")
    assert len(stack.far_end.to("kept@example.net")) == 1


def test_the_sandbox_is_a_world_of_its_own(stack: Stack) -> None:
    stack.up("sandbox")

    def says(text: str) -> bool:
        done = stack.engine.tried("logs", stack.containers("sandbox")[0])
        return text in done.stdout + done.stderr

    wait_for(lambda: says("Franker is ready"), SOON_S, "the sandbox is ready", step=0.2)
    stack.send("trial@example.net", stack.trial_port)
    wait_for(lambda: says("app@example.com -> trial@example.net"), SOON_S, "it came", step=0.2)
    assert not stack.far_end.to("trial@example.net")
    stack.until_healthy("sandbox")
    assert _ends(stack, "sandbox")[1] == 0
