"""Between claims and relay: a message that was taken, and what became of it. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from proxy.queue.job import JobEnvelope

Then = Literal["gone", "defer", "back", "keep"]


class Leave(Enum):
    """Whether a message that was refused as a whole may die of it."""

    DIES = "dies"
    WAITS = "waits"
    """The route refuses whatever it is given: it is not the message's fault."""
    LOST = "lost"
    """The claim is no longer ours."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One message that this worker, and no other, may relay now.

    `execution` names this taking of it: marks and settles under an older one are refused. `dot`
    holds the recipients of a transaction whose final dot may be out without a reply: of a worker
    that died, or of one that handed the message on. What became of them is unknown; decide on
    them before the first `mark`, which writes over this.
    """

    id: str
    stream: str
    execution: str
    envelope: JobEnvelope
    body: bytes
    dot: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of a claim, in one step.

    `then`: the message is "gone" (nobody is left, or `dead` are the last), is due again after
    `delay` seconds ("defer"), goes back to the head of its queue ("back"), or stays claimed
    because another transaction follows ("keep").
    `left` is the envelope as it is from now on; None leaves it as it is.
    `dead` are recipients that become a dead letter of their own in the same step; when `then` is
    not "gone", `left` must be given, without them.
    `dot` are recipients whose outcome stays unknown: the next claim of the message has them in
    `Claim.dot`. Empty clears the mark.
    `asked` are recipients who become a job of their own in the same step, because their outcome is
    unknown and Postmark will be asked: it is due after `asked.asked` seconds, and its claim has
    them in `Claim.dot`; `left` must be given, without them.
    """

    then: Then
    left: JobEnvelope | None = None
    delay: float = 0.0
    dead: JobEnvelope | None = None
    dot: tuple[str, ...] = ()
    asked: JobEnvelope | None = None

    def __post_init__(self) -> None:
        if self.then != "gone" and self.left is None and (self.dead or self.asked):
            raise ValueError("a settlement with recipients split off must say who is left")
        if self.then == "gone" and (self.left is not None or self.dot or self.asked):
            raise ValueError("nobody can be left of a message that is gone")
