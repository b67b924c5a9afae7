"""What a hold, or a command, selects of the queue: pure. Scripts apply it (scripts/holding.lua)."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

_UPPER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Selection:
    """Mail for which all that is set here holds; nothing set: all mail.

    `stream` and `rule` are names. `sender` is a pattern, "*" standing for any run of characters,
    case without meaning, for the reverse-path as the client gave it ("<>" for the null one) or as
    Postmark is given it. `before` is a time in seconds since 1970 by which it was accepted.
    """

    stream: str | None = None
    sender: str | None = None
    rule: str | None = None
    before: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it takes all mail of a stream, or of all streams."""
        return self.sender is None and self.rule is None and self.before is None

    def record(self) -> dict[str, Any]:
        """Return what a script reads: only what is set."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        if self.sender is not None:
            found["sender"] = self.sender.translate(_UPPER)
        return found

    def takes_all_of(self, other: "Selection") -> bool:
        """Tell whether each message of `other` is certainly one of these, too."""
        mine, others = self.record(), other.record()
        before, others_before = mine.pop("before", None), others.get("before")
        in_time = before is None or (others_before is not None and others_before <= before)
        return in_time and all(others.get(key) == value for key, value in mine.items())

    def is_apart_from(self, other: "Selection") -> bool:
        """Tell whether no message can be of both."""
        streams = (self.stream, other.stream)
        rules = (self.rule, other.rule)
        return any(None not in pair and pair[0] != pair[1] for pair in (streams, rules))

    def __str__(self) -> str:
        """Say it in words: "mail of stream outbound from payroll@*"."""
        words = ["all mail" if self.stream is None else f"mail of stream {self.stream}"]
        if self.sender is not None:
            words.append(f"from {self.sender}")
        if self.rule is not None:
            words.append(f"by rule {self.rule}" if self.rule else "that no rule matched")
        if self.before is not None:
            words.append(f"taken before {when(self.before)}")
        return " ".join(words)


def makes_sense(record: object) -> bool:
    """Tell whether `selection_of` leaves nothing out of a record."""
    if not isinstance(record, dict):
        return False
    texts = all(isinstance(record.get(name, ""), str) for name in ("stream", "sender", "rule"))
    before = record.get("before", 0.0)
    return texts and isinstance(before, int | float) and not isinstance(before, bool)


def selection_of(record: dict[str, Any]) -> Selection:
    """Return what a record selects; what makes no sense in it is left out."""

    def text(name: str) -> str | None:
        value = record.get(name)
        return value if isinstance(value, str) else None

    before = record.get("before")
    return Selection(
        text("stream"),
        text("sender"),
        text("rule"),
        float(before) if isinstance(before, int | float) else None,
    )


def when(seconds: float) -> str:
    """Return a time as people read it, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"
