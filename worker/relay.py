"""One message's way through this worker: which recipients next, and what to write down after.

Pure. A message is claimed as a `Claim`; its `Passage` says what is left to do in this round. After
each transaction `advance` turns the judgement into the next passage and the settlement that the
queue must record. Accounts are kept by recipient: each is sent, dead, deferred, or still untried.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.config.model import Retry
from proxy.queue.job import JobEnvelope
from worker import schedule
from worker.claims import Claim, Settlement
from worker.verdict import Judgement

MAX_RECIPIENTS = 50
"""Recipients in one transaction: Postmark's limit for a message."""

DROPS_TO_DEFER = 3
"""Fresh connections lost in the middle of one message before the message gets the blame."""


_GONE = Settlement("gone")


@dataclass(frozen=True, slots=True)
class Passage:
    """What is left of a claimed message in this round.

    `envelope` is as the queue has it, less what this round has settled. `untried` are recipients
    not offered yet, `waiting` those to be tried again later, with their replies. `drops` counts
    fresh connections lost in the middle of this message; `wants_fresh` asks for one with nothing
    else on it, because the last one was lost.
    """

    claim: Claim
    envelope: JobEnvelope
    untried: tuple[str, ...]
    waiting: Mapping[str, str] = field(default_factory=dict)
    drops: int = 0
    wants_fresh: bool = False

    @property
    def next_recipients(self) -> tuple[str, ...]:
        """The recipients of the next transaction: never more transactions than can be."""
        return self.untried[:MAX_RECIPIENTS]


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one transaction for its message.

    `passage` is None when this round is over. `settlement` is what the queue must record.
    `sent`, `dead` and `deferred` say what happened to whom in this step, for log and metrics;
    `delay` is the seconds until those deferred are tried again.
    """

    passage: Passage | None
    settlement: Settlement
    sent: Mapping[str, str]
    dead: Mapping[str, str]
    deferred: Mapping[str, str]
    delay: float = 0.0


def begin(claim: Claim) -> Passage:
    """Return the passage of a freshly claimed message: everybody left is untried."""
    return Passage(claim, claim.envelope, claim.envelope.recipients)


def advance(
    passage: Passage,
    judgement: Judgement,
    *,
    fresh: bool,
    retry: Retry,
    unknown_outcome: str,
    chance: float,
) -> Step:
    """Return what follows from one transaction with `passage.next_recipients`.

    `fresh` says that it was the first on its connection. `unknown_outcome` is "resend" (unknown
    recipients are tried again later, as if deferred) or "hold" (they become dead letters, to be
    looked at by a person). `chance` is 0 to 1, for jitter.
    """
    if len(judgement.sent) == len(passage.untried) and not passage.waiting:
        return Step(None, _GONE, judgement.sent, {}, {})
    dead = dict(judgement.dead)
    deferred = dict(judgement.deferred)
    unknown = {
        address: f"the outcome is unknown: {reply}" for address, reply in judgement.unknown.items()
    }
    if unknown_outcome == "hold":
        dead |= unknown
    else:
        deferred |= unknown
    untried = tuple(
        address
        for address in passage.untried
        if address not in judgement.sent and address not in dead and address not in deferred
    )
    drops = passage.drops + (judgement.midway and fresh)
    if drops >= DROPS_TO_DEFER:
        reply = judgement.reason or "the connection was lost in the middle of the message"
        deferred |= dict.fromkeys(untried, reply)
        untried = ()
    waiting = {**passage.waiting, **deferred}
    left = passage.envelope.left(
        tuple(a for a in passage.envelope.recipients if a in waiting or a in untried), waiting
    )
    if untried:
        return Step(
            Passage(passage.claim, left, untried, waiting, drops, wants_fresh=judgement.midway),
            Settlement("keep", left, dead=_letter(left, dead)),
            judgement.sent,
            dead,
            {},
        )
    return _end_round(left, waiting, dead, judgement.sent, retry=retry, chance=chance)


def _end_round(
    left: JobEnvelope,
    waiting: Mapping[str, str],
    dead: dict[str, str],
    sent: Mapping[str, str],
    *,
    retry: Retry,
    chance: float,
) -> Step:
    """Everybody was tried: the message is gone, or waits for some, or has waited long enough."""
    if not waiting:
        return Step(None, Settlement("gone", dead=_letter(left, dead)), sent, dead, {})
    delay = schedule.delay(left.attempts + 1, retry, chance)
    left = replace(left, attempts=left.attempts + 1, waited=left.waited + delay)
    if schedule.exhausted(left, retry):
        dead |= {
            address: f"given up after {left.attempts} attempts: {r}"
            for address, r in waiting.items()
        }
        return Step(None, Settlement("gone", dead=_letter(left, dead)), sent, dead, {})
    settlement = Settlement("defer", left, delay=delay, dead=_letter(left, dead))
    return Step(None, settlement, sent, dead, waiting, delay)


def _letter(left: JobEnvelope, dead: Mapping[str, str]) -> JobEnvelope | None:
    """Return the envelope of the dead letter for `dead`; None: nobody died."""
    return replace(left, recipients=tuple(dead), replies=dict(dead)) if dead else None


def bury(passage: Passage, why: str) -> Step:
    """Return the step that makes everybody left of `passage` a dead letter (expired, stopped)."""
    dead = dict.fromkeys(passage.envelope.recipients, why)
    return Step(None, Settlement("gone", dead=_letter(passage.envelope, dead)), {}, dead, {})


def postpone(passage: Passage, reply: str, *, delay: float) -> Step:
    """Return the step that defers everybody left without counting an attempt."""
    waiting = {**passage.waiting, **dict.fromkeys(passage.untried, reply)}
    left = passage.envelope.left(passage.envelope.recipients, waiting)
    return Step(None, Settlement("defer", left, delay=delay), {}, {}, waiting, delay)


def resume(passage: Passage, detail: str, unknown_outcome: str) -> Step | None:
    """Return the step for a claim whose last transaction nobody knows the end of (`claim.dot`).

    None: everybody left is tried again, as "resend" says. With "hold" those of that transaction
    become dead letters for a person to look at, and the others go on.
    """
    held = tuple(a for a in passage.envelope.recipients if a in passage.claim.dot)
    if unknown_outcome != "hold" or not held:
        return None
    dead = dict.fromkeys(held, f"the outcome is unknown: {detail}")
    rest = tuple(a for a in passage.envelope.recipients if a not in dead)
    if not rest:
        return bury(passage, f"the outcome is unknown: {detail}")
    left = passage.envelope.left(rest, {})
    settlement = Settlement("keep", left, dead=_letter(left, dead))
    return Step(Passage(passage.claim, left, rest), settlement, {}, dead, {})
