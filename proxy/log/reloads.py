"""What the log says of a configuration that is read again. As in `events`."""

from collections.abc import Sequence

from proxy.log.lines import Value
from proxy.log.writer import emit, words


def reloaded(
    process: str, *, config: str, changed: Sequence[str], needs_restart: Sequence[str]
) -> None:
    """The configuration was read again; `changed` keys hold, others wait for a restart."""
    fields: dict[str, Value] = {"process": process, "config": config}
    fields["changed"] = ",".join(changed) or "-"
    if needs_restart:
        fields["needs_restart"] = ",".join(needs_restart)
    emit("reloaded", fields)


def reload_refused(process: str, *, config: str, faults: Sequence[str]) -> None:
    """The configuration was read again and cannot be used: nothing of it holds."""
    text = "the old configuration stays: " + "; ".join(faults)
    emit("reload_refused", {"process": process, "config": config, "detail": words(text)})
