"""Programs that speak SMTP by hand, as batch programs of old hosts do: lines end in LF alone."""

import socket
import subprocess
from pathlib import Path

from tests.support.clients import (
    CLIENTS,
    assert_arrived_as_sent,
    body_text,
    new_recipient,
    program,
    run_client,
)
from tests.support.office import Office
from tests.support.tap import Tap

SENDER = "batch@example.com"


def test_gnucobol_program(office: Office, tap: Tap, tmp_path: Path) -> None:
    to = new_recipient()
    compiler = program("cobc", "gnucobol3")
    mailer = tmp_path / "mailer"
    subprocess.run([compiler, "-x", "-o", mailer, CLIENTS / "MAILER.cob"], check=True, timeout=60)
    output = run_client([mailer, str(tap.port), SENDER, to], home=tmp_path)
    arrived = office.the_one_for(to)
    assert f"Ok: queued as {arrived.franker_id}" in output
    assert b"\r\n" not in tap.sessions[0]
    assert_arrived_as_sent(tap.content, arrived.content)
    assert body_text(arrived.content) == "RECORDS READ     0000142\nRECORDS REJECTED 0000003\n"


def test_raw_dialog_with_line_feeds_only(office: Office) -> None:
    to = new_recipient()
    body = "one\n..two\n.\n"
    dialog = f"HELO batch\nMAIL FROM:{SENDER}\nRCPT TO: <{to}>\nDATA\n"
    content = f"From: {SENDER}\nTo: {to}\nSubject: run\n\n"
    with socket.create_connection(("127.0.0.1", office.smtp_port), 10) as wire:
        replies = wire.makefile("r", newline="\r\n")
        assert replies.readline().startswith("220 ")
        for line in dialog.splitlines(keepends=True):
            wire.sendall(line.encode())
            assert replies.readline()[0] in "23"
        wire.sendall((content + body).encode())
        assert replies.readline().startswith("250 2.0.0 Ok: queued as ")
        wire.sendall(b"QUIT\n")
        assert replies.readline().startswith("221 ")
    arrived = office.the_one_for(to)
    assert body_text(arrived.content) == "one\n.two\n"
    assert b"\n" not in arrived.content.replace(b"\r\n", b"")


def test_after_one_crlf_a_lone_dot_between_line_feeds_ends_nothing(office: Office) -> None:
    to = new_recipient()
    smuggled = new_recipient()
    dialog = f"HELO batch\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{to}>\r\nDATA\r\n"
    inner = f"MAIL FROM:<a@example.com>\r\nRCPT TO:<{smuggled}>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n"
    content = f"From: {SENDER}\r\nTo: {to}\r\n\r\nfirst\n.\n{inner}.\r\n"
    with socket.create_connection(("127.0.0.1", office.smtp_port), 10) as wire:
        replies = wire.makefile("r", newline="\r\n")
        assert replies.readline().startswith("220 ")
        for line in dialog.splitlines(keepends=True):
            wire.sendall(line.encode())
            assert replies.readline()[0] in "23"
        wire.sendall(content.encode())
        assert replies.readline().startswith("250 ")
        wire.sendall(b"QUIT\r\n")
        assert replies.readline().startswith("221 ")
    assert b"RCPT TO" in office.the_one_for(to).content
    assert office.taken_for(smuggled) == []
