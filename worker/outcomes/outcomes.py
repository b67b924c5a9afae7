"""Messages whose outcome is unknown: asks Postmark for them, and settles what the answer says.

Between two questions a message waits in the queue, as deferred mail does, with the mark of its
transaction; so it survives whatever ends this process. While a question is out it is claimed, but
takes no connection's place, and its octets are let go.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from proxy import log
from proxy.config.model import Settings
from proxy.metrics import relaying
from worker import ledger, relay
from worker.claim import Claim, Settlement
from worker.claims import Claims
from worker.outcomes import silence
from worker.outcomes.api import Api, TokenRefused, Unanswered
from worker.outcomes.asking import FIRST_S, LONGEST_S, first_pause, follow, patience
from worker.outcomes.findings import Finding
from worker.outcomes.inquiry import api_tokens, by_token, inquire
from worker.outcomes.reach import Reach
from worker.outcomes.silence import Silence
from worker.relay import Step, UnknownOutcome
from worker.smarthost.tls import TrustStore

ENDED = "the worker that sent it ended before the reply came"

_AT_ONCE = 4
_MOST = 100
"""Questions out or waiting for their turn; what is beyond goes back to wait in the queue."""


class Outcomes:
    """Asks Postmark what became of messages, for all streams that have an API token."""

    def __init__(self, settings: Settings, claims: Claims, trust: TrustStore) -> None:
        self._settings = settings
        self._claims = claims
        self._api = Api(settings.postmark.api_url, trust)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._stopped: set[str] = set()
        self._silent: dict[str, Silence] = {}
        self._trust = trust
        self._reach = Reach(settings.postmark.api_url, self._api, claims.board)
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Find out whether Postmark can be asked, before any mail is in doubt."""
        if any(api_tokens(stream) for stream in self._settings.streams.values()):
            self._looking = asyncio.create_task(self._reach.look(), name="look for the API")

    def go_by(self, settings: Settings, trust: TrustStore) -> None:
        """Ask as `settings` say from now on; what is asked just now is asked to its end.

        Mail of a stream that is no longer configured goes by what was.
        """
        url, before = settings.postmark.api_url, self._settings
        streams = {**before.streams, **settings.streams}
        self._settings = settings.model_copy(update={"streams": streams})
        self._silent.clear()
        if trust is not self._trust or url != before.postmark.api_url:
            old = asyncio.create_task(self._end(self._api, list(self._asking.values())))
            self._ending.add(old)
            old.add_done_callback(self._ending.discard)
            if self._looking is not None:
                self._looking.cancel()
                self._looking = None
            self._api, self._trust = Api(url, trust), trust
            self._reach = Reach(url, self._api, self._claims.board)
        if self._looking is None:
            self.start()

    @staticmethod
    async def _end(api: Api, asking: list[asyncio.Task[None]]) -> None:
        if asking:
            await asyncio.wait(asking)
        await api.close()

    def policy(self, stream: str) -> UnknownOutcome:
        """Return what is done about an unknown outcome of `stream`: "ask", else as configured."""
        tokens = api_tokens(self._settings.streams[stream])
        return "ask" if tokens else self._settings.postmark.unknown_outcome

    def first_pause(self) -> float:
        """Return the seconds until a message is asked for the first time."""
        return first_pause(self._settings.postmark.ask_for, random.random())

    def takes(self, claim: Claim) -> bool:
        """Take over `claim`, and settle it, if its outcome is all there is to find out.

        That is: nobody is left but `claim.dot`, and Postmark can be asked. Else returns False.
        """
        if not claim.dot or not relay.asks_for_all(claim) or self.policy(claim.stream) != "ask":
            return False
        if not claim.envelope.asked:
            log.unknown(claim.id, stream=claim.stream, recipients=claim.dot, detail=ENDED)
        self._take(claim)
        return True

    def _take(self, claim: Claim) -> None:
        if len(self._asking) >= _MOST:
            # As it was, only later.
            delay = FIRST_S * (1 + random.random())
            self._claims.settle(claim, Settlement("defer", delay=delay, dot=claim.dot))
            return
        claim = replace(claim, body=b"")  # what is to be sent again is claimed again
        task = asyncio.create_task(self._ask(claim), name=f"ask for {claim.id}")
        self._asking[claim.id] = task
        task.add_done_callback(partial(self._asked, claim))

    def stop(self, job_id: str) -> None:
        """Stop asking for a message: a person wants it stopped; it becomes a dead letter."""
        task = self._asking.get(job_id)
        if task is not None:
            self._stopped.add(job_id)
            task.cancel()

    async def close(self) -> None:
        """Give back what is asked for just now, to be asked for by another worker."""
        tasks = [*self._asking.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)
        await self._api.close()

    def _asked(self, claim: Claim, task: asyncio.Task[None]) -> None:
        self._asking.pop(claim.id, None)
        if task.cancelled() and claim.id in self._stopped:
            passage = relay.begin(claim)
            step = relay.bury(passage, "stopped by hand; the outcome is unknown")
            self._claims.settle(claim, step.settlement)
            ledger.step(passage, step, None)
        elif task.cancelled():
            self._claims.settle(claim, Settlement("back", dot=claim.dot))
            log.returned(claim.id, stream=claim.stream, detail="the worker stops")
        elif (error := task.exception()) is not None:
            # Our defect: nothing is known, so it goes on being asked for.
            log.defect("outcomes", error=error, message_id=claim.id)
            relaying.DEFECTS.labels("outcomes").inc()
            self._claims.settle(claim, Settlement("defer", delay=LONGEST_S, dot=claim.dot))
        self._stopped.discard(claim.id)

    async def _ask(self, claim: Claim) -> None:
        stream = self._settings.streams[claim.stream]
        question = partial(inquire, self._api, stream.id or claim.stream, claim)
        finding: Finding | None = None
        came_at = time.monotonic()
        async with self._turns:
            quiet = self._silent.get(claim.stream)
            if quiet is None or not self._spares(quiet, claim, came_at):
                finding = await self._question(claim.stream, question)
                quiet = self._silent.get(claim.stream)
        step = follow(
            claim,
            finding,
            ask_for=self._settings.postmark.ask_for,
            unknown_outcome=self._settings.postmark.unknown_outcome,
            retry=self._settings.retry,
            chance=random.random(),
            silence=quiet.detail if quiet else "",
            reachable=self._reach.known or (quiet is not None and quiet.refused),
        )
        self._claims.settle(claim, step.settlement)
        self._note(claim, finding, step, quiet)

    # -- whether there are answers -------------------------------------------------------------

    def _spares(self, quiet: Silence, claim: Claim, came_at: float) -> bool:
        """Tell whether it is known without a question of its own that there is no answer."""
        ask_for = self._settings.postmark.ask_for
        last = claim.envelope.unanswered >= patience(ask_for, reachable=self._reach.known)
        return silence.holds(quiet, came_at=came_at, now=time.monotonic(), last=last)

    async def _question(
        self, stream: str, question: Callable[[str], Awaitable[Finding]]
    ) -> Finding | None:
        """Ask; None where no answer came, `_silent` says why then."""
        asked_at = time.monotonic()
        try:
            finding, _ = await by_token(api_tokens(self._settings.streams[stream]), question)
        except Unanswered as error:
            before = self._silent.get(stream)
            after = silence.after_failure(
                before,
                str(error),
                refused=isinstance(error, TokenRefused),
                asked_at=asked_at,
                now=time.monotonic(),
            )
            self._silent[stream] = after
            if before is None or before.detail != after.detail:
                log.look_ups_silent(stream, detail=after.detail)
            return None
        finally:
            self._reach.note()
        if self._silent.pop(stream, None) is not None:
            log.look_ups_back(stream)
        return finding

    # -- the account ---------------------------------------------------------------------------

    @staticmethod
    def _note(claim: Claim, finding: Finding | None, step: Step, quiet: Silence | None) -> None:
        ledger.step(relay.begin(claim), step, None)
        left = step.settlement.left
        waits = left is not None and left.asked > 0
        if finding is None:
            result = "unanswered"
        elif finding.dead or finding.absent:
            result = "refused"
        elif finding.sent:
            result = "found"
        else:
            result = "absent"
        relaying.LOOK_UPS.labels(claim.stream, result).inc()
        if finding is None and quiet is not None and quiet.refused:
            relaying.LOOK_UP_TOKEN_REFUSED.labels(claim.stream).inc()
        if left is not None and waits:
            log.looked_up(
                claim.id,
                stream=claim.stream,
                recipients=left.recipients,
                result=quiet.detail if quiet else "not found at Postmark yet",
                delay=step.delay,
            )
