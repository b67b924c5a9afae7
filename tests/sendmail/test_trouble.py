"""`franker-sendmail` while the proxy does not take the message: it is kept, and once."""

import contextlib
import os
import signal
import socket
import time

import pytest

from tests.sendmail.host import (
    a_message,
    answering,
    kill_proxy,
    needs_users,
    proxy_answers,
    stopped_proxy,
)
from tests.support.office import Office
from tests.support.processes import http_get
from tests.support.sendmail import NOBODY, BrokenWire, Sendmail
from tests.support.waiting import wait_for

pytestmark = needs_users


def test_mail_handed_in_while_nobody_listens_arrives_later_once(
    host: Office, sendmail: Sendmail
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody_there = f"127.0.0.1:{taken.getsockname()[1]}"
    sendmail.listens([nobody_there])
    for user in (None, NOBODY):
        to = f"later{user}@example.net"
        sendmail.send(to, message=a_message(to), user=user)
    assert host.the_one_for("laterNone@example.net")
    assert b"X-PM-Tag: by-nobody" in host.the_one_for("later65534@example.net").content


@pytest.mark.parametrize(
    "replies",
    [
        (b"421 4.3.2 too busy\r\n",),
        (b"554 5.7.1 no\r\n",),
        (b"220 x\r\n", b"451 4.3.0 later\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"452 4.3.1 full\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"451 4.3.0 later\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"550 5.1.1 no\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"451 4.3.0 later\r\n"),
        (b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"354 x\r\n", b"451 no\r\n"),
        (b"hello, this is no SMTP\r\n",),
        (b"\xff" * 100_000,),
        (b"220 x\r\n", b"250-x\r\n" * 1000),
    ],
)
def test_whatever_the_proxy_says_but_yes_the_mail_is_kept_and_goes(
    host: Office, sendmail: Sendmail, replies: tuple[bytes, ...]
) -> None:
    to = f"said{abs(hash(replies))}@example.net"
    with answering(*replies) as address:
        sendmail.listens([address])
        sendmail.send(to, message=a_message(to))
    host.the_one_for(to)


@pytest.mark.slow
def test_a_proxy_that_stands_still_is_waited_for_five_seconds(
    host: Office, sendmail: Sendmail
) -> None:
    with stopped_proxy(host):
        began = time.monotonic()
        sendmail.send("still@example.net", message=a_message("still@example.net"), user=NOBODY)
        assert 4.9 < time.monotonic() - began < 8
        assert len(sendmail.dropped()) == 1
    host.the_one_for("still@example.net")


def test_mail_whose_reply_was_lost_arrives_once(host: Office, sendmail: Sendmail) -> None:
    with BrokenWire(host.smtp_port, b"queued as") as wire:
        sendmail.listens([wire.address])
        sendmail.send("lost@example.net", message=a_message("lost@example.net"))
        assert wire.broken.is_set()
    wait_for(lambda: not sendmail.dropped(), 20, "the letter is taken")
    host.program.wait_for(" kept_before ")
    host.the_one_for("lost@example.net")


def test_mail_of_which_the_proxy_had_kept_a_copy_when_it_was_killed_arrives_once(
    host: Office, sendmail: Sendmail
) -> None:
    with BrokenWire(host.smtp_port, b"queued as", lambda: kill_proxy(host)) as wire:
        sendmail.listens([wire.address])
        sendmail.send("killed@example.net", message=a_message("killed@example.net"))
        assert wire.broken.is_set()
    wait_for(lambda: proxy_answers(host), 20, "another proxy is there")
    wait_for(lambda: not sendmail.dropped(), 20, "the letter is taken")
    host.wait_idle()
    assert len(host.taken_for("killed@example.net")) == 1


@pytest.mark.parametrize("late", [False, True])
def test_mail_whose_last_dot_met_a_proxy_being_killed_arrives_once(
    host: Office, sendmail: Sendmail, *, late: bool
) -> None:
    to = f"dot-{late}@example.net"
    wire = BrokenWire(host.smtp_port, b"\r\n.\r\n", lambda: kill_proxy(host), late=late)
    with wire:
        sendmail.listens([wire.address])
        sendmail.send(to, message=a_message(to))
        assert wire.broken.is_set()
    wait_for(lambda: proxy_answers(host), 20, "another proxy is there")
    wait_for(lambda: not sendmail.dropped(), 20, "the letter is taken")
    wait_for(lambda: host.taken_for(to), 20, "it arrived")
    assert len(host.taken_for(to)) == 1


@pytest.mark.slow
def test_mail_that_a_proxy_has_in_hand_when_it_is_stopped_arrives_once(
    host: Office, sendmail: Sendmail
) -> None:
    """It wakes up with the message whole, and with the letter in the folder."""
    to = "woken@example.net"
    pid = host.pid_of("proxy")

    class Stopping(BrokenWire):
        """Stops the proxy when it has said 354, so that the message lies in its socket."""

        def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while octets := source.recv(65536):
                    if octets.startswith(b"354 "):
                        os.kill(pid, signal.SIGSTOP)
                    target.sendall(octets)
                    if octets.endswith(b"\r\n.\r\n") or octets == b".\r\n":
                        self.broken.set()
                        source.shutdown(socket.SHUT_RDWR)
                        return

    with Stopping(host.smtp_port, b"") as stopping:
        try:
            sendmail.listens([stopping.address])
            sendmail.send(to, message=a_message(to))
            assert stopping.broken.is_set()
            assert len(sendmail.dropped()) == 1
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: not sendmail.dropped(), 20, "the letter is taken")
    host.program.wait_for(" kept_before ")
    host.the_one_for(to)


def test_sighup_has_the_folder_looked_at(host: Office, sendmail: Sendmail) -> None:
    with answering(b"451 later\r\n") as address:
        sendmail.listens([address])
        sendmail.send("hup@example.net", message=a_message("hup@example.net"))
    os.kill(host.pid_of("proxy"), signal.SIGHUP)
    host.the_one_for("hup@example.net")
    assert proxy_answers(host)


def test_the_number_of_letters_that_wait_is_a_metric(host: Office, sendmail: Sendmail) -> None:
    sendmail.listens([])
    _, text = http_get(f"127.0.0.1:{host.installation.http_port}", "/metrics")
    assert "franker_drop_messages 0.0" in text


@pytest.mark.slow
def test_a_proxy_that_never_answers_the_message_is_waited_for_twenty_seconds(
    host: Office, sendmail: Sendmail
) -> None:
    with answering(b"220 x\r\n", *[b"250 x\r\n"] * 3, b"354 x\r\n", b"") as address:
        sendmail.listens([address])
        began = time.monotonic()
        sendmail.send("never@example.net", message=a_message("never@example.net"))
        assert 19.9 < time.monotonic() - began < 25
    host.the_one_for("never@example.net")
