"""Every reader of foreign octets holds what it must: past defects, and new cases by hypothesis."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.engine import Outcome, by_chance
from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS
from tests.support.processes import ROOT, clean_environ

PAST = [(target, path) for target in TARGETS.values() for path in target.corpus()]
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


def cases_of(target: Target) -> st.SearchStrategy[bytes]:
    """Cases made of what is trouble to this target, and of anything."""
    kept = [path.read_bytes() for path in target.corpus()]
    pieces = st.one_of(st.sampled_from(target.tokens), st.binary(max_size=8))
    made = st.lists(pieces, max_size=16).map(b"".join)
    return st.one_of(made, st.builds(bytes.__add__, st.sampled_from(kept), made))


@pytest.mark.parametrize(
    ("target", "path"), PAST, ids=[f"{target.name}-{path.name}" for target, path in PAST]
)
def test_what_once_was_wrong_stays_right(target: Target, path: Path) -> None:
    target.check(path.read_bytes())


@every_target
def test_what_must_hold_holds_for_cases_made_by_hypothesis(target: Target) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases_of(target))
    def hold(case: bytes) -> None:
        target.check(case)

    hold()


@every_target
def test_each_target_has_cases_to_begin_with(target: Target) -> None:
    assert target.corpus()


def test_every_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def target_of(check: Callable[[bytes], None]) -> Target:
    return Target("line-ends", check, (b"x", b"trouble"), 1)


def test_a_case_that_fails_is_kept() -> None:
    def check(octets: bytes) -> None:
        assert b"trouble" not in octets

    outcome = by_chance(target_of(check), 1000, seed=1)
    assert outcome.failed is not None
    assert b"trouble" in outcome.failed
    assert outcome.fault.startswith("AssertionError")
    assert outcome.cases < 1000


def test_a_case_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.engine.HANG_S", 0.05)

    def check(octets: bytes) -> None:
        while b"trouble" in octets:
            pass

    outcome = by_chance(target_of(check), 1000, seed=1)
    assert outcome.fault.startswith("Hang")


def test_memory_that_is_not_given_back_is_seen() -> None:
    held: list[bytes] = []
    outcome = by_chance(target_of(lambda _: held.append(bytes(20_000))), 5000, seed=1)
    assert outcome.memory_after - outcome.memory_before > 50_000_000


def test_the_same_seed_makes_the_same_cases() -> None:
    def cases(seed: int) -> tuple[list[bytes], Outcome]:
        seen: list[bytes] = []
        return seen, by_chance(target_of(seen.append), 200, seed)

    first, outcome = cases(7)
    assert cases(7)[0] == first
    assert cases(8)[0] != first
    assert outcome.cases == len(first)


def test_the_command_prints_the_number_of_cases_and_the_seed() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "300", "--seed", "11", "log-line"]
    ended = subprocess.run(
        command, cwd=ROOT, env=clean_environ(), capture_output=True, text=True, check=False
    )
    corpus = len(TARGETS["log-line"].corpus())
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"{300 + corpus} cases, seed 11, 0 targets failed"
