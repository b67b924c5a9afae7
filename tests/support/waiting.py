"""Waiting for a condition, with an end: no test guesses how long something takes.

The end is for what never comes, and far beyond what a busy machine needs. It is below the 24 s
after which deferred mail is tried by itself at the earliest, so that nothing is taken for "at once"
that only came by itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

_STEP_S = 0.01


async def wait_until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]],
    timeout: float = 20.0,
    what: str = "",
) -> None:
    """Return as soon as `condition()` is true; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s still not: {what or condition}")
        await asyncio.sleep(_STEP_S)


def wait_for(
    condition: Callable[[], object], timeout: float = 20.0, what: str = "", step: float = _STEP_S
) -> None:
    """Return as soon as `condition()` is true, asked every `step` s; fail after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s still not: {what or condition}")
        time.sleep(step)
