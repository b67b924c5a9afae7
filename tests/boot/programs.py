"""What old programs do, to be run on the machine itself."""

import json
import os
import subprocess
import uuid
from pathlib import Path

from tests.boot.site import Site

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

LOAD = """\
import json, os, pathlib, smtplib, sys, threading, traceback
count = {"refused": 0, "again": 0, "kept": []}
end = pathlib.Path("/run/load.end")

def fault(of):
    traceback.print_exception(of.exc_type, of.exc_value, of.exc_traceback)
    os._exit(1)

threading.excepthook = fault

def client(number):
    sent = 0
    while not end.exists():
        sent += 1
        name = f"load {sys.argv[1]} {number}-{sent}."
        message = f"From: a@example.com\\r\\nSubject: {name}\\r\\n\\r\\nx\\r\\n"
        while True:  # as a program that keeps its mail until it hears 250
            try:
                proxy = smtplib.SMTP("127.0.0.1", 25, timeout=60)
                proxy.sendmail("a@example.com", ["load@example.net"], message)
                proxy.close()
                count["kept"].append(name)
                break
            except ConnectionRefusedError:
                count["refused"] += 1
            except (smtplib.SMTPException, OSError) as error:
                if getattr(error, "smtp_code", 421) not in (421, 451):
                    raise
                count["again"] += 1

threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
print("going", flush=True)
for thread in threads:
    thread.join()
print(json.dumps(count))
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
    """Four programs that hand mail in without rest, until `end`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        site.machine.write("/srv/load.py", LOAD)
        self._process = subprocess.Popen(
            site.machine.command(
                f"rm -f /run/load.end; exec python3 /srv/load.py {uuid.uuid4().hex}"
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "going\n"

    def end(self) -> "Outcome":
        """Let every program finish its message, and return what they saw."""
        self._site.machine.run("touch /run/load.end")
        said, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        seen = json.loads(said)
        return Outcome(seen["refused"], seen["again"], seen["kept"])


class Outcome:
    """How many connections were refused, how many programs told to try again, what was kept."""

    def __init__(self, refused: int, again: int, kept: list[str]) -> None:
        self.refused = refused
        self.again = again
        self.kept = kept


def files_of(folder: Path) -> set[str]:
    """Return every path below `folder` that an installation may have made or left."""
    passing = ("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/log", "var/cache", "srv", "root")
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        here = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if str(here / name) not in passing]
        found.update(str(here / name) for name in (*folders, *files))
    return found
