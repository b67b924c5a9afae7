"""A notice as its reader sees it: what died, what leaves the store, what is late. Pure."""

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate

from proxy.mail.address import normal_address
from proxy.mail.charset import decode_undeclared
from proxy.mail.fields import Header, parse, unfolded
from proxy.mail.postmark_fields import mark
from proxy.mail.treatment import Treatment
from proxy.mail.words import decode_words, encode_mailbox, encode_text, one_line
from proxy.queue.job import JobEnvelope

MOST_SHOWN = 25
"""Messages of one kind that a notice shows; the others are counted."""

_MOST_RECIPIENTS = 10
_LONGEST = 400  # characters of a reply or a subject


@dataclass(frozen=True, slots=True)
class Shown:
    """One message that a notice shows. `head` is the beginning of what goes to Postmark."""

    id: str
    stream: str
    envelope: JobEnvelope
    head: bytes = b""


@dataclass(frozen=True, slots=True)
class Chapter:
    """All messages of one kind: how many, and those that are shown."""

    count: int = 0
    shown: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """What one owner is told: `dead` and kept, `leaving` the store for files, `late`.

    `held` is late, too, but somebody wanted it so.
    """

    dead: Chapter = Chapter()
    leaving: Chapter = Chapter()
    late: Chapter = Chapter()
    held: Chapter = Chapter()


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What all notices have in common.

    `sender` is the address they are from, `stream_id` Postmark's id of their stream, `host` this
    host's name, `folder` where dead letters go as files. `keep` and `delay` say in words how long
    dead letters stay and how old late mail is.
    """

    sender: str
    stream_id: str
    host: str
    folder: str
    keep: str
    delay: str


def subject_of(news: News) -> str:
    """Return the notice's subject: the gravest first."""
    parts = []
    if died := news.dead.count:
        parts.append(f"{_messages(died)} could not be sent")
    if left := news.leaving.count:
        parts.append(
            "1 dead message becomes a file" if left == 1 else f"{left:,} dead messages become files"
        )
    if late := news.late.count:
        parts.append(f"{_messages(late)} {'is' if late == 1 else 'are'} late")
    if held := news.held.count:
        parts.append(f"{_messages(held)} {'is' if held == 1 else 'are'} held")
    return ", ".join(parts)


def text_of(news: News, head: Letterhead) -> str:
    """Return the notice's text, in lines ended by LF."""
    place = f"{head.folder} on {head.host}"
    lines = [f"This is Franker on {head.host}, which relays your programs' mail to Postmark.", ""]
    if died := news.dead.count:
        lines += [
            f"{_messages(died)} could not be sent, and nobody tries again but you:",
            "",
            *_chapter(news.dead, "franker queue dead"),
            "To see one, to send it again when its reason is gone, to throw it away:",
            "",
            "    franker queue show ID",
            "    franker queue retry ID",
            "    franker queue delete ID",
            "",
            f"It is kept {head.keep};",
            "what is beyond that becomes a file in",
            f"{place}.",
            "",
        ]
    if left := news.leaving.count:
        verb = "leaves" if left == 1 else "leave"
        lines += [
            f"{_messages(left)} that could not be sent {verb} the queue now, being the oldest",
            "(ID.eml is the file of each), to be found in",
            f"{place}:",
            "",
            *_chapter(news.leaving, f"ls {head.folder}"),
        ]
    if late := news.late.count:
        verb = "is" if late == 1 else "are"
        lines += [
            f"{_messages(late)} {verb} late: taken more than {head.delay} ago, not sent yet.",
            "Nothing is lost; all goes by itself as soon as it can:",
            "",
            *_chapter(news.late, "franker queue list"),
        ]
    if held := news.held.count:
        verb = "is" if held == 1 else "are"
        lines += [
            f"{_messages(held)} {verb} held: taken more than {head.delay} ago, kept by hand or",
            f"after a restored backup. Nothing is lost; released on {head.host}, it goes:",
            "",
            *_chapter(news.held, "franker queue list --state held"),
            "Why, and since when:",
            "",
            "    franker queue holds",
            "",
        ]
    lines.append("A notice like this comes at most once in 15 minutes.")
    return "\n".join(lines) + "\n"


def write(news: News, head: Letterhead, to: str, *, message_id: str, now: float) -> bytes:
    """Return the notice as it goes to Postmark; `now` is seconds since 1970."""
    domain = head.sender.rpartition("@")[2].encode("ascii")
    header = Header(
        [
            (b"From", b" " + encode_mailbox(f"Franker on {head.host}", head.sender)),
            (b"To", b" " + normal_address(to).encode("ascii")),
            (b"Subject", encode_text(subject_of(news), b"Subject")),
            (b"Date", b" " + formatdate(now).replace("-0000", "+0000").encode("ascii")),
            (b"Message-ID", b" <%b@%b>" % (message_id.encode("ascii"), domain)),
            (b"Auto-Submitted", b" auto-generated"),
            (b"MIME-Version", b" 1.0"),
            (b"Content-Type", b" text/plain; charset=utf-8"),
            (b"Content-Transfer-Encoding", b" quoted-printable"),
        ]
    )
    mark(header, Treatment(stream_id=head.stream_id), message_id)
    body = binascii.b2a_qp(text_of(news, head).encode("utf-8", "replace"), istext=True)
    return header.octets() + b"\r\n" + body.replace(b"\n", b"\r\n")


def _chapter(chapter: Chapter, all_of_them: str) -> list[str]:
    lines: list[str] = []
    for each in chapter.shown:
        lines += [*_message(each), ""]
    if chapter.count > len(chapter.shown):
        lines += [f"  and {chapter.count - len(chapter.shown):,} more: {all_of_them}", ""]
    return lines


def _message(each: Shown) -> list[str]:
    envelope = each.envelope
    rule = f", rule {_clean(envelope.rule)}" if envelope.rule else ""
    lines = [
        f"  {each.id}",
        f"    taken {_date(envelope.accepted_at)}, stream {each.stream}{rule}",
        f"    from {_clean(envelope.reverse_path) or '<>'}, as {_clean(envelope.mail_from)}",
    ]
    if subject := _subject(each.head):
        lines.append(f"    subject: {subject}")
    lines += _recipients(envelope.recipients, envelope.replies)
    return lines


def _recipients(recipients: Sequence[str], replies: Mapping[str, str]) -> list[str]:
    lines = []
    for recipient in recipients[:_MOST_RECIPIENTS]:
        reply = replies.get(recipient, "")
        lines.append(f"    to {_clean(recipient)}" + (f": {_clean(reply)}" if reply else ""))
    if len(recipients) > _MOST_RECIPIENTS:
        lines.append(f"    and {len(recipients) - _MOST_RECIPIENTS:,} more recipients")
    return lines


def _subject(head: bytes) -> str:
    value = parse(head).first(b"subject") if head else None
    if value is None:
        return ""
    return _clean(decode_words(decode_undeclared(unfolded(value), "windows-1252")))


def _clean(text: str) -> str:
    return one_line(text)[:_LONGEST].encode("utf-8", "replace").decode()


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"
