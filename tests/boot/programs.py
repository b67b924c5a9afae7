"""What old programs do, to be run on the machine itself."""

import json
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.boot.site import ANSWER_S, Site
from tests.support.waiting import wait_for

_LOAD = Path(__file__).with_name("load.py")
_PROGRAMS = "0123"  # as they are numbered there

KEPT = ("etc/franker", "var/lib/franker", "var/spool/franker")
"""What stays when Franker is removed, as the beginnings of paths."""

RAW = """\
import socket, sys
subject, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
wire = socket.create_connection((host, port), 60)
replies = wire.makefile("r")
assert replies.readline().startswith("220 ")
for line in ("HELO batch", "MAIL FROM:<batch@example.com>", "RCPT TO:<a@example.net>", "DATA"):
    wire.sendall(line.encode() + b"\\r\\n")
    reply = replies.readline()
    assert reply[0] in "23", reply
content = f"From: batch@example.com\\r\\nSubject: {subject}\\r\\n\\r\\nx\\r\\n.\\r\\n"
wire.sendall(content.encode())
print(replies.readline(), end="")
"""

COBOL = """\
       IDENTIFICATION DIVISION.
       PROGRAM-ID. REPORTER.
       ENVIRONMENT DIVISION.
       INPUT-OUTPUT SECTION.
       FILE-CONTROL.
           SELECT LETTER ASSIGN TO "/tmp/letter"
               ORGANIZATION IS LINE SEQUENTIAL.
       DATA DIVISION.
       FILE SECTION.
       FD LETTER.
       01 LETTER-LINE PIC X(80).
       PROCEDURE DIVISION.
           OPEN OUTPUT LETTER
           MOVE "From: batch@example.com" TO LETTER-LINE
           WRITE LETTER-LINE
           MOVE "To: a@example.net" TO LETTER-LINE
           WRITE LETTER-LINE
           MOVE "Subject: end of day" TO LETTER-LINE
           WRITE LETTER-LINE
           MOVE SPACES TO LETTER-LINE
           WRITE LETTER-LINE
           MOVE "RECORDS READ     0000142" TO LETTER-LINE
           WRITE LETTER-LINE
           CLOSE LETTER
           CALL "SYSTEM" USING "/usr/sbin/sendmail -t -oi < /tmp/letter"
           IF RETURN-CODE NOT = 0
               STOP RUN RETURNING 1
           END-IF
           STOP RUN.
"""


def raw(site: Site, subject: str, host: str = "127.0.0.1", port: int = 25) -> str:
    """Send a message as a program does that speaks SMTP by hand; return the last reply."""
    site.machine.write("/srv/raw.py", RAW)
    return site.machine.run(f"python3 /srv/raw.py '{subject}' {host} {port}").stdout


def package_of(site: Site) -> str:
    """Build a Debian package on the machine; return where it lies."""
    hurry = "DPKG_DEB_COMPRESSOR_LEVEL=0"
    done = site.machine.run(f"{hurry} /srv/franker/packaging/deb {site.wheel}", timeout=300)
    return done.stdout.strip()


class Load:
    """Four programs that hand mail in without rest, until `end`; two of them by ::1."""

    def __init__(self, site: Site) -> None:
        self._site = site
        run = uuid.uuid4().hex
        kept, end = f"/srv/load.{run}.kept", f"/srv/load.{run}.end"
        self._kept, self._end = site.folder / kept.lstrip("/"), end
        site.machine.write("/srv/load.py", _LOAD.read_text())
        site.machine.write(kept, "")
        self._process = subprocess.Popen(
            site.machine.command(f"exec python3 /srv/load.py {run} {kept} {end}"),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        going, self._pid = self._process.stdout.readline().split()
        assert going == "going"
        with self._stopped_on_failure():
            self._until_each_goes_on()

    def through(self, command: str, timeout: float = 300.0) -> int:
        """Run `command`; return how much was kept meanwhile, once each program has gone on."""
        before = len(self.kept())
        with self._stopped_on_failure():
            self._site.machine.run(command, timeout=timeout)
            meanwhile = len(self.kept()) - before
            self._until_each_goes_on()
        return meanwhile

    def kept(self) -> list[str]:
        """Return the subject of each message of which its program has heard 250 by now."""
        return [line.partition(" ")[2] for line in self._lines()]

    def end(self) -> "Outcome":
        """Let every program finish its message; fail if one found no Franker to talk to."""
        self._site.machine.run(f"touch {self._end}")
        with self._stopped_on_failure():
            said, _ = self._process.communicate(timeout=2 * ANSWER_S)
        assert self._process.returncode == 0
        counts: dict[str, int] = json.loads(said)
        later = {what: n for what, n in counts.items() if what.startswith("later: ")}
        broken = {what: n for what, n in counts.items() if what not in later}
        assert broken == {}, f"{broken}, and {later}"
        return Outcome(sum(later.values()), self.kept())

    @contextmanager
    def _stopped_on_failure(self) -> Iterator[None]:
        """End all programs when something fails, or the machine could not be shut down."""
        try:
            yield
        except BaseException as error:
            self._site.machine.run(f"kill {self._pid}", check=False)
            said, _ = self._process.communicate(timeout=ANSWER_S)
            error.add_note(f"how connections failed: {said}")
            raise

    def _lines(self) -> list[str]:
        text = self._kept.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def _until_each_goes_on(self) -> None:
        """Wait until each has kept two more: of the second, all was done from now on."""
        before = self._by_program()

        def all_go_on() -> bool:
            assert self._process.poll() is None
            now = self._by_program()
            return all(now[number] >= before[number] + 2 for number in _PROGRAMS)

        wait_for(all_go_on, 2 * ANSWER_S, "all programs to go on", 0.1)

    def _by_program(self) -> Counter[str]:
        return Counter(line.partition(" ")[0] for line in self._lines())


@dataclass(frozen=True)
class Outcome:
    """How often programs were told to try again later, and the subjects of what was kept."""

    again: int
    kept: list[str]

    def figure(self, what: str, *meanwhile: int) -> str:
        """Return it as a line to be shown."""
        during = ", ".join(map(str, meanwhile))
        return f"{what}: {len(self.kept)} kept ({during} meanwhile), {self.again} told to try later"


def files_of(folder: Path) -> set[str]:
    """Return every path below `folder` that an installation may have made or left."""
    passing = ("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/log", "var/cache", "srv", "root")
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        here = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if str(here / name) not in passing]
        found.update(str(here / name) for name in (*folders, *files))
    return found
