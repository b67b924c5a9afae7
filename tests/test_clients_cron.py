"""What Debian's cron sends, handed in by msmtp in sendmail's place, against the real processes."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import body_text, parsed, program, run_client
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.office import Office
from tests.support.redis_server import new_data_dir, remove_data_dir

POSTMASTER = "ops@example.com"

MESSAGE = b"""From: root (Cron Daemon)
To: root
Subject: Cron <root@bookworm> test -x /usr/sbin/anacron || ( cd / && run-parts /etc/cron.daily )
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
X-Cron-Env: <SHELL=/bin/sh>
X-Cron-Env: <HOME=/root>
X-Cron-Env: <PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin>
X-Cron-Env: <LOGNAME=root>

/etc/cron.daily/logrotate:
error: L\xc3\xb6schen nicht m\xc3\xb6glich
"""


@pytest.fixture(scope="module")
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture(scope="module")
def host(far_end: BackgroundFarEnd) -> Iterator[Office]:
    folder = new_data_dir()
    local = {"postmaster": POSTMASTER, "from": "servers@example.com"}
    office = Office(folder, far_end, {"local": local})
    yield office
    office.close()
    remove_data_dir(folder)


def as_cron(port: int, message: bytes, home: Path) -> str:
    """Hand a message in with the options that cron gives to sendmail."""
    (home / ".msmtprc").write_text(
        f"account default\nhost 127.0.0.1\nport {port}\nfrom root\nauth off\ntls off\n"
    )
    command = [program("msmtp"), "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"]
    return run_client(command, stdin=message, home=home)


@pytest.mark.parametrize(
    "sender", [b"root (Cron Daemon)", b"root (Cron Daemon) <root>", b'"(Cron Daemon)" <root>']
)
def test_it_arrives_at_the_postmaster_with_a_sender_that_postmark_takes(
    host: Office, far_end: BackgroundFarEnd, tmp_path: Path, sender: bytes
) -> None:
    before = len(host.taken_for(POSTMASTER))
    as_cron(host.smtp_port, MESSAGE.replace(b"root (Cron Daemon)", sender), tmp_path)
    host.wait_idle()
    arrived = host.taken_for(POSTMASTER)[before:]
    assert len(arrived) == 1
    message = parsed(arrived[0].content)
    mailbox = message["From"].addresses[0]
    assert mailbox.addr_spec == "servers@example.com"
    assert "Cron Daemon" in mailbox.display_name
    assert f"on {socket.gethostname().partition('.')[0]}" in mailbox.display_name
    assert message["To"].addresses[0].addr_spec == POSTMASTER
    assert "root" in message["X-Original-From"]
    assert message["Subject"].startswith("Cron <root@bookworm> test -x /usr/sbin/anacron")
    assert message.get_all("X-Cron-Env")[1] == "<HOME=/root>"
    assert arrived[0].content.isascii()
    assert body_text(arrived[0].content).endswith("error: Löschen nicht möglich\n")
    assert far_end.messages[-1].reverse_path == "servers@example.com"


def test_with_nothing_configured_the_refusal_names_the_key_to_set(
    office: Office, tmp_path: Path
) -> None:
    (tmp_path / ".msmtprc").write_text(
        f"account default\nhost 127.0.0.1\nport {office.smtp_port}\nfrom root\nauth off\ntls off\n"
    )
    done = subprocess.run(
        [program("msmtp"), "-i", "-FCronDaemon", "root"],
        input=MESSAGE,
        env={"HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"550 5.1.1" in done.stderr
    assert b"local.postmaster" in done.stderr
