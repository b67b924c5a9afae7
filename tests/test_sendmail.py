"""`franker-sendmail` against everything that `franker run` starts: what it takes arrives, once."""

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.queue.job import decode_envelope
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.office import Office
from tests.support.processes import http_get
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.sendmail import NOBODY, BrokenWire, Sendmail, python_for_everybody
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not python_for_everybody(),
    reason="mail of several users needs root, and a Python that all of them can start",
)

RULES = [
    {"name": "nobody's", "user": ["65534"], "tag": "by-nobody", "owner": "owner@example.com"},
    {"name": "no more", "recipient": ["refused@*"], "action": "reject"},
    {"name": "away", "recipient": ["discarded@*"], "action": "discard"},
]
SETTINGS = {
    "local": {"from": "servers@example.com", "aliases": {"daemon": "daemon@example.com"}},
    "notify": {"to": "ops@example.com", "from": "franker@example.com"},
    "listen": {"max_recipients": 3},
    "rules": RULES,
}


@pytest.fixture(scope="module")
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody can enter."""
    folder = new_data_dir()
    folder.chmod(0o755)
    yield folder
    remove_data_dir(folder)


@pytest.fixture(scope="module")
def host(far_end: BackgroundFarEnd, place: Path) -> Iterator[Office]:
    office = Office(place, far_end, {**SETTINGS, "drop": {"folder": str(place / "drop")}})
    yield office
    office.close()


@pytest.fixture(scope="module")
def program(place: Path) -> Sendmail:
    return Sendmail(place, place / "drop")


@pytest.fixture
def sendmail(host: Office, program: Sendmail) -> Iterator[Sendmail]:
    """The program, told where the host's proxy listens."""
    yield program
    program.listens([f"127.0.0.1:{host.smtp_port}"])
    wait_for(lambda: not program.dropped(), 30, "all letters are taken")


def kill_proxy(host: Office) -> None:
    os.kill(host.pid_of("proxy"), signal.SIGKILL)


@contextlib.contextmanager
def stopped_proxy(host: Office) -> Iterator[None]:
    pid = host.pid_of("proxy")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def store(host: Office) -> Iterator[Any]:
    """A client of the host's Redis."""
    path = str(host.installation.data_dir / "redis.sock")
    with contextlib.closing(redis.Redis(unix_socket_path=path)) as client:
        yield client


def proxy_answers(host: Office) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", host.smtp_port), timeout=5) as dialog,
    ):
        return dialog.recv(3) == b"220"
    return False


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """A server that gives these replies, one to each thing it hears, the first unasked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    with near:
                        for number, reply in enumerate(replies):
                            heard = near.recv(65536) if number else b""
                            while replies[number - 1].startswith(b"354") and heard[-3:] != b".\r\n":
                                heard += near.recv(65536)
                            near.sendall(reply)
                        while near.recv(65536):
                            pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def a_message(to: str, text: str = "text") -> bytes:
    return f"From: app@example.com\nTo: {to}\nSubject: hello\n\n{text}\n".encode()


# The usual way


@pytest.mark.parametrize("user", [None, NOBODY])
def test_a_message_of_any_user_arrives_once_and_by_the_rules_of_that_user(
    host: Office, sendmail: Sendmail, user: int | None
) -> None:
    to = f"usual{user}@example.net"
    sendmail.send(to, message=a_message(to), user=user)
    assert sendmail.dropped() == []
    arrived = host.the_one_for(to)
    assert (b"X-PM-Tag: by-nobody" in arrived.content) is (user == NOBODY)


def test_a_message_without_from_is_from_the_user_at_this_host(
    host: Office, sendmail: Sendmail
) -> None:
    sendmail.send("nofrom@example.net", message=b"Subject: x\n\ntext\n", user=NOBODY)
    content = host.the_one_for("nofrom@example.net").content
    assert b"<servers@example.com>" in content
    assert b"X-Original-From: nobody <nobody>" in content


def test_f_and_capital_f_make_the_from_that_is_missing(host: Office, sendmail: Sendmail) -> None:
    arguments = ("-f", "payroll@example.com", "-F", "Pay, Roll", "named@example.net")
    sendmail.send(*arguments, message=b"Subject: x\n\ntext\n")
    content = host.the_one_for("named@example.net").content
    assert b'From: "Pay, Roll" <payroll@example.com>' in content


def test_t_takes_recipients_from_the_header_and_bcc_out_of_it(
    host: Office, sendmail: Sendmail
) -> None:
    message = b"From: app@example.com\nTo: open@example.net\nBcc: hidden@example.net\n\ntext\n"
    sendmail.send("-t", message=message)
    arrived = host.the_one_for("hidden@example.net")
    assert set(arrived.recipients) == {"open@example.net", "hidden@example.net"}
    assert b"hidden" not in arrived.content


@pytest.mark.parametrize(
    ("name", "arguments", "text", "body"),
    [
        ("dot", (), b"one\n.\ntwo\n", b"one\r\n"),
        ("i", ("-i",), b"one\n.\ntwo\n", b"one\r\n.\r\ntwo\r\n"),
        ("dots", (), b"..\n.x\n", b"..\r\n.x\r\n"),
        ("crlf", (), b"one\r\ntwo\r\n", b"one\r\ntwo\r\n"),
        ("latin", ("-i",), b"caf\xe9\n", b"caf=C3=A9\r\n"),
        ("empty", (), b"", b"(no text)\r\n"),
        ("unended", (), b"one", b"one\r\n"),
    ],
)
def test_the_body_arrives_as_it_was_meant(
    host: Office,
    sendmail: Sendmail,
    name: str,
    arguments: tuple[str, ...],
    text: bytes,
    body: bytes,
) -> None:
    to = f"body-{name}@example.net"
    head = f"From: app@example.com\nTo: {to}\n\n".encode()
    sendmail.send(*arguments, to, message=head + text)
    arrived = host.the_one_for(to).content.partition(b"\r\n\r\n")[2]
    assert arrived.replace(b"=E9", b"=C3=A9") == body


def test_v_says_where_the_message_is(host: Office, sendmail: Sendmail) -> None:
    done = sendmail.run("-v", "said@example.net", stdin=a_message("said@example.net"))
    assert done.returncode == 0
    assert done.stdout.startswith(b"kept by Franker: 250 2.0.0 Ok: queued as ")
    host.the_one_for("said@example.net")


def test_n_never_tells_nobody(host: Office, sendmail: Sendmail) -> None:
    sendmail.send("-N", "never", "root", message=a_message("root"))
    letter = dead_letter(host, "root")
    assert "550 5.1.1" in letter["replies"]["root"]
    time_of_notices = [one for one in host.program.log.splitlines() if " told id=" in one]
    assert letter["id"] not in "".join(time_of_notices)
    host.installation.run("queue", "delete", letter["id"])


def test_what_the_proxy_has_kept_it_forgets_when_sendmail_has_heard(
    host: Office, sendmail: Sendmail
) -> None:
    with store(host) as redis:
        before = redis.zcard("franker:once")
        sendmail.send("heard@example.net", message=a_message("heard@example.net"))
        wait_for(lambda: redis.zcard("franker:once") == before, 10, "no mark is left")
    host.the_one_for("heard@example.net")


# While the proxy does not take it


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


# What is refused for good


def dead_letter(host: Office, recipient: str) -> dict[str, object]:
    found: list[dict[str, object]] = []

    def look() -> bool:
        listed = json.loads(host.installation.run("queue", "dead", "--json").stdout)
        found[:] = [one for one in listed if recipient in one["recipients"]]
        return bool(found)

    wait_for(look, 20, f"a dead letter to {recipient}")
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
def test_mail_that_is_refused_becomes_a_dead_letter_and_its_owner_hears_of_it(
    host: Office, sendmail: Sendmail
) -> None:
    message = b"From: app@example.com\nTo: root\nBcc: beside@example.net\n\nsee this\n"
    sendmail.send("-t", message=message, user=NOBODY)
    letter = dead_letter(host, "root")
    assert letter["recipients"] == ["root"]
    assert "local.postmaster" in letter["replies"]["root"]
    assert letter["rule"] == "nobody's"
    # The other recipient is none the worse for it.
    assert host.the_one_for("beside@example.net")
    shown = host.installation.run("queue", "show", letter["id"], "--message").stdout
    assert "see this" in shown
    assert "beside" not in shown
    wait_for(lambda: host.taken_for("owner@example.com"), 40, "the owner is told")
    assert letter["id"].encode() in host.taken_for("owner@example.com")[0].content
    host.installation.run("queue", "delete", letter["id"])


def test_a_rules_refusal_is_a_dead_letter_of_its_own_words(
    host: Office, sendmail: Sendmail
) -> None:
    sendmail.send("refused@example.net", message=a_message("refused@example.net"))
    letter = dead_letter(host, "refused@example.net")
    assert 'Refused by the rule "no more"' in letter["replies"]["refused@example.net"]
    host.installation.run("queue", "delete", letter["id"])


def test_what_a_rule_throws_away_leaves_the_folder(host: Office, sendmail: Sendmail) -> None:
    with answering(b"451 later\r\n") as address:
        sendmail.listens([address])
        sendmail.send("discarded@example.net", message=a_message("discarded@example.net"))
    wait_for(lambda: not sendmail.dropped(), 20, "the letter is taken")
    host.program.wait_for("discarded id=")


def test_a_dead_letter_goes_out_when_the_rules_have_changed(
    host: Office, sendmail: Sendmail
) -> None:
    sendmail.send("root", message=a_message("root"))
    letter = dead_letter(host, "root")
    still = host.installation.run("queue", "retry", str(letter["id"]))
    assert still.returncode == 1
    assert "today's rules would refuse it" in still.stderr
    environ = host.installation.environ
    environ["FRANKER_LOCAL__POSTMASTER"] = "retried@example.com"
    try:
        done = host.installation.run("queue", "retry", str(letter["id"]))
    finally:
        del environ["FRANKER_LOCAL__POSTMASTER"]
    assert done.returncode == 0, done.stderr
    assert b"hello" in host.the_one_for("retried@example.com").content


def test_a_dead_letter_that_another_tool_queues_again_is_left_dead(
    host: Office, sendmail: Sendmail
) -> None:
    sendmail.send("root", message=a_message("root", "another tool"))
    letter = str(dead_letter(host, "root")["id"])
    with store(host) as redis:
        # As `rq requeue` does, which knows nothing of rules.
        redis.zrem("rq:failed:franker-outbound", letter)
        redis.hset(f"rq:job:{letter}", "status", "queued")
        redis.rpush("rq:queue:franker-outbound", letter)
        redis.publish("franker:wake", "franker-outbound")
        wait_for(lambda: redis.zcard("rq:failed:franker-outbound") == 1, 10, "it is dead again")
    again = dead_letter(host, "root")
    assert "local.postmaster" in again["replies"]["root"]
    assert host.taken_for("root") == []
    host.installation.run("queue", "delete", again["id"])


def test_without_a_rules_owner_a_dead_letter_is_the_users_own(
    host: Office, sendmail: Sendmail
) -> None:
    message = a_message("refused@example.net")
    sendmail.send("refused@example.net", message=message, user=pwd.getpwnam("daemon").pw_uid)
    letter = str(dead_letter(host, "refused@example.net")["id"])
    with store(host) as redis:
        envelope = decode_envelope(redis.hget(f"rq:job:{letter}", "envelope"))
    assert envelope.owner == "daemon@example.com"
    host.installation.run("queue", "delete", letter)


def test_where_this_host_may_not_send_the_drop_folder_is_no_way_round(
    far_end: BackgroundFarEnd,
) -> None:
    folder = new_data_dir()
    folder.chmod(0o755)
    settings = {"drop": {"folder": str(folder / "drop")}, "listen": {"allow": ["10.0.0.0/8"]}}
    office = Office(folder, far_end, settings)
    try:
        Sendmail(folder, folder / "drop").send("x@y.example", message=a_message("x@y.example"))
        letter = dead_letter(office, "x@y.example")
        assert "554 5.7.1" in letter["replies"]["x@y.example"]
    finally:
        office.close()
        remove_data_dir(folder)


def test_a_message_that_is_too_large_is_a_dead_letter_with_all_of_it(
    host: Office, sendmail: Sendmail
) -> None:
    text = "x" * 70 + "\n"
    sendmail.send("large@example.net", message=a_message("large@example.net", text * 150_000))
    letter = dead_letter(host, "large@example.net")
    assert "552 5.3.4" in letter["replies"]["large@example.net"]
    assert letter["size"] > 10_000_000
    host.installation.run("queue", "delete", letter["id"])


def test_more_recipients_than_a_message_may_have_are_several_messages(
    host: Office, sendmail: Sendmail
) -> None:
    everybody = [f"many{number}@example.net" for number in range(8)]
    sendmail.send(*everybody, message=a_message("many@example.net"))
    for one in everybody:
        assert host.the_one_for(one)


# Exit codes


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
        done = ours.run(name="mailq", environ=environ)
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


# Speed


def test_from_start_to_end_it_takes_less_than_80_ms(host: Office, sendmail: Sendmail) -> None:
    taken: list[float] = []
    for number in range(20):
        message = a_message(f"fast{number}@example.net")
        began = time.perf_counter()
        sendmail.send(f"fast{number}@example.net", message=message)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.08, sorted(taken)
    host.wait_idle()


def test_it_needs_nothing_but_the_standard_library(sendmail: Sendmail) -> None:
    command = sendmail.command("-bi")
    shebang = Path(command[0]).read_text().splitlines()[0]
    assert shebang.endswith(" -IS")
    done = subprocess.run(
        [shebang[2:].split()[0], "-X", "importtime", "-IS", *command],
        capture_output=True,
        text=True,
        check=True,
        env=sendmail.environ(),
    )
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    slow = {"re", "socket", "pathlib", "subprocess", "email", "typing", "enum", "json", "tomllib"}
    assert imported & slow == set()


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
