"""What the tests of real mail clients share: programs, recipients, and what "arrived" means."""

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.processes import ROOT

CLIENTS = ROOT / "tests/data/clients"

PLAIN_TEXT = "Hello.\n\n.a line with a dot before it\n..\nFrom here on\n\ttabs and  blanks \nend\n"
GERMAN_TEXT = "Grüße aus Köln: 20 €\n\n.ein Punkt davor\nEnde\n"

OURS = frozenset({"received", "x-pm-message-stream", "x-pm-metadata-franker-id", "x-pm-keepid"})
"""What is added to every message."""

MISSING = frozenset({"date", "message-id", "from", "mime-version"})
"""What is added to a message that lacks it."""


def missing(what: str) -> NoReturn:
    """Skip the test for want of a program (in CI that is a failure, see conftest.py)."""
    pytest.skip(f"{what} is not installed")


def program(name: str, package: str = "") -> str:
    """Return the path of the program `name`, or skip; `package` is what Debian calls it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return path or missing(f"{name} (Debian package {package or name})")


def node_modules() -> str:
    """Return the folder with nodemailer in it, or skip."""
    places = [Path(sys.prefix) / "node/node_modules", ROOT / ".venv/node/node_modules"]
    for folder in (*map(Path, os.environ.get("NODE_PATH", "").split(":")), *places):
        if (folder / "nodemailer").is_dir():
            return str(folder)
    return missing("nodemailer (npm install --prefix .venv/node nodemailer)")


def new_recipient() -> str:
    """Return an address that no other test uses."""
    return f"{uuid.uuid4().hex[:12]}@example.net"


def run_client(
    command: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    home: Path,
    timeout: float = 60,
    **environ: str,
) -> str:
    """Run a mail client to its end and return its output; fail when it fails."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **environ}
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        env=clean,
        cwd=home,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {output}"
    return output


def canonical(octets: bytes) -> bytes:
    """Return `octets` with every line end made CRLF."""
    return re.sub(rb"\r\n|\r|\n", b"\r\n", octets)


def header_fields(octets: bytes) -> list[bytes]:
    """Return the header fields of a message with CRLF line ends, each with its folding."""
    header = octets.partition(b"\r\n\r\n")[0] + b"\r\n"
    return re.findall(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*", header)


def field_name(field: bytes) -> str:
    """Return a field's name in lower case."""
    return field.partition(b":")[0].strip().lower().decode()


def parsed(octets: bytes) -> EmailMessage:
    """Return the message as the standard library reads it."""
    return message_from_bytes(octets, policy=policy.default)


def body_text(octets: bytes) -> str:
    """Return the decoded text of a message, line ends as LF."""
    part = parsed(octets).get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def was_clean(sent: bytes) -> bool:
    """Whether there was nothing to repair in what a client sent, but line ends."""
    lines = canonical(sent).split(b"\r\n")
    return sent.isascii() and b"\0" not in sent and max(map(len, lines)) <= 998


def assert_arrived_as_sent(sent: bytes, taken: bytes) -> None:
    """Fail unless `taken` is `sent`, octet by octet, but for what is added at the top."""
    sent = canonical(sent)
    before, after = header_fields(sent), header_fields(taken)
    lacking = MISSING - set(map(field_name, before))
    added = [field for field in after if field not in before]
    assert set(map(field_name, added)) <= OURS | lacking, added
    assert [field for field in after if field not in added] == before
    assert taken.partition(b"\r\n\r\n")[2] == sent.partition(b"\r\n\r\n")[2]


def assert_arrived(sent: bytes, taken: bytes, text: str) -> None:
    """Fail unless `taken` is what the client meant: as sent, or repaired with the same `text`."""
    if was_clean(sent):
        assert_arrived_as_sent(sent, taken)
    assert taken.isascii()
    assert body_text(taken).rstrip("\n") == text.rstrip("\n")
