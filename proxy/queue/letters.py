"""Dead letters as files: <id>.eml, the message behind fields that tell its envelope."""

import os
import re
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from proxy.mail.fields import Field, Header
from proxy.mail.words import encode_text
from proxy.queue.job import JobEnvelope

_PRIVATE = 0o700
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class LetterFileError(OSError):
    """A dead letter cannot be written as a file; the text says why."""


def as_eml(job_id: str, stream: str, envelope: JobEnvelope | None, body: bytes) -> bytes:
    """Return a message as a file: its envelope in X-Franker-* fields, then all of `body`.

    Those for whom it died stand in X-Franker-Recipient, each in a field of its own with the last
    reply behind a semicolon. `envelope` is None when this version could not read it.
    """
    fields: list[Field] = []

    def add(name: bytes, text: str) -> None:
        fields.append((name, encode_text(_text(text), name)))

    add(b"X-Franker-Id", job_id)
    add(b"X-Franker-Stream", stream)
    if envelope is not None:
        add(b"X-Franker-Accepted", _date(envelope.accepted_at))
        add(b"X-Franker-Reverse-Path", f"<{envelope.reverse_path}>")
        add(b"X-Franker-Mail-From", f"<{envelope.mail_from}>")
        for recipient in envelope.recipients:
            reply = envelope.replies.get(recipient, "")
            add(b"X-Franker-Recipient", f"<{recipient}>" + (f"; {reply}" if reply else ""))
        for name, text in (
            (b"X-Franker-Rule", envelope.rule),
            (b"X-Franker-Owner", envelope.owner),
            (b"X-Franker-Client", envelope.client),
        ):
            if text:
                add(name, text)
        for was, text in envelope.replaced.items():
            add(b"X-Franker-Replaced", f"{was}: {text}")
    return Header(fields).octets() + body


def write_letter(folder: Path, job_id: str, eml: bytes) -> Path:
    """Write a letter to `folder`, made if need be; return its file once it is on disk.

    A file of the same name and content is left as it is; one with other content, too, and a
    number is put behind the name.

    Raises:
        LetterFileError: it cannot be written.
    """
    if not _ID.fullmatch(job_id):
        raise LetterFileError(f"{job_id!r} is no name for a file")
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        for number in count(1):
            path = folder / (f"{job_id}.eml" if number == 1 else f"{job_id}.{number}.eml")
            if not path.exists():
                break
            if path.stat().st_size == len(eml) and path.read_bytes() == eml:
                return path
        _write(path, eml)
    except OSError as error:
        raise LetterFileError(f"{folder}: {error.strerror or error}") from error
    return path


def _write(path: Path, octets: bytes) -> None:
    """Write a file that is there whole, or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
