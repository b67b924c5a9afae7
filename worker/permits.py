"""Leave to send a message's final dot: from there on it may arrive, whatever becomes of us."""

import asyncio
import time
from functools import partial

from worker.claims import Claims

_HEARTBEAT_WAIT_S = 30.0
_HEARTBEAT_POLL_S = 0.05


class Permits:
    """Gives leave once it is on disk that the dot may be out, and while this worker is alive."""

    def __init__(self, claims: Claims) -> None:
        self.stopped: set[str] = set()
        """Ids of messages that a person stopped: their dots get no leave."""
        self._claims = claims
        self._waits: set[asyncio.Task[None]] = set()

    def ask(self, job_id: str, marked: "asyncio.Future[bool]") -> "asyncio.Future[bool]":
        """Return whether the final dot of a message may be sent, as soon as that is known."""
        permit: asyncio.Future[bool] = marked.get_loop().create_future()
        if marked.done():
            self._decide(job_id, permit, marked)
        else:
            marked.add_done_callback(partial(self._decide, job_id, permit))
        return permit

    def _decide(
        self, job_id: str, permit: "asyncio.Future[bool]", marked: "asyncio.Future[bool]"
    ) -> None:
        if permit.done():  # the connection is gone
            return
        if not marked.result() or job_id in self.stopped:
            permit.set_result(False)
        elif self._claims.may_send():
            permit.set_result(True)
        else:  # Redis stood still: the others may have taken this worker for dead
            wait = asyncio.create_task(self._seen_alive(permit), name="heartbeat wanted")
            self._waits.add(wait)
            wait.add_done_callback(self._waits.discard)

    async def _seen_alive(self, permit: "asyncio.Future[bool]") -> None:
        alive, until = self._claims.may_send, time.monotonic() + _HEARTBEAT_WAIT_S
        while not alive() and time.monotonic() < until:  # noqa: ASYNC110 - rare, and has no event
            await asyncio.sleep(_HEARTBEAT_POLL_S)
        if not permit.done():
            permit.set_result(alive())
