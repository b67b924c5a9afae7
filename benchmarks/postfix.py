"""Postfix as a null client beside it: own configuration, own queue, the same sink over TLS.

As kind to it as is fair: connections to the sink are kept and reused under TLS, as many of them as
Franker opens, no lookups of names, no content filters, no limits per client. What it guarantees is
the same: a message is on disk before its 250.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from benchmarks.far import Far
from benchmarks.processes import family, free_port
from benchmarks.scenarios import AS_SHIPPED, Setup

_READY_S = 20.0
_PATIENCE_S = 300.0

IN_WORDS = (
    "a null client; connections kept and reused under TLS, as many as Franker's (10);"
    " no lookups, no limits for a client; all else as shipped"
)
MAIN = """
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {log}
maillog_file_prefixes = {folder}
myhostname = bench.invalid
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
keep_only = check_client_access static:HOLD
smtp_tls_security_level = verify
smtp_tls_verify_cert_match = hostname
smtp_tls_CAfile = {ca_file}
smtp_tls_connection_reuse = yes
smtp_tls_session_cache_database = btree:${{data_directory}}/smtp_scache
smtp_connection_cache_destinations = 127.0.0.1
smtp_destination_concurrency_limit = {connections}
initial_destination_concurrency = {connections}
relay_destination_concurrency_limit = {connections}
alias_maps =
alias_database =
local_recipient_maps =
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd{options}
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
tlsproxy unix - - n - 0 tlsproxy
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
showq unix n - n - - showq
"""


def available() -> str:
    """Return "" when Postfix can be measured here, else why not."""
    if shutil.which("postfix") is None:
        return "Postfix is not installed"
    if os.geteuid() != 0:
        return "Postfix can be started by root only"
    return ""


class Postfix:
    """A running Postfix of its own that relays to `far`; the system's one is not touched.

    Of `setup` it knows the connections, and `relaying`: without it, mail goes to its hold queue.
    """

    name = "postfix"

    def __init__(self, folder: Path, far: Far, setup: Setup = AS_SHIPPED) -> None:
        self.ports: tuple[int, ...] = (free_port(),)
        self._folder = folder
        self._config = folder / "etc"
        queue, data = folder / "spool", folder / "lib"
        for one in (folder, self._config, queue, data):
            one.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.chown(data, "postfix")
        main = MAIN.format(
            queue=queue,
            data=data,
            daemons=_asked("daemon_directory"),
            log=folder / "log",
            folder=folder,
            sink=far.port,
            ca_file=far.ca_file,
            connections=setup.connections,
        )
        (self._config / "main.cf").write_text(main, encoding="utf-8")
        options = "" if setup.relaying else " -o smtpd_client_restrictions=$keep_only"
        master = _MASTER.format(port=self.ports[0], options=options)
        (self._config / "master.cf").write_text(master, encoding="utf-8")
        (folder / "log").touch()
        self._run("postfix", "start")
        deadline = time.monotonic() + _READY_S
        while not (pid := self._master()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Postfix did not start: see {folder / 'log'}")
            time.sleep(0.05)
        self._pid = pid

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [program, "-c", str(self._config), *words],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(words)}: {done.stderr.strip()}")

    def release(self) -> None:
        """Have all that is kept relayed; it takes a moment for each message to be released."""
        self._run("postsuper", "-H", "ALL")
        self._run("postqueue", "-f")

    def kept_octets(self) -> int:
        """Return 0: its mail is in no memory."""
        return 0

    def _master(self) -> int:
        try:
            text = (self._folder / "spool/pid/master.pid").read_text()
            pid = int(text)
            os.kill(pid, 0)
        except (OSError, ValueError):
            return 0
        return pid

    def processes(self) -> dict[int, str]:
        """Return pid and name of all its processes."""
        return family(self._pid)

    def close(self) -> None:
        """Stop it."""
        self._run("postfix", "stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _asked(parameter: str) -> str:
    done = subprocess.run(
        ["postconf", "-d", "-h", parameter], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def version() -> str:
    """Return what Postfix says it is."""
    return _asked("mail_version")
