"""What `mailq` shows: the queue, to those who may see it, and what waits in the drop folder."""

import os
import sys

from proxy.sendmail.drop import is_letter
from proxy.sendmail.exits import EX_UNAVAILABLE
from proxy.sendmail.output import write
from proxy.sendmail.where import DATA_DIR


def show_queue(folder: str) -> int:
    """Become `franker queue list`; say so where this user may not see the queue."""
    uid = os.geteuid()
    try:
        owner = os.stat(folder).st_uid
    except OSError:
        owner = uid if os.access(f"{DATA_DIR}/redis.sock", os.W_OK) else 0
    if uid not in (0, owner) and not os.access(f"{DATA_DIR}/redis.sock", os.W_OK):
        write(2, "mailq: the queue is shown to root only: sudo franker queue list\n")
        return EX_UNAVAILABLE
    waiting = _waiting(folder)
    if waiting:
        noun = "message waits" if waiting == 1 else "messages wait"
        write(1, f"{waiting} {noun} in {folder} for the proxy to take.\n")
    program = os.path.join(os.path.dirname(sys.executable), "franker")
    try:
        os.execv(program, [program, "queue", "list"])  # noqa: S606 - no shell is wanted
    except OSError as error:
        write(2, f"mailq: {program}: {error.strerror}\n")
        return EX_UNAVAILABLE


def _waiting(folder: str) -> int:
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    return sum(map(is_letter, names))
