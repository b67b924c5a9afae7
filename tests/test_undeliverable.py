"""Dead letters from the beginning: what is kept of mail that was refused with nobody to hear it."""

from proxy.config import load
from proxy.mail.envelope import Client, Envelope
from proxy.queue.job import RelayJob
from proxy.rerouting import reroute
from proxy.submission import Policy, compile_policy
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
