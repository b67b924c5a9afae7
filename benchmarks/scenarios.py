"""What can be measured, as data; how it is done stands in `benchmarks.measures`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FRANKER, POSTFIX = "franker", "postfix"
BOTH = (FRANKER, POSTFIX)


@dataclass(frozen=True, slots=True)
class Load:
    """How much mail comes how: `sessions` connections at once, kept unless `fresh`.

    `size` in octets, without the header. `random`: of text as good as random, not of one letter.
    """

    messages: int = 10_000
    sessions: int = 20
    size: int = 5120
    fresh: bool = False
    random: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """How a system is started, where that differs from what is shipped.

    `connections` to the far end, at most. Without `relaying` mail is kept only, until `release`.
    `max_memory` is Franker's `redis.max_memory`; "" leaves the default.
    """

    workers: int = 1
    proxies: int = 1
    connections: int = 10
    relaying: bool = True
    max_memory: str = ""


AS_SHIPPED = Setup()


@dataclass(frozen=True, slots=True)
class Flow:
    """Mail comes and is relayed at the same time; the far end is `delay_ms` away (round trip)."""

    load: Load
    delay_ms: float = 0.0
    setup: Setup = AS_SHIPPED


@dataclass(frozen=True, slots=True)
class Drain:
    """Mail is kept while nothing relays; then all of it is relayed while nothing comes."""

    load: Load
    delay_ms: float = 0.0
    setup: Setup = Setup(relaying=False)


@dataclass(frozen=True, slots=True)
class Outage:
    """The far end refuses connections for `down_s` seconds, and `load` comes meanwhile."""

    load: Load
    down_s: float


@dataclass(frozen=True, slots=True)
class AtRest:
    """One message at a time, `pause_s` seconds after the one before it has arrived."""

    messages: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """`queued` messages wait; `load` comes on top, twice; then as many as that are relayed."""

    queued: int
    load: Load
    setup: Setup = Setup(relaying=False)


@dataclass(frozen=True, slots=True)
class Idle:
    """Started, used once, then left alone for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SinkAlone:
    """The sink, given all it can take by `connections` clients that wait for nothing, over TLS."""

    messages: int
    connections: int = 10


@dataclass(frozen=True, slots=True)
class LoadAlone:
    """The generator of the load, with nothing between it and the sink (and no TLS)."""

    load: Load


What = Flow | Drain | Outage | AtRest | Backlog | Idle | SinkAlone | LoadAlone


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure, of each of `systems` in turn.

    `name` is unique; `group` is the table it belongs to. `at_most` says how many rounds of a
    system are enough where each takes long.
    """

    name: str
    group: str
    title: str
    what: What
    systems: tuple[str, ...] = BOTH
    at_most: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def rounds(self, system: str, wanted: int) -> int:
        """Return how many rounds of `system` are to be run when `wanted` were asked for."""
        return min(wanted, self.at_most.get(system, wanted))
