"""How much mail waits: the numbers are Redis's, read by somebody else and handed in here."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

QueueState = Literal["queued", "started", "deferred", "held", "dead"]
STATES: tuple[QueueState, ...] = get_args(QueueState)


@dataclass(frozen=True, slots=True)
class Depth:
    """One stream's queue. `messages` are counts by state, one left out being 0.

    `oldest_age` is the age in seconds of the oldest message neither sent, dead nor held;
    0 when there is none. Dead ones do not count: they wait for a person. `discarded` are the
    recipients that a person deleted, ever. `unserved`: no such stream is configured (any more), and
    no worker serves it.
    """

    stream: str
    messages: Mapping[QueueState, int]
    oldest_age: float
    discarded: int = 0
    unserved: bool = False


class QueueDepths(Collector):
    """Shows the depths fed last.

    Nothing is shown before the first `feed` and after `forget`: a number from before Redis went
    away would say that all is well.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depths: tuple[Depth, ...] = ()
        registry.register(self)

    def feed(self, depths: Iterable[Depth]) -> None:
        """Show `depths` from now on, one for each stream."""
        self._depths = tuple(depths)

    @property
    def fed(self) -> tuple[Depth, ...]:
        """The depths fed last; none when nobody knows."""
        return self._depths

    def forget(self) -> None:
        """Show nothing until the next `feed`."""
        self._depths = ()

    def collect(self) -> Iterator[Metric]:
        """Return the families for prometheus_client."""
        messages = GaugeMetricFamily(
            "franker_queue_messages",
            "Messages in the queue now; state is queued, started, deferred, held or dead.",
            labels=("stream", "state"),
        )
        ages = GaugeMetricFamily(
            "franker_queue_oldest_message_age_seconds",
            "Age of the oldest message neither sent, dead nor held; 0 when there is none.",
            labels=("stream",),
        )
        discarded = CounterMetricFamily(
            "franker_recipients_discarded",
            "Recipients of queued or dead messages that were deleted by hand.",
            labels=("stream",),
        )
        for depth in self._depths:
            for state in STATES:
                messages.add_metric((depth.stream, state), depth.messages.get(state, 0))
            ages.add_metric((depth.stream,), depth.oldest_age)
            discarded.add_metric((depth.stream,), depth.discarded)
        yield messages
        yield ages
        yield discarded
