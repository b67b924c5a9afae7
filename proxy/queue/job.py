"""A message in the queue: the fields of its RQ job that are ours, and their codec.

`body` is the message as it goes to Postmark, written once. `envelope` is JSON with a version, and
all of ours that a deferral rewrites but for `dot`, which, when present, names the recipients of a
transaction whose final dot may be out. RQ's own fields, `status` first, change with each step.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

VERSION = 1
DATE_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"
"""How RQ writes a time, in UTC."""


def rq_date() -> str:
    """Return the time now, as RQ writes it."""
    return datetime.now(UTC).strftime(DATE_FORM)


class JobDecodeError(ValueError):
    """The envelope of a job cannot be read by this version."""


@dataclass(frozen=True, slots=True)
class JobEnvelope:
    """Everything about a queued message but its octets.

    `mail_from` is what Postmark is given as reverse-path, `reverse_path` what the client gave
    ("" for the null one). `recipients` are those left. `replies` holds each one's last reply,
    word for word. `attempts` counts those that were the message's own fault. `waited` is the sum
    of the seconds it was deferred for: its age for the retry horizon, which no step of the clock
    and no outage changes. Times are seconds since 1970.

    While its recipients are asked for at Postmark, because nobody knows whether they were sent,
    `asked` is the sum of the seconds waited between answers (above 0), `unanswered` of those in
    which no answer came. `settled` are Postmark's ids of messages whose end is accounted for.

    `notify` is false when nobody is to be told of deaths and delay, `notice` true for what Franker
    wrote itself to tell somebody: of its death nobody is told but the log.

    `expires_at` is when its rule's `expires` is over; `expires_up` is the same in seconds since the
    boot named `boot`, which no one can set (see `proxy.queue.expiry`).
    `once` is an id under which the message is kept only once, however often it is handed in; ""
    for mail that needs none. `refused` mail is kept as a dead letter from the beginning, and is not
    in the form that goes to Postmark: nobody was there to hear that it was refused.

    `replaced` holds what header fields said before, `added` names those that the rule set: what
    another rule would have to take back.
    """

    mail_from: str
    recipients: tuple[str, ...]
    accepted_at: float
    reverse_path: str = ""
    rule: str = ""
    owner: str = ""
    notify: bool = True
    attempts: int = 0
    waited: float = 0.0
    expires_at: float | None = None
    replies: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    client: str = ""
    dead: int = 0  # jobs split off so far: the n of the last "<id>-<n>"
    asked: float = 0.0
    unanswered: float = 0.0
    settled: tuple[str, ...] = ()
    notice: bool = False
    added: tuple[str, ...] = ()
    expires_up: float = 0.0
    boot: str = ""
    once: str = ""
    refused: bool = False

    def left(self, recipients: tuple[str, ...], replies: dict[str, str]) -> "JobEnvelope":
        """Return this envelope with only `recipients` left, and `replies` noted for them."""
        kept = {**self.replies, **replies}
        return replace(
            self,
            recipients=recipients,
            replies={address: kept[address] for address in recipients if address in kept},
        )


_SHORT = {
    "mail_from": "f",
    "recipients": "to",
    "accepted_at": "at",
    "reverse_path": "rp",
    "rule": "rule",
    "owner": "own",
    "notify": "ntf",
    "attempts": "try",
    "waited": "age",
    "expires_at": "exp",
    "replies": "re",
    "replaced": "was",
    "client": "by",
    "dead": "n",
    "asked": "ask",
    "unanswered": "mute",
    "settled": "done",
    "notice": "note",
    "added": "add",
    "expires_up": "up",
    "boot": "boot",
    "once": "one",
    "refused": "no",
}
# Names are short and defaults left out because every queued message pays for them in memory.
_with_default = [
    one
    for one in fields(JobEnvelope)
    if one.default is not MISSING or one.default_factory is not MISSING
]
_OPTIONAL = tuple(_SHORT[one.name] for one in _with_default)
_DEFAULTS = tuple(
    one.default if one.default_factory is MISSING else one.default_factory()
    for one in _with_default
)
_optional = attrgetter(*(one.name for one in _with_default))


# Made once: json.dumps would build an encoder for every message.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_envelope(envelope: JobEnvelope) -> bytes:
    """Return `envelope` as JSON octets."""
    short: dict[str, Any] = {
        "v": VERSION,
        "f": envelope.mail_from,
        "to": envelope.recipients,
        "at": envelope.accepted_at,
    }
    values = zip(_OPTIONAL, _optional(envelope), _DEFAULTS, strict=True)
    short |= {key: value for key, value, default in values if value != default}
    # Octets that are no text came in as lone surrogates; json.loads reads them back.
    return _to_json(short).encode("utf-8", "surrogatepass")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_FAR < value < _FAR


_FAR = 1e15  # nor is what is infinite, or no number
_TYPES: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int,
    float: _is_number,
    float | None: lambda value: value is None or _is_number(value),
    tuple[str, ...]: lambda value: type(value) is list and all(type(one) is str for one in value),
    dict[str, str]: lambda value: (
        type(value) is dict and all(type(one) is str for one in value.values())
    ),
}
_LONG = {_SHORT[one.name]: (one.name, _TYPES[one.type]) for one in fields(JobEnvelope)}
_from_json = json.JSONDecoder().decode


def decode_envelope(octets: bytes) -> JobEnvelope:
    """Return the envelope that `encode_envelope` wrote.

    Raises:
        JobDecodeError: the octets are no envelope of this version.
    """
    try:
        short = _from_json(octets.decode("utf-8", "surrogatepass"))
        if short["v"] != VERSION:
            raise JobDecodeError(f"envelope version {short['v']!r}, this program reads {VERSION}")
        values = {}
        for key, value in short.items():
            if key in _LONG:
                name, fits = _LONG[key]
                # What is of another type would do its harm far from here.
                if not fits(value):
                    raise JobDecodeError(f"unreadable envelope: {key!r} makes no sense")
                values[name] = value
        values["recipients"] = tuple(values["recipients"])
        values["settled"] = tuple(values.get("settled", ()))
        values["added"] = tuple(values.get("added", ()))
        return JobEnvelope(**values)
    except JobDecodeError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise JobDecodeError(f"unreadable envelope: {error}") from error


@dataclass(frozen=True, slots=True)
class RelayJob:
    """One message on its way into the queue of `stream` (the name in our configuration)."""

    id: str
    stream: str
    envelope: JobEnvelope
    body: bytes
