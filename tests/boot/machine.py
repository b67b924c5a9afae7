"""A booted Debian: its folder, its own network with nothing but loopback, its processes."""

import contextlib
import ctypes
import signal
import subprocess
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.boot.groups import own_groups
from tests.support.waiting import wait_for

_CLONE_NEWNET = 0x40000000
_BOOT_S = 180.0
_STEP_S = 0.2  # each question starts processes


class Machine:
    """One Debian in `folder`. Its network outlives reboots, so that a far end in it does, too."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self.name = f"franker-{uuid.uuid4().hex[:8]}"
        self._log = log
        self._groups = ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)

    def close(self) -> None:
        """Power it off and forget its network."""
        try:
            self.power_off()
        finally:
            subprocess.run(["ip", "netns", "delete", self.name], check=True)

    def enter_network(self) -> None:
        """Move the calling thread into this machine's network, for good."""
        with Path(f"/run/netns/{self.name}").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def boot(self) -> None:
        """Boot, and wait until all services are up."""
        groups = self._groups.enter_context(own_groups())
        with self._log.open("ab") as log:
            self._nspawn = subprocess.Popen(
                groups.command(
                    *("systemd-nspawn", "--quiet", f"--directory={self.folder}", "--boot"),
                    *("--register=no", "--keep-unit", "--console=pipe", f"--machine={self.name}"),
                    "--kill-signal=SIGRTMIN+4",
                    f"--network-namespace-path=/run/netns/{self.name}",
                    *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self._find_leader, _BOOT_S, "the first process of the machine", _STEP_S)
        wait_for(
            lambda: self.tell("systemctl is-system-running") in ("running", "degraded"),
            _BOOT_S,
            "a machine that has booted",
            _STEP_S,
        )

    def _find_leader(self) -> bool:
        """Find the machine's systemd, which there is once the folder has become its root."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended: {self._log.read_text()[-3000:]}")
        own = Path("/proc/self/ns/pid").readlink()
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):  # a helper of systemd-nspawn's that has ended
                other = Path(f"/proc/{pid}/ns/pid").readlink() != own
                if other and Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    self._leader = int(pid)
                    return True
        return False

    def power_off(self) -> None:
        """Shut down in order, and wait for the end."""
        if self._nspawn is None:
            return
        if self._nspawn.poll() is None:
            self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(_BOOT_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
            raise
        finally:
            self._nspawn, self._leader = None, 0
            self._groups.close()

    def reboot(self) -> None:
        """Shut down in order and boot again."""
        self.power_off()
        self.boot()

    def run(
        self,
        command: str,
        *,
        user: str = "root",
        input: bytes | None = None,  # noqa: A002 - as subprocess.run has it
        timeout: float = 300.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` by its shell, as `user`; fail with what it said when it fails."""
        done = subprocess.run(
            self.command(command, user=user),
            input=None if input is None else input.decode("latin-1"),
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"[-6000:]
            )
        return done

    def command(self, command: str, *, user: str = "root") -> list[str]:
        """Return what runs `command` in the machine, when run on this host."""
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        clean += ["LANG=C.UTF-8", "HOME=/root", "TERM=dumb"]
        inside = ["/bin/sh", "-c", command]
        if user != "root":
            inside = ["runuser", "-u", user, "--", *inside]
        return ["nsenter", "--target", str(self._leader), "--all", *clean, *inside]

    def tell(self, command: str) -> str:
        """Return what `command` prints, in one piece without the last line's end."""
        try:
            return self.run(command, check=False, timeout=60).stdout.strip()
        except (subprocess.TimeoutExpired, OSError):
            return ""

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine."""
        place = self.folder / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        place.chmod(mode)

    def until(self, command: str, timeout: float = 60.0) -> None:
        """Wait until `command` succeeds in the machine."""
        wait_for(lambda: self.run(command, check=False).returncode == 0, timeout, command, _STEP_S)

    def aside(self, work: Callable[[], str]) -> "Future[str]":
        """Begin `work` beside what the test does; the future holds what it returns."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(work)
        pool.shutdown(wait=False)
        return future
