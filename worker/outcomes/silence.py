"""Postmark's API does not answer: since when, and when it is asked again. Pure.

Times are seconds, monotonic.
"""

from dataclasses import dataclass, replace

from worker.outcomes.asking import FIRST_S, LONGEST_S


@dataclass(frozen=True, slots=True)
class Silence:
    """Why questions are not answered, and until when the others are spared.

    `asked_at` is when the last question began that got no answer, `noted_at` when the silence was
    last found to last; `refused` says that the token was refused, or that there is none.
    """

    detail: str
    refused: bool
    asked_at: float
    noted_at: float
    pause: float

    @property
    def until(self) -> float:
        """When the next question is due."""
        return self.noted_at + self.pause


def after_failure(
    before: Silence | None, detail: str, *, refused: bool, asked_at: float, now: float
) -> Silence:
    """Return the silence after a question that began at `asked_at` and failed at `now`.

    Questions that fail together count as one, so that the pause doubles once for all of them.
    """
    if before is None:
        return Silence(detail, refused, asked_at, now, FIRST_S)
    if asked_at < before.until:
        latest = max(asked_at, before.asked_at)
        return replace(before, detail=detail, refused=refused, asked_at=latest)
    return Silence(detail, refused, asked_at, now, min(LONGEST_S, before.pause * 2))


def holds(silence: Silence, *, came_at: float, now: float, last: bool) -> bool:
    """Tell whether a message whose turn came at `came_at` can do without a question of its own.

    `last` says that without an answer it is given up: that rests on no silence from before.
    """
    return silence.asked_at >= came_at or (not last and now < silence.until)
