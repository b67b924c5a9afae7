"""`franker-sendmail` called in odd ways: ends closed, no account, no room, at a terminal."""

import os
import pty
import subprocess
from collections.abc import Mapping

import pytest

from tests.sendmail.host import a_message, needs_users
from tests.support.office import Office
from tests.support.sendmail import Sendmail

pytestmark = needs_users

NO_ACCOUNT = 54321


def by_shell(
    sendmail: Sendmail, line: str, message: bytes = b"", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `line`, in which "$0" is the program, in a shell."""
    return subprocess.run(
        ["/bin/sh", "-c", line, *sendmail.command()],
        input=message,
        capture_output=True,
        env=sendmail.environ(environ),
        timeout=60,
        check=False,
        cwd="/",
    )


def test_with_its_input_closed_there_is_nothing_to_send(sendmail: Sendmail) -> None:
    done = by_shell(sendmail, '"$0" a@b.example <&-')
    assert done.returncode == 66
    assert b"cannot be read" in done.stderr
    assert sendmail.dropped() == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_with_its_outputs_closed_the_message_goes_whole(
    host: Office, sendmail: Sendmail, closed: str
) -> None:
    to = f"closed{len(closed)}@example.net"
    done = by_shell(sendmail, f'"$0" -v -N odd {to} {closed}', a_message(to, "whole"))
    assert done.returncode == 0
    assert host.the_one_for(to).content.endswith(b"\r\n\r\nwhole\r\n")


def test_mailq_with_its_output_closed_is_no_defect(sendmail: Sendmail) -> None:
    something = sendmail.drop / ("0" * 32)  # so that there is something to say
    something.touch()
    try:
        done = by_shell(sendmail, '"$0" -bp >&-')
    finally:
        something.unlink()
    assert b"defect" not in done.stderr


@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "tr_TR.ISO-8859-9", "LANG": "tr_TR.UTF-8"},
        {"HOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"},
    ],
)
def test_the_environment_changes_nothing(
    host: Office, sendmail: Sendmail, environ: dict[str, str]
) -> None:
    to = f"environ{len(environ)}@example.net"
    message = "Subject: İı\n\nİ\n".encode()
    arguments = ("-F", "Ilgın", "-f", "app@example.com", to)
    done = sendmail.run(*arguments, stdin=message, environ=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    content = host.the_one_for(to).content
    assert b"From: =?utf-8?" in content
    assert content.endswith(b"=C4=B0\r\n")


def test_a_user_without_an_account_sends_by_his_number(host: Office, sendmail: Sendmail) -> None:
    sendmail.send("nobody-knows@example.net", message=b"Subject: x\n\nx\n", user=NO_ACCOUNT)
    content = host.the_one_for("nobody-knows@example.net").content
    assert f"uid{NO_ACCOUNT}".encode() in content


def test_nul_octets_do_not_cut_the_message(host: Office, sendmail: Sendmail) -> None:
    sendmail.send("nul@example.net", message=a_message("nul@example.net", "a\0b"))
    assert host.the_one_for("nul@example.net").content.endswith(b"\r\n\r\nab\r\n")


def test_a_message_is_typed_at_a_terminal_and_ended_by_a_dot(
    host: Office, sendmail: Sendmail
) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            sendmail.command("typed@example.net"), stdin=theirs, env=sendmail.environ(), cwd="/"
        ) as typed:
            os.write(ours, a_message("typed@example.net") + b".\n")
            assert typed.wait(60) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert host.the_one_for("typed@example.net").content.endswith(b"\r\n\r\ntext\r\n")


def test_without_room_in_the_drop_folder_nothing_is_left_there_and_the_caller_is_told(
    sendmail: Sendmail,
) -> None:
    sendmail.listens(["127.0.0.1:1"])
    before = sorted(each.name for each in sendmail.drop.iterdir())
    message = a_message("room@example.net", "x" * 100_000)
    done = by_shell(sendmail, 'ulimit -f 8; "$0" room@example.net', message)
    assert done.returncode == 75
    assert b"not kept" in done.stderr
    assert b"File too large" in done.stderr
    assert sorted(each.name for each in sendmail.drop.iterdir()) == before
