"""A Postfix of its own: configuration, queue and log in a folder; all it takes goes to a sink."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

SENDMAIL = "/usr/sbin/sendmail"
HOST = "host.invalid"

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/lib
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = {host}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
disable_dns_lookups = yes
alias_maps =
alias_database =
local_recipient_maps =
"""

_SERVICES = """
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def missing() -> str:
    """Return "" when Postfix's sendmail can be tried here, else why not."""
    if os.geteuid() != 0:
        return "Postfix can be started by root only"
    if shutil.which("postfix") is None or not Path(SENDMAIL).exists():
        return "Postfix is not installed"
    asked = subprocess.run([SENDMAIL, "-bz"], capture_output=True, text=True, check=False)
    if "unsupported: -bz" not in asked.stderr:
        return f"{SENDMAIL} is not Postfix's"
    return ""


class Postfix:
    """Runs in `folder`, which it makes; the system's own Postfix is not touched."""

    def __init__(self, folder: Path, sink: int) -> None:
        self._config = folder / "etc"
        for one in (folder, self._config, folder / "spool", folder / "lib"):
            one.mkdir(mode=0o755, parents=True, exist_ok=True)
            one.chmod(0o755)
        shutil.chown(folder / "lib", "postfix")
        asked = subprocess.run(
            ["postconf", "-d", "-h", "daemon_directory"], capture_output=True, text=True, check=True
        )
        main = _MAIN.format(folder=folder, daemons=asked.stdout.strip(), host=HOST, sink=sink)
        (self._config / "main.cf").write_text(main)
        (self._config / "master.cf").write_text(_SERVICES)
        (folder / "log").touch()
        self._pid_file = folder / "spool/pid/master.pid"

    def environ(self) -> dict[str, str]:
        """Return the environment with which its sendmail finds it."""
        return {"MAIL_CONFIG": str(self._config), "PATH": "/usr/sbin:/usr/bin:/bin"}

    def __enter__(self) -> Self:
        self._run("start")
        deadline = time.monotonic() + 20
        while not self._pid_file.exists():
            assert time.monotonic() < deadline, "Postfix did not start"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._run("stop")

    def _run(self, word: str) -> None:
        command = ["postfix", "-c", str(self._config), word]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
