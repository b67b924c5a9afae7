"""How many connections a far end that asked to slow down is given: half, then slowly all again.

Pure: time (seconds, monotonic) is an argument.
"""

_RECOVERY_S = 10.0
_ONE_ANSWER_S = 1.0
"""What is said within it of several connections is one word to slow down."""


class Congestion:
    """The width of one route, narrower for a while after congestion."""

    def __init__(self) -> None:
        self._width: int | None = None
        self._narrowed_at = 0.0

    def narrow(self, connections: int, now: float) -> None:
        """Use half of the `connections` now open: the far end asks to slow down."""
        if self._width is None or now - self._narrowed_at > _ONE_ANSWER_S:
            self._width = max(1, connections // 2)
            self._narrowed_at = now

    def width(self, share: int, now: float) -> int:
        """Return how many of `share` connections to use; one more each 10 s after congestion."""
        if self._width is None:
            return share
        grown = self._width + int((now - self._narrowed_at) / _RECOVERY_S)
        if grown >= share:
            self._width = None
        return min(grown, share)
