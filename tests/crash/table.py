"""The table of a run: one line a round, the sums at its end, and every failure in words."""

from collections.abc import Sequence

from tests.crash.site import Result

_MOST_FAULTS = 10
"""As many reasons are given for one round."""

_COLUMNS = (
    ("round", 6),
    ("mails", 7),
    ("250", 7),
    ("4yz", 5),
    ("cut", 5),
    ("rcpt", 8),
    ("sent", 8),
    ("dead", 6),
    ("disc", 6),
    ("left", 5),
    ("lost", 5),
    ("twice", 6),
    ("unkn", 5),
    ("mail/s", 7),
    ("drain", 6),
)

HEAD = "".join(name.rjust(width) for name, width in _COLUMNS) + "  what was done"
"""The columns. 250, 4yz and cut are messages; rcpt to twice are recipients of those told 250: sent,
dead, discarded, left in the queue, lost, sent twice. unkn: transactions of unknown outcome."""


def _line(values: Sequence[object]) -> str:
    return "".join(str(v).rjust(width) for v, (_, width) in zip(values, _COLUMNS, strict=True))


def _numbers(result: Result) -> list[int]:
    one = result.account
    return [
        one.messages,
        one.kept_messages,
        one.refused_messages,
        one.unsure_messages,
        one.kept,
        one.sent,
        one.dead,
        one.discarded,
        one.queued,
        len(one.lost),
        one.duplicates,
        one.unknown_transactions,
    ]


def line(result: Result) -> str:
    """Return the line of one round."""
    plan = result.plan
    done = "; ".join(map(str, plan.blows))
    what = f"  {plan.workers}w{' small disk' if plan.small_disk else ''}: {done}"
    if result.missed:
        what += f" ({result.missed} missed)"
    values = [plan.number, *_numbers(result), f"{result.rate:.0f}", f"{result.drain_s:.1f}"]
    return _line(values) + what


def details(result: Result) -> list[str]:
    """Return what is to be said below a round's line: what came twice and why, what failed."""
    said = [
        f"       twice: {one.id}, {len(one.recipients)} of its recipients: {one.why}"
        for one in result.account.repeats
        if one.why
    ]
    said += [f"       FAILED: {fault}" for fault in result.faults[:_MOST_FAULTS]]
    if len(result.faults) > _MOST_FAULTS:
        said.append(f"       FAILED: and {len(result.faults) - _MOST_FAULTS} more")
    if result.faults:
        said.append(f"       again: {result.plan.repeat()}")
    return said


def sums(results: Sequence[Result]) -> str:
    """Return the last line."""
    total = [sum(column) for column in zip(*map(_numbers, results), strict=True)]
    rate = sum(result.rate for result in results) / len(results)
    drain = max(result.drain_s for result in results)
    failed = sum(bool(result.faults) for result in results)
    values = ["all", *total, f"{rate:.0f}", f"{drain:.1f}"]
    return _line(values) + f"  {len(results)} rounds, {failed} failed"
