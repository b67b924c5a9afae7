"""Each kind of measurement, with very little mail: that it works, not how fast it is."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import postfix
from benchmarks.measures import measure
from benchmarks.rounds import carry_out
from benchmarks.scenarios import (
    FRANKER,
    POSTFIX,
    AtRest,
    Backlog,
    Drain,
    Flow,
    Idle,
    Load,
    LoadAlone,
    Outage,
    Scenario,
    Setup,
    SinkAlone,
    What,
)
from tests.support.processes import ROOT

FEW = Load(messages=30, sessions=3)
KEEP = Setup(relaying=False)
pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that Postfix's own user can get through to."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("system", [FRANKER, POSTFIX])
@pytest.mark.parametrize(
    ("what", "keys"),
    [
        (Flow(FEW), {"kept", "relayed", "megabytes", "connections", "cpu.sink"}),
        (Drain(FEW, delay_ms=5), {"kept", "relayed", "first", "cpu.sink"}),
    ],
    ids=["flow", "drain"],
)
def test_both_systems_relay_everything_once_over_tls(
    folder: Path, system: str, what: What, keys: set[str]
) -> None:
    if system == POSTFIX and (missing := postfix.available()):
        pytest.skip(missing)
    sample = measure(what, system, folder, "own")
    assert keys <= sample.keys()
    assert sample["relayed"] > 0
    assert sample["connections"] <= 10
    wanted = "cpu.worker" if system == FRANKER else "cpu.smtp"
    assert wanted in sample


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        (Flow(FEW, setup=Setup(workers=2, proxies=2)), {"relayed", "peak.worker", "peak.proxy"}),
        (Outage(FEW, down_s=1), {"first", "last", "relayed", "kept"}),
        (AtRest(5, pause_s=0.01), {"accept_p50", "accept_p99", "pass_p50", "pass_p99"}),
        (Backlog(60, FEW, KEEP), {"kept", "kept_lent", "relayed", "memory_each", "start"}),
        (Idle(0.5), {"start", "idle_cpu", "rest_memory", "rest_memory_shared", "rest.supervisor"}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_measurement_yields_its_figures(folder: Path, what: What, keys: set[str]) -> None:
    assert keys <= measure(what, FRANKER, folder, "own").keys()


@pytest.mark.parametrize("what", [SinkAlone(50, 3), LoadAlone(FEW)], ids=["sink", "load"])
def test_the_tools_are_measured_without_a_system(folder: Path, what: What) -> None:
    sample = measure(what, "", folder, "own")
    assert max(sample.get("kept", 0), sample.get("relayed", 0)) > 0


def test_a_round_that_fails_is_said_and_the_others_go_on(folder: Path) -> None:
    too_large = Flow(Load(messages=2, sessions=1, size=30_000_000))
    plan = [
        Scenario("large", "flow", "too large", too_large),
        Scenario("load", "alone", "the load", LoadAlone(FEW), ("load",)),
    ]
    said: list[str] = []
    failed, done = carry_out(plan, [FRANKER], 1, folder, "own", say=said.append)
    assert (failed.samples, done.failed) == ({FRANKER: []}, [])
    assert "552" in failed.failed[0]
    assert len(done.samples["load"]) == 1
    assert [one.name for one in folder.iterdir()] == ["large-franker-1"]


def test_one_command_measures_prints_and_writes(tmp_path: Path) -> None:
    words = ["--quick", "--only", FRANKER, "--json", str(tmp_path / "run.json"), "queue-30ms"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the far end 30 ms away" in done.stdout
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["scenarios"][0]["systems"][FRANKER]["rounds"][0]["relayed"] > 0
    assert (tmp_path / "run.svg").read_text().startswith("<svg")
    assert (tmp_path / "run.md").read_text().strip() in done.stdout
