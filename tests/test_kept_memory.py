"""Memory that was freed is there for the next large message, without pages made anew."""

import platform
import subprocess
import sys

import pytest

# Three blocks at a time, as of a message that is read, checked and rewritten.
_MESSAGES = """
import resource, sys
from proxy.cli.memory import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
for each in range(12):
    if each == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * 5_000_000 for _ in range(3)]
    del blocks
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


def faults_a_message(*words: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _MESSAGES, *words], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_large_messages_one_after_the_other_use_the_same_memory() -> None:
    assert faults_a_message("keep") < 100
