"""What holds for every message, whatever it is made of."""

import re
from email.message import Message

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.mail.envelope import Client
from proxy.submission import Accepted, Refusal
from tests.support.mail import assert_sound, envelope, hand_in, policy, read, text

POLICY = policy(
    {"name": "r", "sender": ["rule@*"], "from": "by-rule@example.com", "tag": "t"},
    local={"postmaster": "ops@example.com", "from": "host@example.com"},
)
HEADER = (
    b"From: App <app@example.com>\r\nTo: bob@example.net\r\nSubject: s\r\n"
    b"Date: x\r\nMessage-ID: <x@y>\r\nMIME-Version: 1.0\r\n"
)
TRACE = re.compile(rb"\AReceived: [^\r]*\r\n [^\r]*\r\n")

steady = settings(deadline=None, suppress_health_check=list(HealthCheck))

seven_bit_lines = st.lists(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=120), min_size=1
).map(lambda lines: "".join(f"{line}\r\n" for line in lines).encode())

any_text = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\n"), max_size=3000
)
names = st.sampled_from(
    [
        b"From", b"To", b"Cc", b"Bcc", b"Subject", b"Sender", b"Reply-To", b"X-PM-Tag", b"Date",
        b"X-PM-Message-Stream", b"X-PM-Metadata-a", b"Content-Type", b"X-PM-KeepID", b"X-Other",
        b"Content-Transfer-Encoding", b"MIME-Version", b"DKIM-Signature", b"Received", b"subject",
        b"Content-Disposition", b"X-PM-Metadata-franker-id", b"",
    ]
)  # fmt: skip
values = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [
            b"root", b"Root (x) <root@box>", b"a@b.example, root", b"J\xf6rg <j@example.com>",
            "Ж <ж@пример.example>".encode(), "a@bücher.example".encode(), b"<>", b'"', b"(", b"<",
            b"text/plain", b"text/html; charset=utf-16", b"multipart/mixed; boundary=b",
            b"multipart/signed; boundary=b", b"message/rfc822", b"base64", b"quoted-printable",
            b"8bit", b"x" * 1100, b"true", b"=?utf-8?q?=0D=0ABcc:_x?=", b"=?x?b?////?=",
            b"image/png; name=\"\xfc\xfc\"", b"\x1b$B7oL>\x1b(B", b"a\r\n b\r\n \r\n c",
        ]
    ),
)  # fmt: skip
line_ends = st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n", b"\0\r\n"])
headers = st.lists(
    st.tuples(names, st.sampled_from([b": ", b":", b" :", b" "]), values, line_ends), max_size=12
).map(lambda parts: b"".join(b"".join(part) for part in parts))
pieces = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"--b\r\n", b"--b--\r\n", b"\r\n", b"\n", b"x" * 1200, "Grüße".encode(), b"\xfc\xdfe",
            b"Content-Type: text/html; charset=x\r\n\r\n", b"=FC=\r\n", b".\r\n", b"--c\r\n",
            b"Content-Transfer-Encoding: base64\r\n\r\n", b"Content-Type: image/gif\r\n",
            b"Content-Type: multipart/mixed; boundary=c\r\n\r\n", b"Subject: \xfc\r\n",
            b"-----BEGIN PGP MESSAGE-----\r\n",
        ]
    ),
)  # fmt: skip
anything = st.builds(
    lambda header, blank, body: header + blank + body,
    headers,
    st.sampled_from([b"\r\n", b"\n", b"", b"\r\n\r\n"]),
    st.lists(pieces, max_size=12).map(b"".join),
)


def unsigned(octets: bytes) -> bool:
    return re.search(rb"(?i)multipart/signed|BEGIN PGP", octets) is None


@steady
@given(body=seven_bit_lines)
@example(body=b".\r\n")
@example(body=b" \t\r\n trailing \r\n")
@example(body=b"From \r\n")
def test_a_body_that_needs_no_repair_is_not_changed_by_an_octet(body):
    taken = hand_in(HEADER + b"\r\n" + body, POLICY)
    assert isinstance(taken, Accepted)
    if body.strip():
        assert taken.job.body.endswith(HEADER + b"\r\n" + body)
        assert taken.repairs == ()


@steady
@given(content=anything)
def test_whatever_comes_in_what_goes_out_is_canonical_short_lined_and_seven_bit(content):
    outcome = hand_in(content, POLICY)
    if isinstance(outcome, Accepted):
        header, _, _ = outcome.job.body.partition(b"\r\n\r\n")
        assert header.isascii()
        if unsigned(content):
            assert_sound(outcome.job.body)
            assert outcome.job.body.isascii()
        assert not re.search(rb"(?im)^(resent-)?bcc\s*:", header)
        assert len(re.findall(rb"(?im)^from:", header)) == 1
        assert len(re.findall(rb"(?im)^x-pm-message-stream:", header)) == 1
    else:
        assert isinstance(outcome, Refusal)
        assert all(" " <= letter <= "~" for letter in str(outcome))


@steady
@example(content=b"Content-Transfer-Encoding: quoted-printable\r\n\r\n\x80=", sender="root")
@example(
    content=b"Content-Type: multipart/mixed; boundary=c\r\n\r\n"
    b"--c\r\n-----BEGIN PGP MESSAGE-----\x80",
    sender="",
)
@given(content=anything, sender=st.sampled_from(["", "root", "a@example.com", "rule@example.com"]))
def test_doing_it_twice_is_doing_it_once_but_for_received(content, sender):
    once = hand_in(content, POLICY, envelope(sender))
    if not isinstance(once, Accepted):
        return
    first = TRACE.sub(b"", once.job.body)
    again = hand_in(without_id(first), POLICY, envelope(sender))
    assert isinstance(again, Accepted), again
    assert TRACE.sub(b"", again.job.body) == first
    assert set(again.repairs) <= {"marks"}
    assert again.job.envelope.mail_from == once.job.envelope.mail_from


def without_id(octets: bytes) -> bytes:
    """Return the message as if it had not been here: its id would make it a loop."""
    return re.sub(rb"X-PM-Metadata-franker-id: [^\r]*\r\n", b"", octets, count=1)


@steady
@given(written=any_text.filter(str.strip), charset=st.sampled_from(["utf-8", "utf-16", "koi8-r"]))
@example(written="ü" * 999, charset="utf-8")
@example(written="x" * 75 + " ü ", charset="utf-8")
def test_declared_text_decodes_to_the_same(written, charset):
    octets = (written + "\r\n").encode(charset, errors="ignore")
    if charset == "utf-16" or not octets.strip():
        return
    header = HEADER + b"Content-Type: text/plain; charset=%b\r\n" % charset.encode()
    taken = hand_in(header + b"\r\n" + octets, POLICY)
    assert isinstance(taken, Accepted)
    assert taken.job.body.isascii()
    payload = read(taken.job.body).get_payload(decode=True)
    assert payload == octets


@steady
@given(written=any_text)
def test_a_raw_subject_decodes_to_the_same_but_for_controls(written):
    octets = b"Subject: " + written.encode() + b"\r\n" + HEADER.replace(b"Subject: s\r\n", b"")
    if "=?" in written or len(written) > 1900:
        return
    taken = hand_in(octets + b"\r\nx\r\n", POLICY)
    assert isinstance(taken, Accepted)
    message = read(taken.job.body)
    assert shown(decoded(message, "Subject")) == shown(written)


def shown(value: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value).split())


def decoded(message: Message, name: str) -> str:
    from proxy.mail.words import decode_words

    return decode_words(re.sub(r"\r?\n(?=[ \t])", "", dict(message.raw_items())[name]))


@steady
@given(helo=st.text(max_size=300), address=st.sampled_from(["unix", "::1", "10.0.0.1"]))
def test_no_greeting_makes_a_field(helo, address):
    taken = hand_in(HEADER + b"\r\nx\r\n", POLICY, envelope(client=Client(address, helo)))
    assert isinstance(taken, Accepted)
    assert_sound(taken.job.body)
    assert TRACE.sub(b"", taken.job.body).startswith(b"X-PM-Message-Stream: outbound\r\n")


@steady
@given(data=st.binary(min_size=1, max_size=3000))
def test_data_in_a_multipart_decodes_to_the_same(data):
    canonical = data.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
    content = (
        HEADER
        + b"Content-Type: multipart/mixed; boundary=limit\r\n\r\n--limit\r\n"
        + b"Content-Type: text/plain\r\n\r\nhello\r\n--limit\r\nContent-Type: image/png\r\n\r\n"
        + canonical
        + b"\r\n--limit--\r\n"
    )
    if b"--limit" in canonical:
        return
    taken = hand_in(content, POLICY)
    assert isinstance(taken, Accepted)
    first, second = read(taken.job.body).iter_parts()
    assert text(first) == "hello"
    assert second.get_payload(decode=True) == canonical
