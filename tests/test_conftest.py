"""The tests themselves: what they forget, and that a skip can be made a failure."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, clean_environ

SAMPLE = """
import os
import pytest
from tests.support.skipping import CannotHere

def test_token():
    assert "POSTMARK_SERVER_TOKEN" not in os.environ
    assert "FRANKER_REDIS__URL" not in os.environ

def test_skipped():
    pytest.skip("a program is missing")

def test_impossible():
    raise CannotHere("not even as root")
"""


@pytest.mark.parametrize(
    ("environ", "closing"),
    [
        ({}, "1 passed, 2 skipped"),
        ({"FRANKER_TESTS_NO_SKIP": "1"}, "1 failed, 1 passed, 1 skipped"),
    ],
    ids=["here", "where nothing may be skipped"],
)
def test_tests_forget_the_token_and_skips_can_be_failures(
    tmp_path: Path, environ: dict[str, str], closing: str
) -> None:
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    more = {"POSTMARK_SERVER_TOKEN": "x", "FRANKER_REDIS__URL": "redis://example.com", **environ}
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT,
        env=clean_environ(**more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert closing in done.stdout.splitlines()[-1], done.stdout
