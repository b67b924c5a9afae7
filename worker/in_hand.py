"""The mail a channel has claimed and not settled: what waits here, and what is on the wire."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from proxy import log
from proxy.config.model import Retry
from proxy.metrics import relaying
from worker import ledger, relay
from worker.claim import Settlement
from worker.claims import Claims
from worker.permits import Permits
from worker.relay import Passage

_Done = asyncio.Future[bool]


class InHand:
    """Claimed messages, and the ways in which they leave without a verdict of the far end."""

    def __init__(self, claims: Claims) -> None:
        self.octets = 0
        """Of the messages in hand."""
        self._claims = claims
        self._permits = Permits(claims)
        self._ready: deque[Passage] = deque()
        # By id and execution: one that was taken from us may come back while it is on the wire.
        self._in_flight: dict[tuple[str, str], Passage] = {}
        self._landed = asyncio.Event()
        self._landed.set()

    @property
    def in_hand(self) -> int:
        """Messages claimed and not settled."""
        return len(self._ready) + len(self._in_flight)

    def _give_back(self, passage: Passage, why: str, dot: tuple[str, ...] = ()) -> _Done:
        """Return a message to the head of its queue: nothing was its fault."""
        log.returned(passage.claim.id, stream=passage.claim.stream, detail=why)
        self._forget(passage)
        return self._claims.settle(passage.claim, Settlement("back", passage.envelope, dot=dot))

    def recall(self, why: str, which: Callable[[Passage], bool] = lambda _: True) -> list[_Done]:
        """Give back what is not on the wire; return what is done when the queue has it.

        `which` says of what; the last first, so that the order stays.
        """
        waiting, self._ready = self._ready, deque()
        self._ready.extend(passage for passage in waiting if not which(passage))
        return [self._give_back(one, why) for one in reversed(waiting) if which(one)]

    def _our_defect(
        self, passage: Passage, error: Exception, retry: Retry, dot_out: tuple[str, ...] = ()
    ) -> None:
        """Defer a message that we cannot handle: no attempt counted, no bounce, no loss.

        What became of those in `dot_out` is unknown.
        """
        log.defect("relay", error=error, message_id=passage.claim.id)
        relaying.DEFECTS.labels("relay").inc()
        reply = f"a defect in Franker: {error!r}; the log has more"
        step = relay.postpone(passage, reply, delay=retry.cap)
        self._claims.settle(passage.claim, replace(step.settlement, dot=dot_out))
        ledger.step(passage, step, None)
        self._forget(passage)

    def _forget(self, passage: Passage) -> None:
        self.octets -= len(passage.claim.body)
        self._permits.stopped.discard(passage.claim.id)
