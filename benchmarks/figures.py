"""What a measurement yields: named numbers, and how each is shown. Pure.

A sample is what one round of one system gave. Besides the figures below it may hold some by
process, with a dot before its name: `cpu.proxy` (microseconds of processor time a message),
`peak.proxy` (octets of resident memory at the peak), `rest.proxy` (octets at rest), `idle.proxy`
(per cent of a core, idle).
"""

from dataclasses import dataclass

Sample = dict[str, float]

MEGABYTE = 1_048_576
"""Octets of a MB of memory. (MB/s of mail count 1,000,000.)"""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that is shown: what it is called, its unit, decimals, and whether more is better."""

    key: str
    title: str
    unit: str
    digits: int = 0
    more_is_better: bool = True


FIGURES = {
    one.key: one
    for one in (
        Figure("kept", "kept", "messages/s"),
        Figure("kept_lent", "kept, in memory used before", "messages/s"),
        Figure("relayed", "relayed", "messages/s"),
        Figure("megabytes", "relayed", "MB/s", 1),
        Figure("first", "first message", "s", 1, more_is_better=False),
        Figure("last", "last message", "s", 1, more_is_better=False),
        Figure("accept_p50", "connect to 250, p50", "ms", 2, more_is_better=False),
        Figure("accept_p99", "connect to 250, p99", "ms", 2, more_is_better=False),
        Figure("pass_p50", "250 to the far end's, p50", "ms", 2, more_is_better=False),
        Figure("pass_p99", "250 to the far end's, p99", "ms", 2, more_is_better=False),
        Figure("memory_each", "memory a message", "KB", 2, more_is_better=False),
        Figure("start", "start until it takes mail", "s", 2, more_is_better=False),
        Figure("idle_cpu", "processor, idle", "% of a core", 2, more_is_better=False),
        Figure("rest_memory", "resident memory at rest", "MB", 0, more_is_better=False),
        Figure("rest_memory_shared", "the same, shared pages once", "MB", 0, more_is_better=False),
    )
}


def by_process(sample: Sample, kind: str) -> dict[str, float]:
    """Return the numbers of a `kind` ("cpu", "peak", "rest", "idle") by process, largest first."""
    found = {key[len(kind) + 1 :]: one for key, one in sample.items() if key.startswith(f"{kind}.")}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
