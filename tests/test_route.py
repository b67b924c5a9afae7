"""Pauses of a route, and how the connections to a host are shared: pure but for the metrics."""

from dataclasses import dataclass

import pytest

from tests.support.relaying import sample
from worker.gate import Gate
from worker.pauses import Reason, pause, probe_now
from worker.smarthost.host import Budget


def test_probes_come_after_1_2_4_8_and_then_every_14_seconds() -> None:
    before, waits = None, []
    for _ in range(6):
        before = pause(before, Reason.UNREACHABLE, "down", now=100.0, chance=0.5)
        waits.append(before.probe_at - 100.0)
    assert waits == pytest.approx([1, 2, 4, 8, 14, 14])


def test_jitter_spreads_probes_by_a_fifth() -> None:
    early = pause(None, Reason.UNREACHABLE, "down", now=0.0, chance=0.0)
    late = pause(None, Reason.UNREACHABLE, "down", now=0.0, chance=1.0)
    assert (early.probe_at, late.probe_at) == pytest.approx((0.8, 1.2))


def test_no_pause_is_longer_than_the_longest() -> None:
    before = None
    for _ in range(9):
        before = pause(before, Reason.UNREACHABLE, "down", now=0.0, chance=1.0)
    assert before is not None
    assert before.probe_at == 14.0


def test_another_reason_starts_its_own_row_of_pauses() -> None:
    first = pause(None, Reason.UNREACHABLE, "down", now=0.0, chance=0.5)
    second = pause(first, Reason.TLS, "expired", now=5.0, chance=0.5)
    assert second.failures == 1
    assert second.since == 0.0


def test_a_mended_cause_makes_the_probe_due() -> None:
    paused = pause(None, Reason.CREDENTIALS, "535", now=0.0, chance=0.5)
    assert not paused.due(1.0)
    assert probe_now(paused, now=1.0).due(1.0)


def test_a_gate_shows_its_reason_while_it_is_closed_and_only_then() -> None:
    gate = Gate(("gate-test",), lambda: 0.0)
    gate.close(Reason.TLS, "expired")
    assert sample("franker_route_paused", stream="gate-test", reason="tls") == 1
    gate.close(Reason.UNREACHABLE, "down")
    assert sample("franker_route_paused", stream="gate-test", reason="tls") == 0
    gate.open()
    assert sample("franker_route_paused", stream="gate-test", reason="unreachable") == 0
    assert gate.reason is None


def test_ten_connections_that_fail_together_pause_it_as_one() -> None:
    now = [0.0]
    gate = Gate(("gate-test",), lambda: now[0])
    for _ in range(10):
        gate.close(Reason.UNREACHABLE, "down")
    now[0] = 1.2
    assert gate.probe_due
    for _ in range(10):  # the probe, and what it took with it
        gate.close(Reason.UNREACHABLE, "down")
    assert not gate.probe_due
    now[0] = 1.2 + 2.4
    assert gate.probe_due


def test_a_login_refused_by_a_host_that_is_back_is_not_shown_again_by_the_hosts_pause() -> None:
    now = [0.0]
    gate = Gate(("gate-test",), lambda: now[0])
    gate.close(Reason.CREDENTIALS, "535")
    gate.close(Reason.UNREACHABLE, "down")
    now[0] = 2.0
    assert gate.probe_due  # that of the host; the login's comes after 12 s at the earliest
    gate.close(Reason.CREDENTIALS, "535")
    assert gate.reason is Reason.CREDENTIALS
    assert not gate.probe_due


@dataclass(eq=False)
class Holder:
    wants_connections: bool = True
    open_connections: int = 0


def test_channels_with_mail_share_a_hosts_connections_equally() -> None:
    budget = Budget(lambda: 10)
    busy, idle, other = Holder(), Holder(wants_connections=False), Holder()
    for holder in (busy, idle, other):
        budget.join(holder)
    assert (budget.allowed(busy), budget.allowed(other)) == (5, 5)


def test_alone_with_mail_a_channel_has_all_connections() -> None:
    budget = Budget(lambda: 10)
    busy, idle = Holder(), Holder(wants_connections=False)
    budget.join(busy)
    budget.join(idle)
    assert budget.allowed(busy) == 10


def test_less_than_one_connection_each_goes_round_so_that_nobody_starves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = Budget(lambda: 1)
    holders = [Holder(), Holder(), Holder()]
    for holder in holders:
        budget.join(holder)
    turns = set()
    for second in (0.0, 5.0, 10.0):
        monkeypatch.setattr("time.monotonic", lambda second=second: second)
        allowed = [budget.allowed(holder) for holder in holders]
        assert sum(allowed) == 1
        turns.add(tuple(allowed))
    assert len(turns) == 3


def test_no_more_connections_are_opened_than_the_host_may_have() -> None:
    budget = Budget(lambda: 3)
    budget.join(Holder(open_connections=2))
    assert budget.room()
    budget.join(Holder(open_connections=1))
    assert not budget.room()
