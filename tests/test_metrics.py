"""The names that dashboards rely on, and that they hold nothing that must not be there."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from proxy.metrics import intake, relaying
from proxy.metrics.depths import Depth, QueueDepths

GOLDEN = Path(__file__).parent / "data" / "metrics.golden"
BOTH = pytest.mark.parametrize("registry", [intake.REGISTRY, relaying.REGISTRY])


def described(process: str, registry: CollectorRegistry) -> set[str]:
    """Return "PROCESS TYPE NAME{LABELS}" for each of our metrics in `registry`."""
    lines = set()
    for collector in registry._collector_to_names:  # the library shows labels only with values
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            found = [(family, collector._labelnames)]
        elif isinstance(collector, QueueDepths):
            found = [(family, family._labelnames) for family in collector.collect()]
        else:
            continue
        for family, labels in found:
            name = family.name + "_total" * (family.type == "counter")
            lines.add(f"{process} {family.type} {name}{{{','.join(labels)}}}")
    return lines


def test_names_types_and_labels_are_those_promised() -> None:
    built = described("proxy", intake.REGISTRY) | described("worker", relaying.REGISTRY)
    assert sorted(built) == GOLDEN.read_text().splitlines()


@BOTH
def test_every_metric_is_ours_and_says_what_it_means(registry: CollectorRegistry) -> None:
    for family in registry.collect():
        if not family.name.startswith("process_"):
            assert family.name.startswith("franker_")
            assert family.documentation.endswith("."), family.name
            assert not re.search(r"_(ms|milliseconds|minutes|kb|mb)\b", family.name)


@BOTH
def test_each_process_shows_what_it_uses_of_the_host(registry: CollectorRegistry) -> None:
    assert b"process_resident_memory_bytes " in generate_latest(registry)


def test_no_label_can_hold_an_address_an_id_or_a_token() -> None:
    labels = {
        label
        for line in GOLDEN.read_text().splitlines()
        for label in line.partition("{")[2].rstrip("}").split(",")
        if label
    }
    assert labels == {
        "code",
        "credential",  # its place in the configuration
        "host",
        "kind",
        "port",
        "reason",
        "result",
        "rule",
        "state",
        "stream",
        "verdict",
        "where",
    }


def test_a_counter_has_no_second_series_with_its_birthday() -> None:
    relaying.UPSTREAM_REPLIES.labels("250").inc(0)
    assert b"_created" not in generate_latest(relaying.REGISTRY)


# Queue depths.


def shown(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_depths_are_shown_as_fed_last_with_every_state() -> None:
    registry = CollectorRegistry()
    depths = QueueDepths(registry)
    depths.feed([Depth("outbound", {"queued": 9}, 1.0)])
    depths.feed([Depth("outbound", {"queued": 3, "dead": 1}, 12.5, 2), Depth("news", {}, 0.0)])
    assert shown(registry) == [
        'franker_queue_messages{state="queued",stream="outbound"} 3.0',
        'franker_queue_messages{state="started",stream="outbound"} 0.0',
        'franker_queue_messages{state="deferred",stream="outbound"} 0.0',
        'franker_queue_messages{state="held",stream="outbound"} 0.0',
        'franker_queue_messages{state="dead",stream="outbound"} 1.0',
        'franker_queue_messages{state="queued",stream="news"} 0.0',
        'franker_queue_messages{state="started",stream="news"} 0.0',
        'franker_queue_messages{state="deferred",stream="news"} 0.0',
        'franker_queue_messages{state="held",stream="news"} 0.0',
        'franker_queue_messages{state="dead",stream="news"} 0.0',
        'franker_queue_oldest_message_age_seconds{stream="outbound"} 12.5',
        'franker_queue_oldest_message_age_seconds{stream="news"} 0.0',
        'franker_recipients_discarded_total{stream="outbound"} 2.0',
        'franker_recipients_discarded_total{stream="news"} 0.0',
    ]


def test_no_old_number_is_shown_when_nobody_knows() -> None:
    registry = CollectorRegistry()
    depths = QueueDepths(registry)
    assert shown(registry) == []
    depths.feed([Depth("outbound", {"queued": 3}, 12.5)])
    depths.forget()
    assert shown(registry) == []
