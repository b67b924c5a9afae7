"""Every series of the proxy's counters, there from the start.

A counter that appears with its first event shows no increase for it, and an alert stays silent.
"""

from typing import Literal, TypeAlias, get_args

from proxy.config import Settings
from proxy.mail.refusal import Reason
from proxy.mail.repairs import Repair
from proxy.metrics.intake import (
    DEFECTS,
    MESSAGES_ACCEPTED,
    MESSAGES_DISCARDED,
    MESSAGES_REFUSED,
    MESSAGES_REPAIRED,
)
from proxy.queue.refusal import Kind

SessionReason: TypeAlias = Literal[
    "client",  # not in listen.allow
    "connections",  # listen.max_connections, and none is idle
    "connections_client",  # 80 % of these are this client's
    "connections_idle",  # it was idle, and gave way to another
    "data",  # a message came though DATA had been refused
    "http",  # a web browser speaks
    "memory",  # listen.memory
    "recipients",  # listen.max_recipients
    "syntax",  # a command, or what follows it, makes no sense here
    "tls",  # STARTTLS came to nothing
]
"""Why the listener refuses; a message's own reasons are `proxy.mail.refusal.Reason`."""

REASONS: tuple[str, ...] = (
    *get_args(Reason),
    *get_args(SessionReason),
    *(f"store_{kind}" for kind in get_args(Kind)),
)
"""The closed set of reasons of franker_messages_refused_total."""


def begin_at_zero(settings: Settings) -> None:
    """Show every series that there can be with 0."""
    for reason in REASONS:
        MESSAGES_REFUSED.labels(reason)
    for stream in settings.streams:
        MESSAGES_ACCEPTED.labels(stream)
    for kind in get_args(Repair):
        MESSAGES_REPAIRED.labels(kind)
    for rule in settings.rules:
        if rule.action == "discard":
            MESSAGES_DISCARDED.labels(rule.name)
    for place in ("listener", "commit", "drop"):
        DEFECTS.labels(place)
