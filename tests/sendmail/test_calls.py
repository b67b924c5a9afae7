"""Exit codes of `franker-sendmail`, and its other names and modes."""

import socket
import sys
from pathlib import Path

import pytest

from tests.sendmail.host import (
    a_message,
    answering,
    needs_users,
    stopped_proxy,
)
from tests.support.office import Office
from tests.support.sendmail import NOBODY, Sendmail

pytestmark = needs_users


def test_where_neither_takes_it_the_caller_is_told(host: Office, sendmail: Sendmail) -> None:
    with answering(b"451 4.3.0 later\r\n") as address:
        sendmail.listens([address])
        nowhere = {"FRANKER_DROP__FOLDER": str(sendmail.drop / "nowhere")}
        done = sendmail.run("a@b.example", stdin=b"x\n", environ=nowhere)
    assert done.returncode == 75
    assert b"not kept" in done.stderr
    assert b"No such file or directory" in done.stderr
    assert host.smtp_port


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 64), (("-t",), 64), (("-z",), 64), (("-bd",), 64), (("-bi",), 0), (("-q",), 0)],
)
def test_exit_codes_of_wrong_usage(
    sendmail: Sendmail, arguments: tuple[str, ...], code: int
) -> None:
    assert sendmail.run(*arguments, stdin=b"Subject: x\n\n").returncode == code


def test_a_message_that_cannot_be_read_is_not_sent(sendmail: Sendmail) -> None:
    with Path("/dev/null").open("wb") as one_way:
        done = sendmail.run("a@b.example", stdin=one_way.fileno())
    assert done.returncode == 66
    assert b"cannot be read" in done.stderr


def test_a_message_without_end_is_not_sent(sendmail: Sendmail) -> None:
    with Path("/dev/zero").open("rb") as endless:
        done = sendmail.run("a@b.example", stdin=endless.fileno())
    assert done.returncode == 65


def test_a_message_that_grows_too_large_by_its_line_ends_is_not_sent(sendmail: Sendmail) -> None:
    """It has two octets a line when it comes, and three when it goes."""
    done = sendmail.run("a@b.example", stdin=b"Subject: x\n\n" + b"x\n" * 12_000_000)
    assert done.returncode == 65
    assert b"larger than 25000000 octets" in done.stderr
    assert sendmail.dropped() == []


def test_a_message_that_is_too_large_with_its_recipients_is_not_sent(sendmail: Sendmail) -> None:
    everybody = b",".join(b"a%d" % number for number in range(400_000))
    text = (b"x" * 900 + b"\n") * 24_200
    done = sendmail.run("-t", stdin=b"From: a@b.example\nTo: " + everybody + b"\n\n" + text)
    assert done.returncode == 65
    assert b"larger than 29000000 octets with its recipients" in done.stderr
    assert sendmail.dropped() == []


def test_help_names_every_option(sendmail: Sendmail) -> None:
    done = sendmail.run("--help")
    assert done.returncode == 0
    for option in ("-t", "-i", "-oi", "-f", "-F", "-r", "-bs", "-bp", "-B", "-N", "-V", "-v"):
        assert f"{option}".encode() in done.stdout


# Other names


def test_newaliases_says_when_aliases_are_read(sendmail: Sendmail) -> None:
    done = sendmail.run(name="newaliases")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"aliases" in done.stdout


def test_mailq_is_for_those_who_may_see_the_queue(sendmail: Sendmail) -> None:
    done = sendmail.run(name="mailq", user=NOBODY)
    assert done.returncode == 69
    assert b"sudo franker queue list" in done.stderr


def test_mailq_shows_root_the_queue_and_what_waits_in_the_folder(
    host: Office, place: Path, sendmail: Sendmail
) -> None:
    ours = Sendmail(place / "ours", sendmail.drop, sys.executable)
    environ = {"FRANKER_CONFIG": str(host.installation.config)}
    with answering(b"451 later\r\n") as address, stopped_proxy(host):
        sendmail.listens([address])
        sendmail.send("listed@example.net", message=a_message("listed@example.net"))
        for name in (".listening.abc", "new-abc", "no letter"):
            (sendmail.drop / name).touch()
        done = ours.run(name="mailq", environ=environ)
    for name in (".listening.abc", "new-abc", "no letter"):
        (sendmail.drop / name).unlink()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"1 message waits in ")
    host.the_one_for("listed@example.net")
    assert b"Nothing is kept." in ours.run("-bp", environ=environ).stdout


def test_bs_speaks_with_the_proxy(host: Office, sendmail: Sendmail) -> None:
    dialog = (
        b"EHLO x\r\nMAIL FROM:<app@example.com>\r\nRCPT TO:<bs@example.net>\r\nDATA\r\n"
        b"Subject: by -bs\r\n\r\ntext\r\n.\r\nQUIT\r\n"
    )
    done = sendmail.run("-bs", stdin=dialog, user=NOBODY)
    assert done.returncode == 0
    assert done.stdout.startswith(b"220 ")
    assert b"250 2.0.0 Ok: queued as" in done.stdout
    assert done.stdout.endswith(b"221 2.0.0 Bye\r\n")
    assert b"X-PM-Tag: by-nobody" in host.the_one_for("bs@example.net").content


def test_bs_says_so_when_nobody_listens(sendmail: Sendmail) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody_there = f"127.0.0.1:{taken.getsockname()[1]}"
    sendmail.listens([nobody_there])
    done = sendmail.run("-bs", stdin=b"QUIT\r\n")
    assert done.returncode == 69
    assert done.stdout.startswith(b"421 4.3.2 ")
