"""The whole way of a message: judged, rewritten, its rule applied, whatever is in it."""

import functools
import re
from email.parser import BytesHeaderParser

from pydantic import ValidationError

from proxy.config.model import Settings
from proxy.listener.identity import printable
from proxy.mail.envelope import Client, Envelope
from proxy.mail.fields import parse
from proxy.mail.lines import canonical_lines
from proxy.queue.job import decode_envelope, encode_envelope
from proxy.submission import (
    Accepted,
    Discarded,
    Policy,
    Refusal,
    check_sender,
    compile_policy,
    resolve_recipient,
    submit,
)
from tests.fuzz.target import Choices, Target
from tests.fuzz.texts import ADDRESSES, ENDS, FIELDS, WORDS, check_address
from tests.support.mail import MESSAGE_ID, NOW, assert_sound, policy

_OURS = {
    b"received", b"x-pm-message-stream", b"x-pm-metadata-franker-id", b"x-pm-keepid", b"from",
    b"reply-to", b"x-original-from", b"date", b"message-id", b"mime-version", b"content-type",
    b"content-transfer-encoding",
}  # fmt: skip
"""All fields that may stand in what goes out without having stood in what came in."""
_RULED = {b"x-pm-tag", b"x-pm-metadata-app", b"x-site", b"x-pm-trackopens", b"x-pm-tracklinks"}
_TRACE = re.compile(rb"\AReceived: [^\r]*\r\n [^\r]*\r\n")

_SITE = re.compile(rb"(?m)^X-Site: cologne\r\n")

_RULE = {
    "name": "r", "sender": ["rule@*"], "from": "by-rule@example.com", "tag": "t",
    "metadata": {"app": "x"}, "set_headers": {"X-Site": "cologne"}, "track_opens": False,
}  # fmt: skip


@functools.cache
def policies() -> tuple[Policy, ...]:
    """What a message may be judged by."""
    local = {"postmaster": "ops@example.com", "from": "host@example.com"}
    return (
        policy(_RULE, local=local),
        policy(_RULE, local={"domain": "example.com", "aliases": {"bob": "b@example.net"}}),
        policy(
            {"name": "s", "subject": ["*secret*"], "action": "discard"},
            {"name": "t", "recipient": ["*@nobody.example"], "action": "reject"},
            postmark={"verified": ["example.com", "b.example"]},
            listen={"max_message_size": 3000},
        ),
    )


SENDERS = ("app@example.com", "", "root", "rule@example.com", "a@localhost")
CONTENTS = (
    *ENDS, *FIELDS, *WORDS, *ADDRESSES, b"--b\r\n", b"--b--\r\n", b"Content-Type: image/gif\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"message/rfc822", b"charset=utf-16",
    b"-----BEGIN PGP MESSAGE-----\r\n", b"x" * 1000, b"=FC=\r\n", b"Bcc: a@b.example\r\n",
    b"X-PM-Metadata-a: ", b"X-PM-Tag: ", b"X-PM-Message-Stream: evil\r\n", b"DKIM-Signature: x\r\n",
    b"Received: x\r\n", b"From: Root <root>\r\n", b"Subject: x\r\n", b"Reply-To: ", b"Sender: ",
    b"X-Postmark-Server-Token: y\r\n", b"X-Original-From: z\r\n", b"<meta charset=koi8-r>",
)  # fmt: skip


_PGP = b"-----BEGIN PGP "
_LONG = re.compile(rb"[^\r\n]{999,}")


def check_message(octets: bytes) -> None:
    """Refused in one line of ASCII, or sound, its own fields only, and the same when done twice."""
    choices = Choices(octets)
    given = policies()[choices.number(3)]
    sender = SENDERS[choices.number(len(SENDERS))]
    client = Client(("127.0.0.1", "unix", "10.1.2.3")[choices.number(3)], "box", "ESMTP")
    envelope = Envelope(sender, ("bob@example.net", "root@box")[choices.number(2) :], client)
    content = choices.rest()
    outcome = submit(given, envelope, content, message_id=MESSAGE_ID, now=NOW)
    if not isinstance(outcome, Accepted):
        check_refusal(outcome)
        return
    body = outcome.job.body
    came = {name.lower() for name, _ in parse(canonical_lines(content)[0]).fields}
    went = check_header(body)
    allowed = _OURS | (_RULED if outcome.route.rule == "r" else set()) | came
    assert went <= allowed, went - allowed
    assert not went & {b"bcc", b"resent-bcc", b"x-postmark-server-token"}
    assert decode_envelope(encode_envelope(outcome.job.envelope)) == outcome.job.envelope
    assert check_address(outcome.job.envelope.mail_from) == outcome.job.envelope.mail_from
    first = _TRACE.sub(b"", body)
    without_id = re.sub(rb"X-PM-Metadata-franker-id: [^\r]*\r\n", b"", first, count=1)
    again = submit(given, envelope, without_id, message_id=MESSAGE_ID, now=NOW)
    if isinstance(again, Accepted):
        # A rule's own fields go to the end each time.
        assert _SITE.sub(b"", _TRACE.sub(b"", again.job.body), 1) == _SITE.sub(b"", first, 1)
    else:
        # Only where a rule asks for what the first pass has changed.
        assert given is policies()[2], again


def check_header(body: bytes) -> set[bytes]:
    """Return the names of a message's fields, in lower case; two readers must see the same."""
    header, blank, text = body.partition(b"\r\n\r\n")
    if _PGP in text:  # never altered, whatever stands beside it
        text = _LONG.sub(b"", text)
    assert_sound(header + blank + text)
    names = [name.lower() for name, _ in parse(body).fields]
    lines = re.findall(rb"(?m)^([^\s:]+):", header)
    assert [line.lower() for line in lines] == names
    assert len(re.findall(rb"\r\n(?![ \t])", header)) == len(names) - 1
    seen = BytesHeaderParser().parsebytes(header + b"\r\n\r\n").keys()
    assert [name.lower().encode() for name in seen] == names
    for once in (b"from", b"x-pm-message-stream", b"x-pm-metadata-franker-id", b"subject"):
        assert names.count(once) <= 1
    assert b"from" in names
    assert names[:2] == [b"received", b"x-pm-message-stream"]
    return set(names)


def check_refusal(outcome: Refusal | Discarded) -> None:
    """What a client is told is one line, whatever it said."""
    if isinstance(outcome, Refusal):
        assert re.fullmatch(r"[ -~]+", str(outcome))
        assert outcome.code // 100 == 5


HEADER = b"From: App <app@example.com>\r\nSubject: s\r\n\r\nx\r\n"


def check_envelope(octets: bytes) -> None:
    """Nothing that a client says of itself or of others becomes a field, a reply or a command."""
    choices = Choices(octets)
    given = policies()[choices.number(3)]
    sender, recipient, helo, login = (
        choices.piece().decode("utf-8", "surrogateescape") for _ in range(4)
    )
    helo, login = printable(helo), printable(login)
    refusal = check_sender(given, sender)
    if refusal is not None:
        check_refusal(refusal)
        return
    found = resolve_recipient(given, recipient)
    if isinstance(found, Refusal):
        check_refusal(found)
        return
    assert found
    assert all(check_address(one) == one for one in found)
    client = Client("10.1.2.3", helo, "ESMTPA", login)
    envelope = Envelope(sender, (recipient,), client)
    content = (HEADER, HEADER.partition(b"\n")[2])[choices.number(2)]
    outcome = submit(given, envelope, content, message_id=MESSAGE_ID, now=NOW)
    if isinstance(outcome, Accepted):
        assert outcome.job.envelope.recipients == found
        went = check_header(outcome.job.body)
        assert went <= _OURS | _RULED | {b"subject"}
        assert outcome.job.body.endswith(b"\r\n\r\nx\r\n")
        assert decode_envelope(encode_envelope(outcome.job.envelope)) == outcome.job.envelope
    else:
        check_refusal(outcome)


RULES = (*ADDRESSES, *WORDS, b"X-Site", b"From", b"Bcc", b"X-PM-Tag", b"\xff", b"\xff\xff", b"\r\n")


def check_rules(octets: bytes) -> None:
    """Whatever a rule says, it is refused as configuration, or sets what it names and no more."""
    parts = [part.decode("utf-8", "replace") for part in octets.split(b"\xff")]
    name, tag, key, value, header, text, from_ = (*parts, *[""] * 7)[:7]
    rule = {"name": name or "r", "tag": tag, "from": from_}
    rule |= {"metadata": {key: value}} if key else {}
    rule |= {"set_headers": {header: text}} if header else {}
    try:
        settings = Settings.model_validate({"rules": [rule]})
    except ValidationError:
        return
    given = compile_policy(settings, host_names=("box.example",))
    envelope = Envelope("app@example.com", ("bob@example.net",), Client("127.0.0.1", "box"))
    outcome = submit(given, envelope, HEADER, message_id=MESSAGE_ID, now=NOW)
    assert isinstance(outcome, Accepted), outcome
    went = check_header(outcome.job.body)
    named = {b"x-pm-tag"} if tag else set()
    named |= {b"x-pm-metadata-" + key.lower().encode()} if key else set()
    named |= {header.lower().encode()} if header else set()
    assert went - _OURS - {b"subject"} <= named


TARGETS = (
    Target("message", check_message, CONTENTS, 45),
    Target("envelope", check_envelope, (*ADDRESSES, b"\xff", b"app@example.com"), 30),
    Target("rules", check_rules, RULES, 10),
)
