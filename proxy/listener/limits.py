"""What the listener holds at most, and how long it waits."""

from dataclasses import dataclass

from proxy.config.model import Listen


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets, counts and seconds for every session.

    `timeout` is how long a client may be silent (RFC 5321 §4.5.3.2.7: at least five minutes).
    From MAIL to DATA it has `transaction` in all, or one that says NOOP every minute would hold its
    connection for ever. A message must come at no less than `slowest` octets a second on the whole,
    once the first `timeout` is over: whoever sends one octet a minute would hold memory for ever.
    """

    message_size: int = 10_000_000
    recipients: int = 1000
    connections: int = 500
    memory: int = 48_000_000
    timeout: float = 300.0
    transaction: float = 3600.0
    slowest: float = 1000.0
    handshake: float = 30.0

    @classmethod
    def of(cls, listen: Listen) -> "Limits":
        """Return the limits that `[listen]` sets."""
        return cls(
            message_size=listen.max_message_size,
            recipients=listen.max_recipients,
            connections=listen.max_connections,
            memory=listen.memory,
        )


class Memory:
    """Octets of messages in this process, over all sessions, from their arrival to our reply."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def fits(self, octets: int) -> bool:
        """Return whether `octets` more could be held now."""
        return self.held + octets <= self.limit

    def take(self, octets: int) -> bool:
        """Count `octets` more and return True, unless that would go over the limit."""
        if self.held + octets > self.limit:
            return False
        self.held += octets
        return True

    def add(self, octets: int) -> None:
        """Count `octets` that are there already, limit or not; negative gives back."""
        self.held += octets


class Rarely:
    """Log lines that a flood of connections must not make a flood of: one in PAUSE_S a reason."""

    PAUSE_S = 10.0

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._missed: dict[str, int] = {}

    def due(self, reason: str, now: float) -> int:
        """Return of how many events the line tells that is due now; 0 when none is yet."""
        count = self._missed.get(reason, 0) + 1
        if now < self._next.get(reason, now):
            self._missed[reason] = count
            return 0
        self._missed[reason] = 0
        self._next[reason] = now + self.PAUSE_S
        return count
