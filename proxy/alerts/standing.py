"""What is wrong now, and what of it is to be said: pure. Times are seconds, monotonic."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

QUIET_S = 300.0
"""So long after the last word on something that comes and goes, its coming back is not told."""


class Kind(StrEnum):
    """What may be wrong; the label of `franker_alerts`."""

    ROUTE = "route"
    STORE = "store"
    JOURNAL = "journal"
    DEAD_LETTERS = "dead_letters"
    HELD = "held"
    UNSERVED = "unserved"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong now.

    `kind` and `subject` (a stream, a host) say which; `headline` and `advice` say it to people.
    """

    kind: Kind
    subject: str
    headline: str
    advice: str = ""

    @property
    def key(self) -> str:
        """What tells it from others, in all processes that see it."""
        return f"{self.kind} {self.subject}"


class Phase(StrEnum):
    """Which word on a trouble it is."""

    BEGINS = "begins"
    LASTS = "lasts"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Alert:
    """One word on a trouble, which has lasted `seconds`."""

    phase: Phase
    trouble: Trouble
    seconds: float

    def text(self, host: str) -> str:
        """Return it as people are told, from `host`; the first line says it all."""
        trouble = self.trouble
        if self.phase is Phase.OVER:
            over = f"over after {_words(self.seconds)}"
            return f"Franker on {host}: {over}; it was: {trouble.headline}\n"
        lasting = self.phase is Phase.LASTS
        since = f"\n\nThis has lasted {_words(self.seconds)}." if lasting else ""
        advice = f"\n\n{trouble.advice}" if trouble.advice else ""
        return f"Franker on {host}: {trouble.headline}{since}{advice}\n"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a trouble: when it began, when something was said of it.

    `over`: it is gone, and only remembered so that it is not told again at once.
    """

    trouble: Trouble
    since: float
    said_at: float
    over: bool = False


def decide(
    before: Mapping[str, Standing],
    troubles: Iterable[Trouble],
    *,
    unseen: Callable[[Kind, str], bool],
    now: float,
    repeat: float,
) -> tuple[dict[str, Standing], list[Alert]]:
    """Return what is known after a look, by key, and what is to be said of it.

    `troubles` is all that is wrong; where nothing could be seen, of a kind and subject `unseen`,
    nothing changes. What lasts is said again each `repeat` seconds.
    """
    seen = {trouble.key: trouble for trouble in troubles}
    after: dict[str, Standing] = {}
    alerts = []
    for key, trouble in seen.items():
        known = before.get(key)
        if known is None:
            after[key] = Standing(trouble, now, now)
            alerts.append(Alert(Phase.BEGINS, trouble, 0.0))
        elif known.over:
            after[key] = known
            if now - known.said_at >= min(QUIET_S, repeat):
                after[key] = Standing(trouble, now, now)
                alerts.append(Alert(Phase.BEGINS, trouble, 0.0))
        elif now - known.said_at >= repeat:
            after[key] = replace(known, trouble=trouble, said_at=now)
            alerts.append(Alert(Phase.LASTS, trouble, now - known.since))
        else:
            after[key] = replace(known, trouble=trouble)
    for key, known in before.items():
        if key in seen:
            continue
        if unseen(known.trouble.kind, known.trouble.subject):
            after[key] = known
        elif not known.over:
            after[key] = replace(known, said_at=now, over=True)
            alerts.append(Alert(Phase.OVER, known.trouble, now - known.since))
        elif now - known.said_at < min(QUIET_S, repeat):
            after[key] = known
    return after, alerts


def _words(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
