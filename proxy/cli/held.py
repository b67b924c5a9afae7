"""The holds that stand, with how much each takes, as the commands show them."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.options import messages, printable

if TYPE_CHECKING:
    from proxy.queue.holds import Hold


@dataclass(frozen=True, slots=True)
class Count:
    """How much mail a hold takes: what waits for its turn, and what is deferred until it is due."""

    held: int
    deferred: int

    def __str__(self) -> str:
        later = f"; {self.deferred} deferred when due" if self.deferred else ""
        return f"{messages(self.held)}{later}"


async def show_holds(redis: Any, stream: str | None) -> None:
    """Say which holds stand, of `stream` or of all, and how many messages each takes."""
    for each, count in await counted_holds(redis, stream):
        click.echo(line_of(each, count))


async def counted_holds(redis: Any, stream: str | None) -> "list[tuple[Hold, Count]]":
    """Return the holds that stand, of `stream` or of all, and how much each takes."""
    from proxy.queue.holds import standing_holds

    return [
        (each, await count(redis, each))
        for each in await standing_holds(redis)
        if stream is None or each.selection.stream in (None, stream)
    ]


async def count(redis: Any, hold: "Hold") -> Count:
    """Count what `hold` takes, also where another one takes it, too."""
    from proxy.queue.holds import met, taken_by
    from proxy.queue.inventory import known_streams

    counts = {"queued": 0, "held": 0, "deferred": 0}
    async for stream, state, ids in met(redis, await known_streams(redis), hold.selection):
        counts[state] += sum(map(bool, await taken_by(redis, stream, ids, (hold,))))
    return Count(counts["queued"] + counts["held"], counts["deferred"])


def line_of(each: "Hold", count: Count) -> str:
    """Return one as people read it."""
    return printable(f"held by {each.name}: {each}; {count}")


def as_dict(each: "Hold", count: Count) -> dict[str, Any]:
    """Return one as programs read it."""
    record = each.record()
    exempt = record.pop("except", [])
    return {"name": each.name, **record, "released": exempt, **asdict(count)}
