"""All targets, by name."""

from tests.fuzz import far_end, messages, notices, records, session, texts
from tests.fuzz.engine import Outcome, by_chance

TARGETS = {
    target.name: target
    for module in (texts, messages, session, far_end, records, notices)
    for target in module.TARGETS
}


def by_chance_named(name: str, count: int, seed: int) -> Outcome:
    """Run one target by its name: what a process of its own is told to do."""
    return by_chance(TARGETS[name], count, seed)
