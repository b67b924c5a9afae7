"""How many messages a second to expect of a machine: a simple model. Pure.

Each message costs processor time in each process, and a round trip on a connection. Every process
runs on one core at a time. So the rate is the least of

- the connections, where the far end is some way off: one message a round trip on each, `own_s` on
  top for the mark before the dot;
- one kind of process: as many as there are, each with a core's time;
- the cores: all the processor time of a message, `use` of theirs being what messages get of them
  (the kernel, waiting for the disk, and imperfect sharing take the rest).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of processor time that a message costs in each kind of process.

    `beside` is what other programs on the same cores take for it: here the load and the sink.
    """

    proxy: float = 0.0
    worker: float = 0.0
    redis: float = 0.0
    beside: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.proxy + self.worker + self.redis + self.beside

    @classmethod
    def of(cls, cpu: Mapping[str, float]) -> "Costs":
        """Return the costs of a sample's `cpu` by process."""
        own = {name: cpu.get(name, 0.0) for name in ("proxy", "worker", "redis")}
        return cls(**own, beside=sum(cpu.values()) - sum(own.values()))


@dataclass(frozen=True, slots=True)
class Site:
    """Where it runs; `round_trip_s` to the far end, `connections` to it over all workers."""

    cores: int
    connections: int = 10
    round_trip_s: float = 0.0
    proxies: int = 1
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Expected:
    """Messages a second, and what forms the limit."""

    rate: float
    limit: str


@dataclass(frozen=True, slots=True)
class Model:
    """What was found at a few measured points, to reckon others by."""

    costs: Costs = field(default_factory=Costs)
    own_s: float = 0.0
    use: float = 1.0

    def limits(self, site: Site) -> dict[str, float]:
        """Return the messages a second that each part that costs something allows at `site`."""
        per_process = {
            "proxies": (site.proxies, self.costs.proxy),
            "workers": (site.workers, self.costs.worker),
            "Redis": (1, self.costs.redis),
            "cores": (site.cores * self.use, self.costs.total),
        }
        found = {name: 1e6 * many / cost for name, (many, cost) in per_process.items() if cost}
        if site.round_trip_s:
            found["connections"] = site.connections / (site.round_trip_s + self.own_s)
        return found

    def expect(self, site: Site) -> Expected:
        """Return the rate to expect at `site`."""
        limits = self.limits(site)
        name = min(limits, key=limits.__getitem__)
        return Expected(limits[name], name)

    def with_use(self, site: Site, rate: float) -> "Model":
        """Return the model whose cores allow, at `site`, no more than the `rate` measured there."""
        whole = replace(self, use=1.0).limits(site).get("cores")
        return replace(self, use=min(1.0, rate / whole)) if whole else self

    def with_wire(self, site: Site, rate: float) -> "Model":
        """Return the model that allows the `rate` at `site`, where the wire formed the limit."""
        return replace(self, own_s=max(0.0, site.connections / rate - site.round_trip_s))
