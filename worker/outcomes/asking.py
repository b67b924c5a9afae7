"""When Postmark is asked again, and what follows from its answers. Pure.

A message whose outcome is unknown is asked for at once, and again after pauses that double, since
a message is found only some time after it was taken. What is not found for long enough is not
there, and is sent again. Time without an answer does not count for that.
"""

from dataclasses import replace

from proxy.config.model import Retry
from proxy.queue.job import JobEnvelope
from worker import relay, schedule
from worker.claim import Claim, Settlement, Then
from worker.outcomes.findings import Finding
from worker.relay import Step, UnknownOutcome

FIRST_S = 2.0
"""From the lost reply to the first question, and the shortest pause between two."""

LONGEST_S = 60.0
"""The longest pause between two questions."""

_SILENT = 12
_UNREACHABLE = 0.25


def patience(ask_for: float, *, reachable: bool) -> float:
    """Return for how many seconds an answer is waited for: for trouble at Postmark, long.

    `reachable` is False where no connection to the API ever came about: where there is no way to
    it nothing is gained by waiting.
    """
    return ask_for * (_SILENT if reachable else _UNREACHABLE)


def first_pause(ask_for: float, chance: float) -> float:
    """Return the seconds before the first question; `ask_for` as in [postmark], chance 0 to 1."""
    return _longer(min(FIRST_S, ask_for), chance)


def _longer(pause: float, chance: float) -> float:
    return pause * (1 + schedule.JITTER * chance)


def _pause(waited: float, limit: float, chance: float) -> float:
    """Return the next pause after `waited` seconds: as long as all before, within bounds."""
    return _longer(min(max(waited, FIRST_S), LONGEST_S, limit - waited), chance)


def follow(
    claim: Claim,
    finding: Finding | None,
    *,
    ask_for: float,
    unknown_outcome: UnknownOutcome,
    retry: Retry,
    chance: float,
    silence: str = "",
    reachable: bool = True,
) -> Step:
    """Return what follows from an answer about the recipients of `claim`.

    `finding` is None when no answer came, because of `silence`. What is not found for `ask_for`
    seconds is sent again; where there was no answer for as long as there is `patience`,
    `unknown_outcome` decides, "resend" or "hold". `chance` is 0 to 1, for jitter.
    """
    envelope = claim.envelope
    if finding is None:
        longest = patience(ask_for, reachable=reachable)
        if envelope.unanswered < longest:
            pause = _pause(envelope.unanswered, longest, chance)
            return _ask_again(
                claim, replace(envelope, unanswered=envelope.unanswered + pause), pause
            )
        words = f"the outcome is unknown, and Postmark cannot be asked: {silence}"
        if unknown_outcome == "hold":
            return relay.bury(relay.begin(claim), words)
        return _send_again(envelope, dict.fromkeys(envelope.recipients, words), retry, chance)
    over = {**finding.sent, **finding.dead}
    rest = tuple(address for address in envelope.recipients if address not in over)
    # From now on what these messages tell is old.
    left = replace(envelope.left(rest, {}), settled=envelope.settled + finding.ids)
    if not rest:
        step = Step(None, Settlement("gone"), {}, {}, {})
    elif set(rest) <= finding.absent.keys():
        step = _send_again(replace(left, asked=0.0), dict(finding.absent), retry, chance)
    elif envelope.asked >= ask_for:
        words = f"not found at Postmark within {envelope.asked:.0f} s"
        step = _send_again(left, {**dict.fromkeys(rest, words), **finding.absent}, retry, chance)
    else:
        pause = _pause(envelope.asked, ask_for, chance)
        left = envelope.left(rest, {})
        left = replace(left, asked=envelope.asked + pause, unanswered=0.0)
        step = _ask_again(claim, left, pause)
    dead = {**finding.dead, **step.dead}
    letter = relay.letter(step.settlement.dead or left, dead)
    if letter is not None:
        letter = replace(letter, settled=envelope.settled + finding.ids)
    settlement = replace(step.settlement, dead=letter)
    return replace(step, settlement=settlement, sent=finding.sent, dead=dead)


def _ask_again(claim: Claim, left: JobEnvelope, pause: float) -> Step:
    """Return the step that leaves a message waiting for the next question."""
    settlement = Settlement("defer", left, delay=pause, dot=claim.dot)
    return Step(None, settlement, {}, {}, {}, pause)


def _send_again(left: JobEnvelope, waiting: dict[str, str], retry: Retry, chance: float) -> Step:
    """Return the step that puts a message back to be sent: one attempt is counted.

    The time it was asked for is part of the pause after that attempt.
    """
    pause = max(schedule.delay(left.attempts + 1, retry, chance), left.asked)
    delay = pause - left.asked
    left = replace(
        left.left(left.recipients, waiting),
        attempts=left.attempts + 1,
        waited=left.waited + pause,
        asked=0.0,
        unanswered=0.0,
    )
    if schedule.exhausted(left, retry):
        dead = relay.given_up(left, waiting)
        return Step(None, Settlement("gone", dead=relay.letter(left, dead)), {}, dead, {})
    then: Then = "defer" if delay > 0 else "back"
    return Step(None, Settlement(then, left, delay=delay), {}, {}, waiting, delay)
