"""Both programs tried with the same calls, and the table of what came of it."""

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.sendmail.cases import CASES, Case
from tests.sendmail.postfix import HOST, SENDMAIL, Postfix
from tests.sendmail.sink import Sink, Taken
from tests.support.sendmail import Sendmail
from tests.support.waiting import wait_for

_ADDED = (b"received", b"date", b"message-id", b"mime-version")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended, and what was handed on."""

    code: int
    taken: tuple[Taken, ...]

    def words(self) -> str:
        """Return all of it in a few words."""
        return "; ".join([f"exit {self.code}", *map(_words, self.taken)])


def _words(taken: Taken) -> str:
    recipients = " ".join(taken.recipients)
    header, _, body = taken.content.partition(b"\r\n\r\n")
    text = body.decode("utf-8", "backslashreplace").replace("\r\n", "⏎")
    fields = {}
    for line in re.sub(rb"\r\n[ \t]+", b" ", header).split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() not in _ADDED:
            fields[name.lower()] = value.strip().decode("utf-8", "backslashreplace")
    shown = ", ".join(
        f"{name.decode()}: {fields[name]}"
        for name in (b"from", b"to", b"cc", b"bcc", b"resent-to")
        if name in fields
    )
    return f"<{taken.sender}> to {recipients}: {shown}; {text or 'empty'}"


def outcomes(
    command: Callable[[Case], Sequence[str]], environ: Mapping[str, str], sink: Sink, *, late: float
) -> list[Outcome]:
    """Return what comes of each case; what is handed on may be so many seconds `late`."""
    codes: list[int] = []
    for number, case in enumerate(CASES):
        done = subprocess.run(
            command(case),
            input=case.stdin.replace(b"CASE", _word(number)),
            env=environ,
            capture_output=True,
            timeout=60,
            check=False,
            cwd="/",
        )
        codes.append(done.returncode)
    wanted = [
        number
        for number, case in enumerate(CASES)
        if codes[number] == 0 and b"CASE" in case.stdin and not _bounced(case)
    ]
    for number in wanted:
        word = _word(number)
        wait_for(partial(_has_come, sink, word), late, f"case {word!r}")
    _settle(sink)
    return [
        Outcome(code, tuple(_plain(one) for one in sink.taken if _is(one, _word(number))))
        for number, code in enumerate(codes)
    ]


def _has_come(sink: Sink, word: bytes) -> bool:
    return any(_is(one, word) for one in sink.taken)


def _settle(sink: Sink) -> None:
    """Wait until nothing more has come for a while: what comes twice shall be seen."""
    seen, since = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if len(sink.taken) != seen:
            seen, since = len(sink.taken), time.monotonic()
        return time.monotonic() - since > 0.5

    wait_for(quiet, 30, "quiet")


def _word(number: int) -> bytes:
    return b"CASE%03d" % number


def _bounced(case: Case) -> bool:
    """Tell whether Postfix may not hand this on."""
    return bool({"-bv", "-x@y.example"} & set(case.arguments))


def _is(taken: Taken, word: bytes) -> bool:
    # What Postfix writes about it, a report or a bounce, is not it.
    return word in taken.content and b"This is the mail system at host" not in taken.content


def _plain(taken: Taken) -> Taken:
    """Return it without the host's name, which Postfix has put in, and Franker's proxy would."""
    return Taken(
        taken.sender.removesuffix(f"@{HOST}"),
        tuple(sorted(one.removesuffix(f"@{HOST}") for one in taken.recipients)),
        re.sub(rb"CASE\d\d\d", b"CASE", taken.content.replace(f"@{HOST}".encode(), b"")),
    )


def of_postfix(folder: Path) -> list[Outcome]:
    """Return what Postfix's sendmail does."""
    names = folder / "names"
    names.mkdir()
    for name in ("mailq", "newaliases"):
        (names / name).symlink_to(SENDMAIL)
    with Sink() as sink, Postfix(folder / "postfix", sink.port) as postfix:

        def command(case: Case) -> list[str]:
            program = SENDMAIL if case.name == "sendmail" else str(names / case.name)
            return [program, *case.arguments]

        return outcomes(command, postfix.environ(), sink, late=30)


def of_franker(sendmail: Sendmail, environ: Mapping[str, str]) -> list[Outcome]:
    """Return what ours does, with a sink where the proxy is."""
    with Sink() as sink:
        sendmail.listens([f"127.0.0.1:{sink.port}"])

        def command(case: Case) -> list[str]:
            return sendmail.command(*case.arguments, name=case.name)

        return outcomes(command, sendmail.environ(environ), sink, late=5)


def alike(theirs: Outcome, ours: Outcome) -> bool:
    """Tell whether both calls ended alike and handed the same on."""
    return (theirs.code, _seen(theirs)) == (ours.code, _seen(ours))


def _seen(outcome: Outcome) -> list[str]:
    return [_words(taken) for taken in outcome.taken]


def table(postfix: Sequence[Outcome], franker: Sequence[Outcome]) -> str:
    """Return the table for docs/sendmail.md."""
    lines = ["| call | what | Postfix | Franker | handed on |", "|---|---|---|---|---|"]
    for case, theirs, ours in zip(CASES, postfix, franker, strict=True):
        call = shlex.join([case.name, *case.arguments]).replace("|", "\\|")
        what = "; ".join(filter(None, (case.what, case.differs)))
        if not theirs.taken and not ours.taken:
            handed_on = "-"
        else:
            handed_on = "the same" if _seen(theirs) == _seen(ours) else "not the same"
        lines.append(f"| `{call}` | {what} | {theirs.code} | {ours.code} | {handed_on} |")
    return "\n".join(lines) + "\n"


_BEGIN, _END = "<!-- table: python -m tests.sendmail -->\n", "<!-- end of table -->\n"


def with_table(page: str, text: str) -> str:
    """Return the page with `text` as its table."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + "\n" + text + "\n" + _END + rest.partition(_END)[2]
