"""`franker-sendmail` as users run it: a program of its own, under any user, timed."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.processes import ROOT

NOBODY = 65534
_QUICK = """
import sys
sys.path.insert(0, {root!r})
from proxy.sendmail import quick
quick.write({program!r})
"""


@functools.cache
def python_for_everybody() -> str:
    """Return an interpreter that an ordinary user can start: ours may lie in somebody's home."""
    candidates = [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"]
    ask = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in candidates:
        with contextlib.suppress(OSError):
            user = NOBODY if os.geteuid() == 0 else None
            command = [python, "-ISc", ask]
            if not subprocess.run(command, user=user, check=False, cwd="/").returncode:
                return python
    return ""


class Sendmail:
    """The program in `folder`, which everybody must be able to enter; it uses the folder `drop`.

    `python` runs it; as a rule one that everybody can start.
    """

    def __init__(self, folder: Path, drop: Path, python: str = "") -> None:
        self.drop = drop
        self.folder = folder / "bin"
        shutil.copytree(
            ROOT / "proxy/sendmail",
            self.folder / "proxy/sendmail",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (self.folder / "proxy/__init__.py").touch()
        python = python or python_for_everybody() or sys.executable
        program = str(self.folder / "franker-sendmail")
        write = _QUICK.format(root=str(self.folder), program=program)
        # As an installation does: compiled beforehand, since users may not write there.
        subprocess.run([python, "-m", "compileall", "-q", str(self.folder)], check=True)
        subprocess.run([python, "-ISc", write], check=True)
        for name in ("sendmail", "mailq", "newaliases"):
            (self.folder / name).symlink_to(program)

    def command(self, *arguments: str, name: str = "sendmail") -> list[str]:
        """Return the command line."""
        return [str(self.folder / name), *arguments]

    def environ(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment it is given."""
        return {"FRANKER_DROP__FOLDER": str(self.drop), "PATH": "/usr/bin:/bin", **(more or {})}

    def run(
        self,
        *arguments: str,
        stdin: bytes | int = b"",
        user: int | None = None,
        name: str = "sendmail",
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; `user` other than None is whose process it is."""
        who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        given = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            self.command(*arguments, name=name),
            **given,
            **who,
            capture_output=True,
            env=self.environ(environ),
            timeout=60,
            check=False,
            cwd="/",
        )

    def send(self, *arguments: str, message: bytes, user: int | None = None) -> None:
        """Hand a message in; fail unless it is kept and nothing said."""
        done = self.run(*arguments, stdin=message, user=user)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def dropped(self) -> list[str]:
        """Return the names of the letters in the drop folder."""
        return sorted(each.name for each in self.drop.iterdir() if len(each.name) == 32)

    def listens(self, addresses: Sequence[str]) -> None:
        """Have sendmail believe that the proxy listens there."""
        new = self.drop / ".listening.test"
        new.write_text("".join(f"{one}\n" for one in addresses))
        new.replace(self.drop / ".listening")


class BrokenWire:
    """A wire to the proxy on `port` that breaks when either end has said `word`, at that moment.

    What holds `word` is not passed on, unless `late`; `then` is called before it breaks.
    """

    def __init__(
        self,
        port: int,
        word: bytes,
        then: Callable[[], object] = lambda: None,
        *,
        late: bool = False,
    ) -> None:
        self._far_port = port
        self._word = word
        self._then = then
        self._late = late
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.broken = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> "BrokenWire":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._far_port))
            self._sockets += (near, far)
            for ends in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=ends, daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        """Carry octets from `source` to `target` until the word comes."""
        said = b""
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                said = said[-100:] + octets
                if self._word in said:
                    if self._late:
                        target.sendall(octets)
                    self._then()
                    self.broken.set()
                    break
                target.sendall(octets)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
