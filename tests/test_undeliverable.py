"""Dead letters from the beginning: what is kept of mail that was refused with nobody to hear it."""

import pytest

from proxy.config import load
from proxy.mail.envelope import Client, Envelope
from proxy.mail.fields import LONGEST_HEADER
from proxy.queue.job import RelayJob
from proxy.queue.letters import as_eml
from proxy.rerouting import reroute
from proxy.submission import Policy, Refusal, compile_policy
from proxy.undeliverable import dead_letter

ID = "01m7whra2tbpp46bv2ng00z75w"
RULES = (
    '[{"name": "payroll", "sender": ["payroll@*"], "stream": "pay", "owner": "pay@example.com"}]'
)
STREAMS = '{"pay": {"id": "pay-stream"}}'
MESSAGE = (
    b"From: payroll@example.com\nTo: root\nBcc: hidden@example.net\nResent-Bcc: also@example.net\n"
    b"X-PM-Message-Stream: broadcasts\nX-Postmark-Server-Token: abc\nX-Own: yes\n\nsee this\n.\n"
)


def policy(**environ: str) -> Policy:
    given = {"FRANKER_RULES": RULES, "FRANKER_STREAMS": STREAMS, **environ}
    return compile_policy(load(None, given, searched=()).settings, host_names=("host",))


def letter(
    sender: str = "payroll@example.com", message: bytes = MESSAGE, owner: str = ""
) -> RelayJob:
    envelope = Envelope(
        sender, ("root", "you@example.net"), Client("127.0.0.1"), notify=False, once="0" * 32
    )
    replies = {"root": "550 5.1.1 no"}
    return dead_letter(policy(), envelope, message, replies, message_id=ID, now=7.0, owner=owner)


def test_it_is_for_those_who_were_refused_each_with_the_reply() -> None:
    envelope = letter().envelope
    assert envelope.recipients == ("root",)
    assert envelope.replies == {"root": "550 5.1.1 no"}
    assert (envelope.refused, envelope.once, envelope.notify) == (True, "0" * 32, False)
    assert envelope.accepted_at == 7.0


def test_its_stream_and_owner_are_the_rules() -> None:
    job = letter(owner="user@example.com")
    assert (job.stream, job.envelope.rule, job.envelope.owner) == (
        "pay",
        "payroll",
        "pay@example.com",
    )
    assert job.body.startswith(b"X-PM-Message-Stream: pay-stream\r\nX-PM-Metadata-franker-id: ")


def test_without_a_rules_owner_it_is_the_users() -> None:
    message = b"From: a@b.example\n\nx\n"
    job = letter("a@b.example", message, owner="user@example.com")
    assert (job.stream, job.envelope.owner) == ("outbound", "user@example.com")


def test_nothing_stays_in_it_that_nobody_may_see_or_that_chooses_the_stream() -> None:
    body = letter().body
    assert b"hidden" not in body
    assert b"also@" not in body
    assert b"broadcasts" not in body
    assert b"abc" not in body
    assert b"X-Own: yes\r\n" in body
    assert body.endswith(b"\r\n\r\nsee this\r\n.\r\n")


def test_what_is_no_message_at_all_is_kept_as_it_came() -> None:
    for message in (b"", b"\xff\xfe\n", b"no field\n", b"From: \xff <\xff@b>\n\n\xff\n"):
        assert letter(message=message).body.endswith(message.replace(b"\n", b"\r\n"))


def test_todays_rules_make_of_it_what_they_make_of_mail_that_comes_in_now() -> None:
    job = letter()
    now = policy(FRANKER_LOCAL__POSTMASTER="ops@example.com")
    anew = reroute(now, job.id, job.envelope, job.body, now=9.0)
    assert isinstance(anew, RelayJob)
    assert anew.envelope.recipients == ("ops@example.com",)
    assert (anew.envelope.refused, anew.envelope.once) == (False, "")
    assert anew.envelope.mail_from == "payroll@example.com"
    assert anew.body.count(b"X-PM-Message-Stream: pay-stream") == 1


FROM = b"From: payroll@example.com\r\nTo: root\r\n"
BCC = b"Bcc: hidden@example.net\r\n"
FILLED = b"X-Filled: " + b"x" * 88 + b"\r\n"
TOO_MANY = FILLED * (LONGEST_HEADER // 100)
FOLDED = b",\r\n hidden@example.net"
TEXT = b"\r\nsee this\r\n"
TOO_LONG = {
    "in its beginning": FROM + BCC + TOO_MANY + TEXT,
    "behind it": FROM + TOO_MANY + BCC + TEXT,
    "across": FROM + TOO_MANY[:-100] + b"Bcc: x@y.example" + FOLDED * 99 + TEXT,
    "behind a line that is none": FROM + b"x" * LONGEST_HEADER + b"\r\n" + BCC + TEXT,
    "behind one at the end": FROM + TOO_MANY + b"no field\r\n" + BCC + TEXT,
    "behind an endless one": b"X: " + b"x" * LONGEST_HEADER + b"\r\n" + FROM + BCC + TEXT,
    "across, far": FROM + b"Bcc: x@y.example" + FOLDED * 20_000 + TEXT,
}


@pytest.mark.parametrize("message", TOO_LONG.values(), ids=TOO_LONG)
def test_a_header_that_is_too_long_is_kept_as_it_came_and_a_retry_shows_no_bcc(
    message: bytes,
) -> None:
    message = message.replace(TEXT, b"Resent-Bcc: hidden@example.net\r\n" + TEXT)
    job = letter(message=message)
    assert as_eml(job.id, job.stream, job.envelope, job.body).endswith(b"\r\n" + message)
    now = policy(FRANKER_LOCAL__POSTMASTER="ops@example.com")
    anew = reroute(now, job.id, job.envelope, job.body, now=9.0)
    assert isinstance(anew, Refusal)
    assert anew.reason == "header"


@pytest.mark.parametrize("spare", [*range(10), *range(10, 600, 30)])
def test_a_header_that_our_own_fields_make_too_long_is_not_cut_in_two(spare: int) -> None:
    header = FROM + TOO_MANY[: -len(FILLED) * 9] + BCC + b"Z: z\r\nX-Fitting: \r\n"
    header = header[:-2] + b"y" * (LONGEST_HEADER - spare - len(header)) + b"\r\n"
    assert len(header) == LONGEST_HEADER - spare
    now = policy(FRANKER_LOCAL__POSTMASTER="ops@example.com")
    job = letter(message=header + TEXT)
    for _ in range(2):
        anew = reroute(now, job.id, job.envelope, job.body, now=9.0)
        if isinstance(anew, Refusal):
            assert (anew.reason, job.envelope.refused) == ("header", False)
            return
        assert isinstance(anew, RelayJob)
        job = anew
        assert b"hidden" not in job.body
        before, _, text = job.body.partition(b"\r\n\r\n")
        assert text == b"see this\r\n"
        assert b"\r\nZ: z\r\n" in before
