"""Which port of a host is tried next: those that work first, the others as configured."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

FADE_S = 3600.0
"""After so many seconds a failure is forgotten: the port gets its configured place again."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One port of one host (a name, or an address)."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The ports of `host` as configured, and when each last worked or failed.

    Times are seconds of a monotonic clock that the caller reads. A port works when it gave a
    connection that is ready for mail.
    """

    host: str
    ports: tuple[int, ...]
    worked: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[int, float] = field(default_factory=dict)

    def order(self, now: float) -> tuple[Endpoint, ...]:
        """Return all endpoints, the most promising first.

        Ports that worked when last tried come first, then those that nothing is known of, then
        those that failed when last tried. Within each the order is that of the configuration, so
        that mail stays where it flows and does not wander back to a port that swallows packets.
        """
        ranked = sorted(enumerate(self.ports), key=lambda place: (self._rank(place[1], now), place))
        return tuple(Endpoint(self.host, port) for _, port in ranked)

    def after_success(self, port: int, now: float) -> "Endpoints":
        """Return this memory with `port` working at `now`."""
        failed = {other: at for other, at in self.failed.items() if other != port}
        return replace(self, worked={**self.worked, port: now}, failed=failed)

    def after_failure(self, port: int, now: float) -> "Endpoints":
        """Return this memory with `port` failing at `now`."""
        return replace(self, failed={**self.failed, port: now})

    def is_down(self, port: int) -> bool:
        """Tell whether `port` failed when last tried."""
        return port in self.failed

    @property
    def all_down(self) -> bool:
        """Tell whether every port failed when last tried: the route is unreachable."""
        return all(map(self.is_down, self.ports))

    def _rank(self, port: int, now: float) -> int:
        failed_at = self.failed.get(port)
        if failed_at is not None:
            return 2 if now - failed_at < FADE_S else 1
        return 0 if port in self.worked else 1
