"""The gate before a route: open, or closed for a reason that is not the mail's, and how wide.

Keeps the state of `worker.route` for one channel and tells log and metrics of every change.
"""

import random
from collections.abc import Callable, Sequence

from proxy import log
from proxy.metrics import relaying
from worker import route
from worker.route import Pause, Reason, Refusals

_RECOVERY_S = 10.0


class Gate:
    """Whether mail of `streams` may be sent by this worker now."""

    def __init__(self, streams: Sequence[str], clock: Callable[[], float]) -> None:
        """`clock` returns seconds, monotonic."""
        self._streams = tuple(streams)
        self._clock = clock
        self._pause: Pause | None = None
        self._refusals = Refusals()
        self._width: int | None = None
        self._narrowed_at = 0.0
        for stream in self._streams:
            for reason in Reason:
                relaying.ROUTE_PAUSED.labels(stream, reason).set(0)

    @property
    def reason(self) -> Reason | None:
        """Why the gate is closed; None while it is open."""
        return self._pause.reason if self._pause else None

    @property
    def probe_due(self) -> bool:
        """Tell whether a closed gate should be tried now."""
        return self._pause is not None and self._pause.due(self._clock())

    def close(self, reason: Reason, detail: str) -> None:
        """Close the gate, or keep it closed longer after a probe that failed.

        What was under way when it closed, and fails of the same, is no probe and changes nothing.
        """
        before, now = self._pause, self._clock()
        if before is not None and before.reason is reason and not before.due(now):
            return
        self._pause = route.pause(before, reason, detail, now=now, chance=random.random())
        for stream in self._streams:
            if before is not None and before.reason is not reason:
                relaying.ROUTE_PAUSED.labels(stream, before.reason).set(0)
            relaying.ROUTE_PAUSED.labels(stream, reason).set(1)
            log.route_paused(
                stream, reason=reason, detail=detail, retry_in=self._pause.probe_at - now
            )

    def probe_now(self) -> None:
        """Make the next probe due: what may have been the cause has changed."""
        if self._pause is not None:
            self._pause = route.probe_now(self._pause, now=self._clock())

    def open(self) -> None:
        """Open the gate: a probe has passed."""
        before, self._pause = self._pause, None
        if before is not None:
            for stream in self._streams:
                relaying.ROUTE_PAUSED.labels(stream, before.reason).set(0)
                log.route_released(
                    stream, reason=before.reason, seconds=self._clock() - before.since
                )

    # -- refusals of whole messages ------------------------------------------------------------

    def accepted(self) -> None:
        """Note a 250 to a message: nobody is refusing everything."""
        if self._refusals.messages:
            self._refusals = Refusals()
        if self.reason is Reason.REFUSING:
            self.open()

    def refused(self, message_id: str, reply: str) -> bool:
        """Note a whole message refused with `reply` (code and enhanced code).

        Returns True when this speaks against the route: the message is not to be blamed.
        """
        self._refusals = self._refusals.refused(message_id, reply)
        return self._refusals.against_route

    # -- congestion ---------------------------------------------------------------------------

    def narrow(self, connections: int) -> None:
        """Use half of the `connections` now open: the far end asks to slow down."""
        if self._width is None or self._clock() - self._narrowed_at > 1.0:
            self._width = max(1, connections // 2)
            self._narrowed_at = self._clock()

    def width(self, share: int) -> int:
        """Return how many of `share` connections to use; one more each 10 s after congestion."""
        if self._width is None:
            return share
        grown = self._width + int((self._clock() - self._narrowed_at) / _RECOVERY_S)
        if grown >= share:
            self._width = None
        return min(grown, share)
