"""Notices to owners: made of what clients, the far end and dead mail say, and still ours."""

import quopri
import re

from proxy.mail.fields import parse
from proxy.mail.lines import canonical_lines
from proxy.queue.job import JobEnvelope
from tests.fuzz.target import Choices, Target
from tests.fuzz.texts import ADDRESSES, FIELDS, WORDS
from tests.support.mail import MESSAGE_ID, NOW, assert_sound
from worker.notices.digest import Chapter, Letterhead, News, Shown, write

HEAD = Letterhead(
    "franker@example.com", "outbound", "box.example", "/var/lib/franker/dead", "30 days", "4 hours"
)
NAMES = [
    b"from", b"to", b"subject", b"date", b"message-id", b"auto-submitted", b"mime-version",
    b"content-type", b"content-transfer-encoding", b"x-pm-message-stream",
    b"x-pm-metadata-franker-id", b"x-pm-keepid",
]  # fmt: skip
_ENTRY = re.compile(rb"(?m)^ {4}(from|to|subject|taken)\b")


def check_notice(octets: bytes) -> None:
    """The same fields whatever it tells of; and nobody can write a line of it."""
    choices = Choices(octets)
    kind = choices.number(3)
    texts = [choices.piece().decode("utf-8", "surrogateescape") for _ in range(5)]
    sender, mail_from, recipient, reply, rule = texts
    envelope = JobEnvelope(
        mail_from, (recipient, "b@example.net"), NOW, sender, rule, replies={recipient: reply}
    )
    # What stands in the queue has canonical line ends; its beginning may be cut anywhere.
    head = b"Received: x\r\n" + canonical_lines(choices.rest())[0]
    shown = Shown(MESSAGE_ID, "outbound", envelope, head[: len(head) - choices.number(2)])
    chapter = Chapter(1, (shown,))
    news = News(*(chapter if kind == place else Chapter() for place in range(3)))
    notice = write(news, HEAD, "owner@example.com", message_id=MESSAGE_ID, now=NOW)
    assert_sound(notice)
    assert sorted(name.lower() for name, _ in parse(notice).fields) == sorted(NAMES)
    text = quopri.decodestring(notice.partition(b"\r\n\r\n")[2])
    entries = _ENTRY.findall(text)
    assert entries in (
        [b"taken", b"from", b"to", b"to"],
        [b"taken", b"from", b"subject", b"to", b"to"],
    )
    assert len(text.decode("utf-8").splitlines()) == text.count(b"\n")


TOLD = (*FIELDS, *WORDS, *ADDRESSES, b"\n    to x: y\n", b"\xff", b"Subject: ", b"\r\n    from z")

TARGETS = (Target("notice", check_notice, TOLD, 10),)
