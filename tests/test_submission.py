"""One message from what the client said to the job that goes into the queue."""

import pytest

from proxy.mail.envelope import Client
from proxy.mail.ids import new_id
from proxy.submission import Discarded
from tests.support.mail import (
    LOCAL,
    MESSAGE_ID,
    NOW,
    accepted,
    body,
    envelope,
    field,
    fields,
    hand_in,
    policy,
    read,
    refusal,
)

PLAIN = (
    "From: App <app@example.com>\nTo: bob@example.net\nSubject: s\n"
    "Date: x\nMessage-ID: <x@y>\nMIME-Version: 1.0\n\nbody\n"
)


def with_field(line: str) -> str:
    return PLAIN.replace("\n\n", f"\n{line}\n\n", 1)


def test_the_job_holds_the_envelope_for_the_worker():
    given = policy({"name": "pay", "owner": "team@example.com", "expires": "15m"})
    of = envelope("Bounces@example.com", "a@example.net", "b@Example.NET", notify=False)
    job = accepted(PLAIN, given, of).job
    assert (job.id, job.stream) == (MESSAGE_ID, "outbound")
    envelope_ = job.envelope
    assert envelope_.mail_from == "app@example.com"
    assert envelope_.reverse_path == "Bounces@example.com"
    assert envelope_.recipients == ("a@example.net", "b@Example.NET")
    assert (envelope_.rule, envelope_.owner) == ("pay", "team@example.com")
    assert (envelope_.accepted_at, envelope_.expires_at) == (NOW, NOW + 900)
    assert envelope_.notify is False
    assert envelope_.client == "127.0.0.1"


def test_a_message_without_a_rule_goes_to_outbound_and_does_not_expire():
    taken = accepted(PLAIN)
    assert taken.route.rule == ""
    assert taken.job.envelope.expires_at is None


def test_a_rule_may_reject():
    given = policy({"name": "no", "sender": ["app@*"], "action": "reject"})
    assert refusal(PLAIN, given) == '550 5.7.1 Refused by the rule "no"'


def test_a_rule_may_discard():
    given = policy({"name": "away", "sender": ["app@*"], "action": "discard"})
    assert hand_in(PLAIN, given) == Discarded("away")


def test_a_rule_sees_the_recipients_as_they_came_in():
    given = policy({"name": "cron", "recipient": ["root"]}, local=LOCAL)
    taken = accepted("From: root\n\nx\n", given, envelope("root", "root"))
    assert taken.route.rule == "cron"
    assert taken.job.envelope.recipients == ("ops@example.com",)


def test_a_rule_sees_the_from_address_as_it_came_in_and_never_its_name():
    given = policy({"name": "r", "sender": ["root"]}, local=LOCAL)
    named = "From: app@example.com <root>\n\nx\n"
    assert accepted(named, given, envelope("")).route.rule == "r"
    named = "From: root <app@example.com>\n\nx\n"
    assert accepted(named, given, envelope("")).route.rule == ""


@pytest.mark.parametrize(
    "subject", ["Alarm: disk", "=?utf-8?q?Alarm=3A_disk?=", "Alarm:\n disk", "alarm: d\u00efsk"]
)
def test_a_rule_sees_the_subject_decoded(subject):
    given = policy({"name": "alarm", "subject": ["alarm:*d*sk"]})
    assert accepted(PLAIN.replace("Subject: s", f"Subject: {subject}"), given).route.rule == "alarm"


def test_a_rule_may_match_the_local_process():
    given = policy({"name": "batch", "user": ["1001"]})
    of = envelope(client=Client("127.0.0.1", uid=1001, user="erp"))
    assert accepted(PLAIN, given, of).route.rule == "batch"
    assert accepted(PLAIN, given).route.rule == ""


def test_a_rules_from_replaces_the_address_and_the_old_one_becomes_reply_to():
    given = policy({"name": "r", "from": "payroll@example.com"})
    job = accepted(PLAIN, given).job
    assert field(job.body, "From") == "App <payroll@example.com>"
    assert field(job.body, "Reply-To") == "App <app@example.com>"
    assert fields(job.body, "X-Original-From") == []
    assert job.envelope.mail_from == "payroll@example.com"
    assert job.envelope.replaced == {"From": "App <app@example.com>"}


def test_a_rules_from_leaves_reply_to_as_it_is_where_there_is_one():
    given = policy({"name": "r", "from": "payroll@example.com"})
    octets = accepted(with_field("Reply-To: desk@example.com"), given).job.body
    assert field(octets, "Reply-To") == "desk@example.com"
    assert field(octets, "X-Original-From") == "App <app@example.com>"


def test_a_rules_from_never_puts_a_local_address_into_reply_to():
    given = policy({"name": "r", "from": "cron@example.com"}, local=LOCAL)
    octets = accepted("From: root (Cron Daemon) <root>\n\nx\n", given, envelope("root")).job.body
    assert field(octets, "From") == '"root (Cron Daemon) on box.office.example" <cron@example.com>'
    assert fields(octets, "Reply-To") == []
    assert field(octets, "X-Original-From") == "root (Cron Daemon) <root>"


def test_a_rules_from_stands_in_for_a_missing_one():
    given = policy({"name": "r", "from": "payroll@example.com"})
    octets = accepted("Subject: s\n\nx\n", given, envelope("")).job.body
    assert field(octets, "From") == "payroll@example.com"
    assert fields(octets, "Reply-To") == []


def test_a_rule_sets_and_removes_fields():
    given = policy(
        {
            "name": "r",
            "set_headers": {"X-Site": "cologne", "Subject": "Größe", "Cc": "Ö <o@example.com>"},
            "remove_headers": ["X-Mailer", "message-id"],
        }
    )
    octets = accepted(with_field("X-Mailer: old\nx-site: berlin\nX-MAILER: two"), given).job.body
    assert fields(octets, "X-Mailer") == []
    assert field(octets, "X-Site") == "cologne"
    assert str(read(octets)["Subject"]) == "Größe"
    assert str(read(octets)["Cc"]) == "Ö <o@example.com>"
    assert field(octets, "Message-ID") == f"<{MESSAGE_ID}@example.com>"


@pytest.mark.parametrize("address", ["a@example.com", "A@EXAMPLE.com", "billing@other.example"])
def test_a_verified_from_is_taken(address):
    given = policy(postmark={"verified": ["example.com", "billing@other.example"]})
    accepted(PLAIN.replace("app@example.com", address), given)


@pytest.mark.parametrize("address", ["a@sub.example.com", "x@other.example", "a@example.com.evil"])
def test_a_from_that_postmark_does_not_take_is_refused(address):
    given = policy(postmark={"verified": ["example.com", "billing@other.example"]})
    assert refusal(PLAIN.replace("app@example.com", address), given) == (
        f'550 5.7.1 Postmark does not accept "{address}" as From: put its domain or address into '
        "postmark.verified, once Postmark has it, or set From by a rule"
    )


def test_verified_is_asked_of_the_from_that_goes_out():
    given = policy({"name": "r", "from": "x@example.com"}, postmark={"verified": ["example.com"]})
    accepted(PLAIN.replace("app@example.com", "y@other.example"), given)


def test_our_own_id_coming_back_is_a_loop():
    line = f"X-PM-Metadata-Franker-Id: {new_id(1_700_000_000_000)}"
    assert refusal(with_field(line)) == (
        "554 5.4.6 Mail loop: this message has been through Franker before (it has a field "
        "X-PM-Metadata-franker-id); to send it again, take that field out"
    )


def test_what_was_rewritten_comes_back_as_a_loop():
    assert refusal(accepted(PLAIN).job.body).startswith("554 5.4.6 ")


def test_fifty_received_fields_are_a_loop_and_one_less_is_none():
    assert refusal("Received: by x\n" * 50 + PLAIN) == (
        "554 5.4.6 Mail loop: the message has 50 Received fields, 50 are a loop"
    )
    accepted("Received: by x\n" * 49 + PLAIN)


def test_the_size_is_that_of_what_goes_to_postmark():
    accepted(PLAIN + "x" * 900 + "\n", policy(listen={"max_message_size": 5000}))
    header = PLAIN.replace("MIME", "Content-Type: image/png\nMIME").replace("\n", "\r\n").encode()
    content = header + b"\xfc" * 3300
    size = len(accepted(content).job.body)
    assert refusal(content, policy(listen={"max_message_size": size - 1})) == (
        f"552 5.3.4 The message is {size} octets as it goes to Postmark ({len(content)} as it "
        f"came), the limit is {size - 1} (listen.max_message_size)"
    )
    accepted(content, policy(listen={"max_message_size": size}))


def test_8_bit_text_that_will_be_too_large_is_refused_before_it_is_made():
    content = PLAIN.replace("\n", "\r\n").encode() + b"\xfc" * 900
    assert refusal(content, policy(listen={"max_message_size": 2500})) == (
        f"552 5.3.4 The message is at least 2708 octets as it goes to Postmark ({len(content)} as "
        "it came), the limit is 2500 (listen.max_message_size)"
    )
    assert len(accepted(content).job.body) >= 2708


def test_a_header_without_an_end_is_refused_and_costs_little():
    assert refusal(b"X-A: b\r\n" * 200_000) == (
        "552 5.3.4 The message's header is longer than 262144 octets"
    )
    assert refusal(b"X-A: b\r\n" + b" folded\r\n" * 200_000) == (
        "552 5.3.4 The message's header is longer than 262144 octets"
    )


@pytest.mark.parametrize("line", [b"X-A: ", b"", b"From: app@example.com\r\n"])
def test_no_line_is_so_long_that_a_bcc_behind_it_comes_to_stand_in_the_text(line: bytes):
    content = line + b"x" * 300_000 + b"\r\nTo: a@b.example\r\nBcc: c@d.example\r\n\r\ntext\r\n"
    assert refusal(content) == "552 5.3.4 The message's header is longer than 262144 octets"


def test_a_recipient_that_cannot_be_resolved_refuses_the_message_too():
    assert refusal(PLAIN, of=envelope("a@example.com", "root")).startswith("550 5.1.1 ")


@pytest.mark.parametrize(
    "content",
    [
        "From: a@example.com\nSubject: x\r\n\rBcc: evil@example.org\n\nbody\n",
        'From: "a\r\nBcc: evil@example.org" <a@example.com>\n\nx\n',
        "From: =?utf-8?q?a=0D=0ABcc=3A_evil=40example.org?= <root>\n\nx\n",
        "From: =?utf-8?b?YQ0KQmNjOiBldmlsQGV4YW1wbGUub3Jn?= <root>\n\nx\n",
    ],
)
def test_nothing_in_a_field_can_make_another_field(content):
    octets = accepted(content, policy(local=LOCAL)).job.body
    assert fields(octets, "Bcc") == []


def test_every_refusal_is_one_line_of_printable_ascii():
    for content in (b"From: \xff\x1b[31m@box\r\n\r\n", "From: jörg\u2028@example.com\n\nx\n"):
        answer = hand_in(content)
        if not hasattr(answer, "text"):
            continue
        assert all(" " <= letter <= "~" for letter in answer.text)


def test_the_body_of_a_large_message_is_not_touched():
    content = PLAIN.encode().replace(b"\n", b"\r\n") + b"0123456789\r\n" * 500_000
    taken = accepted(content)
    assert body(taken.job.body) == content.partition(b"\r\n\r\n")[2]
    assert taken.repairs == ()
