"""Franker as a service of a Debian that has booted: installed, and used by old programs."""

import textwrap

import pytest

from tests.boot.site import Site

pytestmark = [pytest.mark.boot, pytest.mark.timeout(600)]

RAW = textwrap.dedent("""\
    import socket, sys
    subject, host = sys.argv[1], sys.argv[2]
    wire = socket.create_connection((host, 25), 30)
    replies = wire.makefile("r")
    assert replies.readline().startswith("220 ")
    for line in ("HELO batch", "MAIL FROM:<batch@example.com>", "RCPT TO:<a@example.net>", "DATA"):
        wire.sendall(line.encode() + b"\\r\\n")
        reply = replies.readline()
        assert reply[0] in "23", reply
    content = f"From: batch@example.com\\r\\nSubject: {subject}\\r\\n\\r\\nx\\r\\n.\\r\\n"
    wire.sendall(content.encode())
    print(replies.readline(), end="")
    """)


def raw(site: Site, subject: str, host: str = "127.0.0.1") -> str:
    site.machine.write("/srv/raw.py", RAW)
    return site.machine.run(f"python3 /srv/raw.py '{subject}' {host}").stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_raw_dialog_to_port_25_arrives(installed: Site, host: str) -> None:
    assert raw(installed, f"raw by {host}", host).startswith("250 2.0.0 Ok: queued as ")
    assert installed.arrived(f"raw by {host}").recipients == ("a@example.net",)


def test_check_run_by_root_finds_the_token_that_the_services_were_given(installed: Site) -> None:
    said = installed.machine.run("franker check", check=False).stdout
    assert "login by credential secret_postmark accepted" in said


def test_mail_that_is_queued_at_a_reboot_arrives_after_it(installed: Site) -> None:
    machine = installed.machine
    machine.run("systemctl stop franker-worker@1")
    raw(installed, "across the reboot")
    machine.reboot()
    installed.arrived("across the reboot")
