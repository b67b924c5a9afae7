"""Today's rules for a dead letter: as if it came in now, and nothing twice."""

from dataclasses import replace

import pytest

from proxy.mail.fields import parse
from proxy.queue.job import JobEnvelope, RelayJob
from proxy.rerouting import reroute
from proxy.submission import Discarded, Policy, Refusal
from tests.support.mail import LOCAL, MESSAGE_ID, NOW, accepted, envelope, field, fields, policy

PLAIN = (
    "From: App <app@example.com>\nTo: bob@example.net\nSubject: s\n"
    "Date: x\nMessage-ID: <x@y>\nMIME-Version: 1.0\n\nbody\n"
)
LETTER = f"{MESSAGE_ID}-1"
LATER = NOW + 86_400


def again(yesterday: Policy, today: Policy, content: str = PLAIN) -> RelayJob:
    """Take a message by one policy, let it die, and reroute it by another."""
    outcome = reroute(today, LETTER, *_kept(yesterday, content), now=LATER)
    assert isinstance(outcome, RelayJob), outcome
    return outcome


def _kept(given: Policy, content: str = PLAIN) -> tuple[JobEnvelope, bytes]:
    job = accepted(content, given).job
    return replace(job.envelope, attempts=3, waited=7.0), job.body


def sorted_fields(octets: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the fields, in which order they may stand, and the body."""
    parsed = parse(octets)
    return sorted(parsed.fields), parsed.body


RULES = [
    {},
    {"from": "payroll@example.com"},
    {"tag": "payroll", "metadata": {"app": "payroll", "site": "cologne"}},
    {"track_opens": True, "track_links": "None", "keep_id": False},
    {"set_headers": {"X-Site": "cologne", "Subject": "other"}, "remove_headers": ["X-Mailer"]},
]
MESSAGES = [
    PLAIN,
    PLAIN.replace("From: App", "X-Mailer: m\nX-PM-Tag: own\nX-PM-Metadata-own: v\nFrom: App"),
    PLAIN.replace("App <app@example.com>", "Büro <app@example.com>"),
    PLAIN.replace("App <app@example.com>", '"Payroll, Inc." <app@example.com>, b@example.com'),
    "Subject: s\n\nno From, no anything\n",
    "From: root\nTo: root\n\ncron's\n",
    "From: root (Cron Daemon)\n\n",
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("content", MESSAGES)
def test_the_same_rules_give_the_same_message(rule: dict[str, object], content: str) -> None:
    given = policy({"name": "it", **rule}, local=LOCAL) if rule else policy(local=LOCAL)
    old, body = _kept(given, content)
    job = reroute(given, LETTER, old, body, now=LATER)
    assert isinstance(job, RelayJob)
    assert sorted_fields(job.body) == sorted_fields(body)
    assert (job.id, job.envelope.replaced) == (LETTER, old.replaced)
    assert job.envelope.added == old.added
    thrice = reroute(given, LETTER, job.envelope, job.body, now=LATER)
    assert isinstance(thrice, RelayJob)
    assert sorted_fields(thrice.body) == sorted_fields(body)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_that_is_gone_leaves_nothing_of_itself(rule: dict[str, object]) -> None:
    if "set_headers" in rule:  # what it wrote over, or took out, is gone
        rule = {"set_headers": {"X-Site": "cologne"}}
    job = again(policy({"name": "it", **rule}), policy())
    fresh = accepted(PLAIN, policy()).job
    assert job.body == fresh.body
    assert job.envelope.rule == ""
    assert job.envelope.mail_from == "app@example.com"


def test_another_rule_gives_another_stream_and_owner_and_a_new_clock() -> None:
    streams = {"outbound": {}, "bulk": {"kind": "broadcast"}}
    today = policy(
        {"name": "new", "sender": ["app@*"], "stream": "bulk", "owner": "o@example.com"},
        {"name": "never"},
        streams=streams,
    )
    job = again(policy({"name": "old", "tag": "t"}), today)
    assert job.stream == "bulk"
    assert (job.envelope.rule, job.envelope.owner) == ("new", "o@example.com")
    assert (job.envelope.accepted_at, job.envelope.attempts, job.envelope.waited) == (LATER, 0, 0.0)
    assert fields(job.body, "X-PM-Message-Stream") == ["bulk"]
    assert fields(job.body, "X-PM-Metadata-franker-id") == [MESSAGE_ID]
    assert fields(job.body, "X-PM-Tag") == []
    assert len(fields(job.body, "Received")) == 1


def test_a_rule_matches_the_sender_as_it_came_in() -> None:
    today = policy({"name": "app", "sender": ["app@example.com"], "tag": "found"})
    job = again(policy({"name": "old", "from": "payroll@example.com"}), today)
    assert field(job.body, "X-PM-Tag") == "found"
    assert field(job.body, "From") == "App <app@example.com>"
    assert fields(job.body, "Reply-To") == []


def test_the_clients_own_tag_stays_when_the_rule_had_none() -> None:
    content = PLAIN.replace("Subject", "X-PM-Tag: own\nSubject")
    job = again(policy({"name": "old", "metadata": {"a": "b"}}), policy(), content)
    assert fields(job.body, "X-PM-Tag") == ["own"]
    assert fields(job.body, "X-PM-Metadata-a") == []


def test_the_clients_own_reply_to_stays() -> None:
    content = PLAIN.replace("Subject", "Reply-To: help@example.com\nSubject")
    job = again(policy({"name": "old", "from": "payroll@example.com"}), policy(), content)
    assert fields(job.body, "Reply-To") == ["help@example.com"]


def test_only_those_that_died_are_sent_again() -> None:
    job = accepted(PLAIN, policy(), envelope("app@example.com", "a@example.net", "b@x.example")).job
    dead = replace(job.envelope, recipients=("b@x.example",), replies={"b@x.example": "550 no"})
    outcome = reroute(policy(), LETTER, dead, job.body, now=LATER)
    assert isinstance(outcome, RelayJob)
    assert outcome.envelope.recipients == ("b@x.example",)
    assert outcome.envelope.replies == {"b@x.example": "550 no"}


def test_what_todays_rules_throw_away_or_refuse_is_said() -> None:
    old, body = _kept(policy())
    away = policy({"name": "away", "action": "discard"})
    assert reroute(away, LETTER, old, body, now=LATER) == Discarded("away")
    no = policy({"name": "no", "action": "reject"})
    refusal = reroute(no, LETTER, old, body, now=LATER)
    assert isinstance(refusal, Refusal)
    assert 'the rule "no"' in refusal.text


def test_a_rules_time_to_expire_begins_anew() -> None:
    job = again(policy(), policy({"name": "otp", "expires": "15m"}))
    assert job.envelope.expires_at == LATER + 900
