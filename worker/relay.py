"""One message's way through this worker: which recipients next, and what to write down after.

Pure. A message is claimed as a `Claim`; its `Passage` says what is left to do in this round. After
each transaction `advance` turns the judgement into the next passage and the settlement that the
queue must record. Accounts are kept by recipient: each is sent, dead, deferred, or still untried.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from proxy.config.model import Retry
from proxy.queue.job import JobEnvelope
from worker import schedule
from worker.claim import Claim, Settlement
from worker.verdict import Judgement

UnknownOutcome = Literal["resend", "hold", "ask"]
"""What is done about recipients of whom nobody knows whether they have the message."""

MAX_RECIPIENTS = 50
"""Recipients in one transaction: Postmark's limit for a message."""

_SHORTEST_ASK_S = 0.001  # `JobEnvelope.asked` above 0 says that a message is asked for

DROPS_TO_DEFER = 3
"""Fresh connections lost in the middle of one message before the message gets the blame."""


_GONE = Settlement("gone")
_EXPIRED = "it expired before it could be sent"


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
    envelope = claim.envelope
    if envelope.asked:  # of one that was asked for and is now to be sent
        envelope = replace(envelope, asked=0.0, unanswered=0.0)
    return Passage(claim, envelope, envelope.recipients)


def advance(
    passage: Passage,
    judgement: Judgement,
    *,
    fresh: bool,
    retry: Retry,
    unknown_outcome: UnknownOutcome,
    chance: float,
    ask_in: float = 0.0,
) -> Step:
    """Return what follows from one transaction with `passage.next_recipients`.

    `fresh` says that it was the first on its connection. `unknown_outcome` is "resend" (unknown
    recipients are tried again later, as if deferred), "hold" (they become dead letters, to be
    looked at by a person) or "ask" (Postmark is asked about them after `ask_in` seconds: they
    wait as a job of their own, so that the others go on). `chance` is 0 to 1, for jitter.
    """
    if len(judgement.sent) == len(passage.untried) and not passage.waiting:
        return Step(None, _GONE, judgement.sent, {}, {})
    dead = dict(judgement.dead)
    deferred = dict(judgement.deferred)
    asked: dict[str, str] = {}
    unknown = {
        address: f"the outcome is unknown: {reply}" for address, reply in judgement.unknown.items()
    }
    match unknown_outcome:
        case "hold":
            dead |= unknown
        case "ask":
            asked = unknown
        case _:
            deferred |= unknown
    settled = {**judgement.sent, **dead, **deferred, **asked}
    untried = tuple(address for address in passage.untried if address not in settled)
    drops = passage.drops + (judgement.midway and fresh)
    if drops >= DROPS_TO_DEFER:
        reply = judgement.reason or "the connection was lost in the middle of the message"
        deferred |= dict.fromkeys(untried, reply)
        untried = ()
    waiting = {**passage.waiting, **deferred}
    left = passage.envelope.left(
        tuple(a for a in passage.envelope.recipients if a in waiting or a in untried), waiting
    )
    suspects = _suspects(left, asked, ask_in)
    if untried:
        return Step(
            Passage(passage.claim, left, untried, waiting, drops, wants_fresh=judgement.midway),
            Settlement("keep", left, dead=letter(left, dead), asked=suspects),
            judgement.sent,
            dead,
            {},
        )
    return _end_round(left, waiting, dead, judgement.sent, suspects, retry=retry, chance=chance)


def _end_round(
    left: JobEnvelope,
    waiting: Mapping[str, str],
    dead: dict[str, str],
    sent: Mapping[str, str],
    suspects: JobEnvelope | None,
    *,
    retry: Retry,
    chance: float,
) -> Step:
    """Everybody was tried: the message is gone, or waits for some, or has waited long enough."""
    delay = schedule.delay(left.attempts + 1, retry, chance)
    if waiting:
        left = replace(left, attempts=left.attempts + 1, waited=left.waited + delay)
        if schedule.exhausted(left, retry):
            dead |= given_up(left, waiting)
            waiting = {}
    if waiting:
        settlement = Settlement("defer", left, delay=delay, dead=letter(left, dead), asked=suspects)
        return Step(None, settlement, sent, dead, waiting, delay)
    if suspects is not None:  # nobody else is left: the message itself waits to be asked for
        settlement = Settlement(
            "defer",
            suspects,
            delay=suspects.asked,
            dead=letter(left, dead),
            dot=suspects.recipients,
        )
        return Step(None, settlement, sent, dead, {})
    return Step(None, Settlement("gone", dead=letter(left, dead)), sent, dead, {})


def given_up(envelope: JobEnvelope, waiting: Mapping[str, str]) -> dict[str, str]:
    """Return the last words about recipients that have waited for the whole horizon."""
    return {
        address: f"given up after {envelope.attempts} attempts: {reply}"
        for address, reply in waiting.items()
    }


def _suspects(
    envelope: JobEnvelope, unknown: Mapping[str, str], ask_in: float
) -> JobEnvelope | None:
    """Return the envelope of those whose outcome is unknown; None: it is known of all."""
    if not unknown:
        return None
    return replace(
        envelope,
        recipients=tuple(unknown),
        replies=dict(unknown),
        asked=max(ask_in, _SHORTEST_ASK_S),
        unanswered=0.0,
    )


def letter(left: JobEnvelope, dead: Mapping[str, str]) -> JobEnvelope | None:
    """Return the envelope of the dead letter for `dead`; None: nobody died."""
    if not dead:
        return None
    return replace(left, recipients=tuple(dead), replies=dict(dead), asked=0.0, unanswered=0.0)


def bury(passage: Passage, why: str) -> Step:
    """Return the step that makes everybody left of `passage` a dead letter (stopped)."""
    dead = dict.fromkeys(passage.envelope.recipients, why)
    return Step(None, Settlement("gone", dead=letter(passage.envelope, dead)), {}, dead, {})


def expire(passage: Passage) -> Step:
    """Return the step for a message whose time (`expires`) is over: a dead letter to everybody."""
    replies = passage.envelope.replies

    def words(address: str) -> str:
        said = [_EXPIRED]
        if address in passage.claim.dot:
            said.append("whether an earlier attempt arrived is unknown")
        elif address in replies:
            said.append(f"the last reply was: {replies[address]}")
        return "; ".join(said)

    dead = {address: words(address) for address in passage.envelope.recipients}
    return Step(None, Settlement("gone", dead=letter(passage.envelope, dead)), {}, dead, {})


def leave_dead(passage: Passage) -> Step:
    """Return the step for mail that was refused at the door, and that something queued as it is.

    It is not in the form that goes to Postmark; its recipients' replies stay.
    """
    envelope = passage.envelope
    why = "refused when it was handed in; franker queue retry has today's rules look at it"
    dead = {one: envelope.replies.get(one, why) for one in envelope.recipients}
    return Step(None, Settlement("gone", dead=letter(envelope, dead)), {}, dead, {})


def postpone(passage: Passage, reply: str, *, delay: float) -> Step:
    """Return the step that defers everybody left without counting an attempt."""
    waiting = {**passage.waiting, **dict.fromkeys(passage.untried, reply)}
    left = passage.envelope.left(passage.envelope.recipients, waiting)
    return Step(None, Settlement("defer", left, delay=delay), {}, {}, waiting, delay)


def resume(passage: Passage, detail: str, unknown_outcome: UnknownOutcome) -> Step | None:
    """Return the step for a claim whose last transaction nobody knows the end of (`claim.dot`).

    None: everybody left is tried again, as "resend" says. With "hold" those of that transaction
    become dead letters for a person to look at, with "ask" a job of their own that Postmark is
    asked for (see `asks_for_all`), and the others go on.
    """
    suspects = tuple(a for a in passage.envelope.recipients if a in passage.claim.dot)
    if unknown_outcome == "resend" or not suspects:
        return None
    words = dict.fromkeys(suspects, f"the outcome is unknown: {detail}")
    rest = tuple(a for a in passage.envelope.recipients if a not in words)
    left = replace(passage.envelope.left(rest, {}), asked=0.0, unanswered=0.0)
    if unknown_outcome == "ask":
        settlement = Settlement("keep", left, asked=_suspects(left, words, 0.0))
        return Step(Passage(passage.claim, left, rest), settlement, {}, {}, {})
    if not rest:
        return bury(passage, f"the outcome is unknown: {detail}")
    settlement = Settlement("keep", left, dead=letter(left, words))
    return Step(Passage(passage.claim, left, rest), settlement, {}, words, {})


def asks_for_all(claim: Claim) -> bool:
    """Tell whether nobody is left of a claim but those of a transaction without a known end."""
    return set(claim.envelope.recipients) <= set(claim.dot)
