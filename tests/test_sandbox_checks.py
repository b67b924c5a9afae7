"""What the stand-in finds wrong after its 250, as Postmark does."""

import dataclasses

import pytest

from proxy.sandbox.account import Account
from proxy.sandbox.checks import Finding, examine
from proxy.sandbox.message import Taken
from proxy.sandbox.store import Store

PLAIN = b"From: App <app@example.com>\r\nTo: you@example.net\r\nSubject: Hi\r\n\r\nHello.\r\n"


def taken(content: bytes = PLAIN, *, fields: bytes = b"", **changes: object) -> Taken:
    message = Taken(
        number=1,
        id="00000000-0000-4000-8000-000000000001",
        queue_id="4S1",
        at=1000.0,
        host="smtp.postmarkapp.com",
        port=587,
        tls="TLSv1.3",
        login="token",
        bound_stream="",
        helo="h",
        reverse_path="app@example.com",
        recipients=("you@example.net",),
        content=fields + content,
    )
    return dataclasses.replace(message, **changes)  # type: ignore[arg-type]  # of any field


def found(
    message: Taken, account: Account | None = None, suppressed: set[str] | None = None
) -> Finding:
    return examine(message, account or Account(), suppressed or set())


def test_an_ordinary_message_is_delivered() -> None:
    assert found(taken()) == Finding()


def attachment(name: bytes) -> bytes:
    return (
        b"From: a@example.com\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n"
        b"text\r\n--x\r\nContent-Type: application/octet-stream;\r\n name=" + name + b"\r\n\r\n"
        b"AAAA\r\n--x--\r\n"
    )


MANY = tuple(f"r{n}@example.net" for n in range(51))


@pytest.mark.parametrize(
    ("message", "number", "words"),
    [
        (taken(fields=b"X-PM-Message-Stream: nowhere\r\n"), 1235, "does not exist"),
        (taken(fields=b"X-PM-Message-Stream: inbound\r\n"), 1236, "cannot send"),
        (taken(fields=b"X-PM-Message-Stream: broadcasts\r\n"), 300, "smtp-broadcasts"),
        (taken(recipients=MANY), 300, "More than 50 recipients"),
        (taken(fields=b"X-PM-Tag: " + b"t" * 1001 + b"\r\n"), 300, "tag is longer"),
        (taken(fields=b"X-PM-Tag: a\r\nX-PM-Tag: b\r\n"), 300, "More than one tag"),
        (taken(b"To: a@b.com\r\n\r\nHello\r\n"), 300, "Invalid 'From'"),
        (taken(b"From: a@example.com\r\n\r\n \r\n"), 300, "Zero-length body"),
        (taken(content=PLAIN + b"x" * 10_000_000), 300, "the limit is 10000000"),
        (taken(attachment(b'"virus.EXE"')), 411, ".exe"),
        (taken(attachment(b"a.vbs")), 411, ".vbs"),
    ],
)
def test_what_the_api_would_refuse_becomes_an_error_for_all(
    message: Taken, number: int, words: str
) -> None:
    finding = found(message)
    (trouble,) = finding.troubles
    assert trouble.number == number
    assert words in trouble.text
    assert finding.refused() == set(message.recipients)


def test_harmless_attachments_are_delivered() -> None:
    assert found(taken(attachment(b'"report.exe.pdf"'))) == Finding()


def test_a_from_that_is_not_verified_is_refused() -> None:
    (trouble,) = found(taken(), Account(verified=("example.org",))).troubles
    assert trouble.number == 400


@pytest.mark.parametrize("verified", ["example.com", "APP@example.com"])
def test_a_from_at_a_verified_domain_or_address_passes(verified: str) -> None:
    assert found(taken(), Account(verified=(verified,))) == Finding()


def test_a_suppressed_recipient_is_refused_and_the_others_are_not() -> None:
    message = taken(recipients=("you@example.net", "Gone@example.net"))
    finding = found(message, suppressed={"gone@example.net"})
    assert finding.troubles[0].number == 406
    assert finding.refused() == {"Gone@example.net"}


@pytest.mark.parametrize(
    "fields",
    [
        b"X-PM-Metadata-a: " + b"v" * 81 + b"\r\n",
        b"X-PM-Metadata-" + b"k" * 21 + b": v\r\n",
        b"".join(b"X-PM-Metadata-k%d: v\r\n" % n for n in range(11)),
    ],
)
def test_metadata_beyond_its_limits_makes_mail_vanish_without_a_word(fields: bytes) -> None:
    finding = found(taken(fields=fields))
    assert finding.lost
    assert finding.troubles == ()


def test_metadata_at_its_limits_is_delivered() -> None:
    fields = b"".join(
        b"X-PM-Metadata-" + (b"%020d" % n) + b": " + b"v" * 80 + b"\r\n" for n in range(10)
    )
    assert found(taken(fields=fields)) == Finding()


def test_a_folded_field_counts_as_one_line() -> None:
    message = taken(fields=b"X-PM-Message-Stream:\r\n  broadcasts\r\n", host="x")
    assert message.stream == "broadcasts"


def test_the_stream_of_an_smtp_token_wins_over_the_header() -> None:
    message = taken(fields=b"X-PM-Message-Stream: broadcasts\r\n", bound_stream="outbound")
    assert message.stream == "outbound"


def test_a_metadata_key_that_comes_again_gets_a_number() -> None:
    message = taken(fields=b"X-PM-Metadata-a: 1\r\nX-PM-Metadata-a: 2\r\n")
    assert message.metadata == {"a": "1", "a2": "2"}


def test_a_message_to_the_test_domain_bounces_as_its_recipient_asks() -> None:
    store = Store(Account())
    to = ("Soft_Bounce@bounce-testing.postmarkapp.com", "you@example.net")
    store.add(taken(recipients=to))
    (bounce,) = store.bounces()
    assert (bounce.type, bounce.email) == ("SoftBounce", to[0])


def test_a_hard_bounce_suppresses_what_comes_later_and_nothing_earlier() -> None:
    store = Store(Account())
    to = ("nobody@bounce-testing.postmarkapp.com",)
    store.add(taken(recipients=to))
    store.add(taken(recipients=to, number=2))
    newest, oldest = store.bounces()
    assert (oldest.type, newest.type) == ("HardBounce", "SMTPApiError")
    assert "406" in newest.text


def test_the_oldest_messages_are_forgotten_and_still_counted() -> None:
    store = Store(Account(), keep=3)
    for number in range(10):
        store.add(taken(number=number))
    assert [one.number for one in store.messages] == [7, 8, 9]
    assert store.count == 10


def test_the_octets_kept_are_bounded() -> None:
    store = Store(Account(), keep_octets=3000)
    for number in range(10):
        store.add(taken(PLAIN + b"x" * 1000, number=number))
    assert [one.number for one in store.messages] == [8, 9]
