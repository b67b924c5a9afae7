"""The account of a round, by (message, recipient). Pure.

Every recipient of a message that was answered with 250 must be sent, queued, dead or discarded.
What was sent twice must be explained twice over: by the program's own words (it said that the
outcome of that very transaction was unknown) and by something that was done to it meanwhile.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from tests.crash.far_end import Taking
from tests.crash.load import Message
from tests.crash.stored import JOURNAL, Job

UNCONFIRMED = "did not confirm in time"
"""In the reply that says: it was not kept, as far as is known. Such a message may go out."""

_BEFORE_S, _AFTER_S = 12.0, 0.5
"""How long a disturbance acts on: connects that it cut off give up after 10 s."""

_STAMP_S = 0.001
"""The logs cut their time stamps to this."""

_RECORD_KEEPERS = ("worker1", "worker2", "redis", "disk full")
"""Who must have been disturbed for the record of a reply to be lost."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that was done, from `since` to `until`, seconds since 1970."""

    since: float
    until: float
    what: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the processes' logs say, times in seconds since 1970."""

    unknown: Mapping[tuple[str, str], Sequence[tuple[float, str]]] = field(default_factory=dict)
    sent: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    discarded: frozenset[tuple[str, str]] = frozenset()
    notices: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    transactions_unknown: int = 0


@dataclass(frozen=True, slots=True)
class Repeat:
    """One transaction that brought again what had been taken before; `why` "" if nobody knows."""

    id: str
    recipients: tuple[str, ...]
    first_at: float
    again_at: float
    why: str


@dataclass(frozen=True, slots=True)
class Account:
    """The sum of a round, in recipients, but for what has `messages` in its name."""

    messages: int = 0
    kept_messages: int = 0
    refused_messages: int = 0
    unsure_messages: int = 0
    kept: int = 0
    sent: int = 0
    queued: int = 0
    dead: int = 0
    discarded: int = 0
    lost: tuple[str, ...] = ()
    duplicates: int = 0
    repeats: tuple[Repeat, ...] = ()
    unknown_transactions: int = 0
    findings: tuple[str, ...] = ()

    @property
    def unexplained(self) -> tuple[Repeat, ...]:
        """The repeats without a reason."""
        return tuple(one for one in self.repeats if not one.why)


def read_log(lines: Iterable[str]) -> Told:
    """Return what matters of JSON log lines; a line torn by a kill is left out."""
    unknown: defaultdict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    sent: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    discarded: set[tuple[str, str]] = set()
    notices: list[str] = []
    defects: list[str] = []
    transactions = 0
    for line in lines:
        if not line.startswith("{"):
            if line.startswith("Traceback"):
                defects.append(line)
            continue
        try:
            word = json.loads(line)
        except ValueError:
            continue
        event = word.get("event")
        if event == "unknown":
            transactions += 1
            for one in word["to"]:
                unknown[word["id"], one].append((_seconds(word["time"]), word["detail"]))
        elif event == "sent":
            for one in word["to"]:
                sent[word["id"], one].append(_seconds(word["time"]))
        elif event == "discarded":
            discarded.update((word["id"], one) for one in word["to"])
        elif event == "notice":
            notices.append(word["text"])
        elif event in ("defect", "library"):
            defects.append(str(word.get("traceback") or word.get("error") or word.get("text")))
    return Told(
        dict(unknown),
        dict(sent),
        frozenset(discarded),
        tuple(notices),
        tuple(defects),
        transactions,
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def make_account(
    messages: Sequence[Message],
    taken: Sequence[Taking],
    jobs: Sequence[Job],
    told: Told,
    happenings: Sequence[Happening],
) -> Account:
    """Return the account of everything that was handed in."""
    findings: list[str] = []
    by_recipient = {one: message for message in messages for one in message.recipients}
    takings: defaultdict[str, list[Taking]] = defaultdict(list)
    for taking in sorted(taken, key=lambda taking: taking.at):
        for one in taking.recipients:
            takings[one].append(taking)
        findings += _what_is_wrong(taking, by_recipient)
    waiting, dead = _left(jobs, findings)
    journaled = {one for job in jobs if job.places == (JOURNAL,) for one in job.recipients}
    lost: list[str] = []
    count: Counter[str] = Counter()
    for message in messages:
        for one in message.recipients:
            here = {
                "sent": bool(takings.get(one)),
                "queued": one in waiting,
                "dead": one in dead,
                "discarded": (message.id, one) in told.discarded,
            }
            ends = [name for name, true in here.items() if true]
            if not ends and one in journaled:
                ends = ["queued"]
            if message.fate == "kept":
                count["kept"] += 1
                if not ends:
                    lost.append(f"{message.id} {one}")
                    continue
                # One word for each; that it has two is a finding, not a second end.
                count[ends[0]] += 1
            elif ends and message.fate in ("refused", "cut") and not _may_go_out(message, told):
                findings.append(f"{one} is {ends[0]}, though its message was {message.fate}: "
                                f"{message.reply}")  # fmt: skip
            if len(ends) > 1:
                findings.append(f"{message.id} {one} is {' and '.join(ends)}")
    repeats = _repeats(takings, told, happenings)
    fates = Counter(message.fate for message in messages)
    return Account(
        messages=len(messages),
        kept_messages=fates["kept"],
        refused_messages=fates["refused"],
        unsure_messages=fates["unsure"] + fates["cut"] + fates["not begun"],
        kept=count["kept"],
        sent=count["sent"],
        queued=count["queued"],
        dead=count["dead"],
        discarded=count["discarded"],
        lost=tuple(lost),
        duplicates=sum(len(one.recipients) for one in repeats),
        repeats=repeats,
        unknown_transactions=told.transactions_unknown,
        findings=tuple(findings),
    )


def _what_is_wrong(taking: Taking, by_recipient: Mapping[str, Message]) -> list[str]:
    wrong = []
    for one in taking.recipients[:1]:
        message = by_recipient.get(one)
        if message is None:
            return [f"{taking.id} went to {one}, whom nobody wrote to"]
        if message.id and message.id != taking.id:
            wrong.append(f"{one} got {taking.id}, its client was told {message.id}")
        if message.checksum != taking.checksum:
            wrong.append(f"{taking.id} to {one} arrived with another body than was handed in")
        if not set(taking.recipients) <= set(message.recipients):
            wrong.append(f"{taking.id} went to recipients of another message")
    if len(set(taking.recipients)) != len(taking.recipients):
        wrong.append(f"{taking.id} names a recipient twice")
    return wrong


def _left(jobs: Sequence[Job], findings: list[str]) -> tuple[set[str], set[str]]:
    waiting: set[str] = set()
    dead: set[str] = set()
    for job in jobs:
        if job.places == (JOURNAL,):
            continue
        (dead if job.dead else waiting).update(job.recipients)
        if len(job.places) != 1:
            findings.append(f"job {job.id} stands in {len(job.places)} lists: {job.places}")
    return waiting, dead


def _may_go_out(message: Message, told: Told) -> bool:
    """Whether the client was told in so many words that nobody knows, or the log says so."""
    return UNCONFIRMED in message.reply or any(
        message.id in text for text in told.notices if message.id
    )


def _repeats(
    takings: Mapping[str, Sequence[Taking]], told: Told, happenings: Sequence[Happening]
) -> tuple[Repeat, ...]:
    groups: defaultdict[tuple[str, float, float, str], list[str]] = defaultdict(list)
    for one, times in takings.items():
        for before, again in pairwise(times):
            why = _why(one, before, again, told, happenings)
            groups[again.id, before.at, again.at, why].append(one)
    return tuple(
        Repeat(
            message_id,
            tuple(recipients),
            first,
            again,
            why,
        )
        for (message_id, first, again, why), recipients in sorted(groups.items())
    )


def _why(
    one: str, before: Taking, again: Taking, told: Told, happenings: Sequence[Happening]
) -> str:
    """Return the reason for sending to `one` again; "" when there is none."""
    key = (again.id, one)
    words = [
        detail for at, detail in told.unknown.get(key, ()) if before.at - _STAMP_S <= at <= again.at
    ]
    heard = any(before.at - _STAMP_S <= at < again.at - _STAMP_S for at in told.sent.get(key, ()))
    causes = [
        one.what
        for one in happenings
        if one.since - _AFTER_S <= again.at
        and one.until + _BEFORE_S >= before.at
        # When the reply came, nothing at the far end can have been the reason.
        and (not heard or one.what.endswith(_RECORD_KEEPERS))
    ]
    if not words or not causes:
        return ""
    lost = "the reply came, the record of it was lost" if heard else "the reply was lost"
    return f"{lost} ({words[0]}) after: {', '.join(dict.fromkeys(causes))}"
