"""The locked file by which `franker run` says what is running (proxy/cli/running.py reads it).

Standard library only, as all of its parent process.
"""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

_SHARED = (
    "FRANKER_DATA_DIR",
    "FRANKER_REDIS__URL",
    "FRANKER_POSTMARK__TRANSACTIONAL_HOST",
    "FRANKER_POSTMARK__BROADCAST_HOST",
    "FRANKER_POSTMARK__PORTS",
    "FRANKER_POSTMARK__CA_FILE",
    "FRANKER_POSTMARK__API_URL",
    "FRANKER_STREAMS",
    "FRANKER_SANDBOX_TOKEN",
)
"""What a command must know to find the same store and the same far end. None is a secret: the
stand-in's token opens nothing else."""


class RunFile:
    """The file, locked for as long as this process lives."""

    def __init__(self, path: Path) -> None:
        """Lock `path`.

        Raises:
            BlockingIOError: another `franker run` holds it.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A command that looks whether anything runs holds it for a moment: try for a while.
        for _attempt in range(20):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.01)
        raise BlockingIOError

    def write(self, parts: dict[str, dict[str, str]]) -> None:
        """Replace the content; a reader sees an old or a new one, or none that parses."""
        environ = {key: value for key, value in os.environ.items() if key in _SHARED}
        text = json.dumps({"pid": os.getpid(), "environ": environ, "parts": parts}).encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))
