"""Four programs that hand mail in without rest; run on the machine itself, by its own Python.

    python3 load.py RUN KEPT END

Each goes on until the file END exists, and adds a line "CLIENT NAME" to KEPT for each message of
which it heard 250. At the end, what became of all connections is printed as JSON.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

HOSTS = ("127.0.0.1", "::1", "127.0.0.1", "::1")
PATIENCE_S = 60.0
PAUSE_S = 0.02  # so that what was kept has arrived soon after the end

counts: Counter[str] = Counter()
lock = threading.Lock()


class Failed(Exception):
    """The message was not taken; the text says in which of the ways that are counted."""


def converse(host: str, content: bytes) -> None:
    """Hand a message in; return when 250 was heard.

    Raises:
        Failed: it was not.
    """
    begun = time.monotonic()
    where = "connect"
    try:
        with socket.create_connection((host, 25), PATIENCE_S) as wire, wire.makefile("rb") as heard:
            where = "before the greeting"
            judge(heard.readline(), where, b"2")
            for where, line, good in (
                ("EHLO", b"EHLO batch\r\n", b"2"),
                ("MAIL", b"MAIL FROM:<a@example.com>\r\n", b"2"),
                ("RCPT", b"RCPT TO:<load@example.net>\r\n", b"2"),
                ("DATA", b"DATA\r\n", b"3"),
                ("message", content, b"2"),
            ):
                with contextlib.suppress(ConnectionError):  # why is still there to be read
                    wire.sendall(line)
                while (said := heard.readline())[3:4] == b"-":
                    pass
                judge(said, where, good)
    except ConnectionRefusedError as error:
        raise Failed("refused") from error
    except TimeoutError as error:
        waited = time.monotonic() - begun
        raise Failed(f"timed out: {where}, {waited:.0f} s") from error
    except ConnectionError as error:
        raise Failed(f"reset: {where}") from error


def judge(said: bytes, where: str, good: bytes) -> None:
    """Say how it failed where the reply is not `good`."""
    if not said.endswith(b"\n"):
        raise Failed(f"closed without a word: {where}")
    if not said.startswith(good):
        kind = "later" if said.startswith((b"421 ", b"451 ")) else "said no"
        raise Failed(f"{kind}: {where}: {said.decode().strip()}")


def client(number: int, run: str, kept: Path, end: Path) -> None:
    """Do what a program does that keeps its mail until it hears 250."""
    sent = 0
    while not end.exists():
        sent += 1
        name = f"load {run} {number}-{sent}."
        content = f"From: a@example.com\r\nSubject: {name}\r\n\r\nx\r\n.\r\n".encode()
        while True:
            try:
                converse(HOSTS[number], content)
                break
            except Failed as failed:
                with lock:
                    counts[str(failed)] += 1
                time.sleep(PAUSE_S)
        with lock, kept.open("a") as file:
            file.write(f"{number} {name}\n")
        time.sleep(PAUSE_S)


def give_up(of: threading.ExceptHookArgs) -> None:
    """End all of it when one of them has a fault."""
    traceback.print_exception(of.exc_type, of.exc_value, of.exc_traceback)
    os._exit(1)


def stopped() -> None:
    """End at once, but say what there was so far."""
    print(json.dumps(counts), flush=True)
    os._exit(1)


def main() -> None:
    """Run them all."""
    run, kept, end = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    threading.excepthook = give_up
    threads = [
        threading.Thread(target=client, args=(number, run, kept, end))
        for number in range(len(HOSTS))
    ]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped())
    print("going", os.getpid(), flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
