"""Searches of Postmark's HTTP API: which rows a query asks for, and what a row shows. Pure."""

import datetime as dt
import zoneinfo
from collections.abc import Mapping
from typing import Any

from proxy.sandbox.message import Taken
from proxy.sandbox.store import Bounce, Entry

MOST_ROWS = 500
DEEPEST_ROW = 10_000


def timestamp(at: float) -> str:
    """Return seconds since the epoch in Postmark's form: seven digits behind the point."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}0Z"


def window(query: Mapping[str, str]) -> tuple[int, int] | None:
    """Return offset and count; None when they are missing or too large."""
    try:
        count, offset = int(query["count"]), int(query["offset"])
    except (KeyError, ValueError):
        return None
    fits = 0 < count <= MOST_ROWS and offset >= 0 and offset + count <= DEEPEST_ROW
    return (offset, count) if fits else None


def message_wanted(taken: Taken, query: Mapping[str, str]) -> bool:
    """Whether `query` asks for this message."""
    for key, value in query.items():
        if key.startswith("metadata_"):
            wanted = key.removeprefix("metadata_").lower()
            if not any(k.lower() == wanted and v == value for k, v in taken.metadata.items()):
                return False
    return (
        taken.stream == query.get("messagestream", taken.stream)
        and taken.tag == query.get("tag", taken.tag)
        and ("fromemail" not in query or query["fromemail"].lower() == taken.sender.lower())
        and ("subject" not in query or query["subject"].lower() in taken.subject.lower())
        and (
            "recipient" not in query
            or query["recipient"].lower() in map(str.lower, taken.recipients)
        )
    )


def _mailboxes(taken: Taken, name: str) -> list[dict[str, str | None]]:
    return [{"Email": email, "Name": shown or None} for shown, email in taken.addresses(name)]


def summary(entry: Entry) -> dict[str, Any]:
    """Return a message as a row of a search shows it."""
    taken = entry.taken
    shown = {email.lower() for name in ("To", "Cc") for _, email in taken.addresses(name)}
    hidden = [one for one in taken.recipients if one.lower() not in shown]
    return {
        "Tag": taken.tag,
        "MessageID": taken.id,
        "MessageStream": taken.stream,
        "To": _mailboxes(taken, "To"),
        "Cc": _mailboxes(taken, "Cc"),
        "Bcc": [{"Email": one, "Name": None} for one in hidden],
        "Recipients": list(entry.delivered),
        "ReceivedAt": timestamp(taken.at),
        "From": taken.field("From") or "",
        "Subject": taken.subject,
        "Attachments": [],
        "Status": "Sent",
        "TrackOpens": (taken.field("X-PM-TrackOpens") or "").lower() == "true",
        "TrackLinks": taken.field("X-PM-TrackLinks") or "None",
        "Metadata": dict(taken.metadata),
        "Sandboxed": True,
    }


def bounce_wanted(bounce: Bounce, query: Mapping[str, str]) -> bool:
    """Whether `query` asks for this bounce.

    Raises:
        ValueError: a date that is none.
    """
    at = dt.datetime.fromtimestamp(bounce.at, dt.UTC)
    return (
        # Without a stream Postmark means the default one, not all of them.
        bounce.taken.stream == query.get("messagestream", "outbound")
        and query.get("type", bounce.type).lower() == bounce.type.lower()
        and query.get("tag", bounce.taken.tag) == bounce.taken.tag
        and query.get("messageID", bounce.taken.id) == bounce.taken.id
        and query.get("emailFilter", "").lower() in bounce.email.lower()
        and query.get("inactive", str(bounce.inactive)).lower() == str(bounce.inactive).lower()
        and ("fromdate" not in query or _eastern(query["fromdate"]) <= at)
        and ("todate" not in query or at <= _eastern(query["todate"]))
    )


def _eastern(text: str) -> dt.datetime:
    """Return a query's date: it is in the United States' Eastern Time."""
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        return moment
    try:
        return moment.replace(tzinfo=zoneinfo.ZoneInfo("America/New_York"))
    except zoneinfo.ZoneInfoNotFoundError:
        return moment.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5)))
