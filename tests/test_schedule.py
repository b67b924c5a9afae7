"""When deferred mail is tried again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.model import Retry
from proxy.queue.job import JobEnvelope
from worker import schedule

RETRY = Retry()
ENVELOPE = JobEnvelope("a@example.com", ("b@example.net",), 0.0)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 600), (500, 600)]
)
def test_the_delay_doubles_up_to_the_cap(attempts: int, seconds: float) -> None:
    assert schedule.delay(attempts, RETRY, 0.5) == seconds


@given(st.integers(1, 10**9), st.floats(0, 1), st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_jitter_spreads_by_a_fifth_and_no_more(
    attempts: int, chance: float, first: float, cap: float
) -> None:
    retry = Retry(first=first, cap=cap)
    nominal = schedule.delay(attempts, retry, 0.5)
    assert nominal <= cap
    assert 0.79 * nominal <= schedule.delay(attempts, retry, chance) <= 1.21 * nominal


def test_chance_goes_both_ways() -> None:
    assert schedule.delay(1, RETRY, 0.0) == 24.0
    assert schedule.delay(1, RETRY, 1.0) == 36.0


def test_mail_is_given_up_after_the_time_it_was_deferred_for() -> None:
    assert not schedule.exhausted(replace(ENVELOPE, waited=172_799.0), RETRY)
    assert schedule.exhausted(replace(ENVELOPE, waited=172_800.0), RETRY)


def test_an_outage_or_a_step_of_the_clock_gives_nothing_up() -> None:
    assert not schedule.exhausted(replace(ENVELOPE, accepted_at=-1e9), RETRY)
