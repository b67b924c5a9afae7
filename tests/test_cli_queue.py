"""The operator's commands on a real queue: mail that is sent, deferred, dead."""

import json
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import new_recipient
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.office import Office
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_for

SENDER = "app@example.com"


@pytest.fixture(scope="module")
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture(scope="module")
def desk(far_end: BackgroundFarEnd) -> Iterator[Office]:
    """An office whose mail may end badly: its queue is these tests' own."""
    folder = new_data_dir()
    office = Office(folder, far_end, {"retry": {"first": "10m"}})  # nothing goes by itself
    yield office
    office.close()
    remove_data_dir(folder)


def hand_in(desk: Office, *recipients: str) -> str:
    """Send a message to `recipients` and return its id."""
    text = f"From: {SENDER}\r\nTo: {recipients[0]}\r\nSubject: Trial\r\n\r\ntext\r\n"
    with smtplib.SMTP("127.0.0.1", desk.smtp_port) as client:
        client.ehlo()
        client.mail(SENDER)
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        code, reply = client.data(text.encode())
    assert code == 250
    return reply.decode().split()[-1]


def listed(desk: Office, *arguments: str) -> list[dict[str, Any]]:
    done = desk.installation.run("queue", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def entry_for(desk: Office, recipient: str, *arguments: str) -> dict[str, Any] | None:
    found = [one for one in listed(desk, *arguments) if recipient in one["recipients"]]
    assert len(found) <= 1
    return found[0] if found else None


def test_an_empty_queue_says_so(desk: Office) -> None:
    done = desk.installation.run("queue", "list", "--state", "held")
    assert done.stdout == "Nothing is kept.\n"


def test_a_dead_recipient_is_listed_with_the_words_of_the_reply_and_can_be_sent_again(
    desk: Office, far_end: BackgroundFarEnd
) -> None:
    good, bad = new_recipient(), new_recipient()
    fault = far_end.fail("rcpt", "550 5.1.1 Nobody of that name", address=bad)
    message_id = hand_in(desk, good, bad)
    wait_for(lambda: entry_for(desk, bad, "dead"), what="dead letter")
    shown = desk.installation.run("queue", "dead").stdout
    assert re.search(rf"(?m)^{message_id}-\d+  outbound  \d+s old  \d+ B  dead$", shown)
    assert f"    from {SENDER}\n    to {bad}: 550 5.1.1 Nobody of that name\n" in shown
    assert len(desk.taken_for(good)) == 1

    far_end.mend(fault)
    entry = entry_for(desk, bad, "dead")
    assert entry is not None
    done = desk.installation.run("queue", "retry", entry["id"])
    assert done.stdout == "1 retried\n"
    assert done.returncode == 0
    wait_for(lambda: desk.taken_for(bad), what="sent again")
    wait_for(lambda: entry_for(desk, bad, "list") is None, what="gone from the queue")
    assert len(desk.taken_for(bad)) == 1
    assert len(desk.taken_for(good)) == 1


def test_a_deferred_message_is_listed_with_its_reply_and_can_be_tried_now(
    desk: Office, far_end: BackgroundFarEnd
) -> None:
    to = new_recipient()
    far_end.fail("rcpt", "450 4.2.1 Mailbox busy", address=to, times=1)
    message_id = hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "list", "--state", "deferred"), what="deferred")
    shown = desk.installation.run("queue", "show", message_id).stdout
    assert "next try in" in shown
    assert f"to {to}: 450 4.2.1 Mailbox busy" in shown
    assert "  X-PM-Message-Stream: outbound\n" in shown
    assert "  Subject: Trial\n" in shown
    done = desk.installation.run("queue", "retry", "--deferred", "--stream", "outbound")
    assert done.returncode == 0
    wait_for(lambda: desk.taken_for(to), what="sent")


def test_the_whole_message_can_be_taken_out(desk: Office, far_end: BackgroundFarEnd) -> None:
    to = new_recipient()
    far_end.fail("rcpt", "550 5.1.1 No", address=to)
    message_id = hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "dead"), what="dead letter")
    shown = desk.installation.run("queue", "show", message_id, "--message").stdout
    assert "Subject: Trial\n" in shown.replace("\r\n", "\n")
    assert shown.replace("\r\n", "\n").endswith("\n\ntext\n")


def test_dead_letters_can_be_written_as_files(
    desk: Office, far_end: BackgroundFarEnd, tmp_path: Path
) -> None:
    to = new_recipient()
    far_end.fail("rcpt", "550 5.1.1 No", address=to)
    message_id = hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "dead"), what="dead letter")
    done = desk.installation.run("queue", "dead", "--export", str(tmp_path / "letters"), "--json")
    [path] = [path for each, path in json.loads(done.stdout).items() if each.startswith(message_id)]
    written = Path(path).read_bytes()
    assert f"X-Franker-Recipient: <{to}>; 550 5.1.1 No\r\n".encode() in written
    assert written.endswith(b"\r\n\r\ntext\r\n")
    assert entry_for(desk, to, "dead") is not None
    done = desk.installation.run("queue", "dead", "--export", str(tmp_path / "letters"))
    assert done.returncode == 0
    assert re.search(r"^\d+ written to ", done.stdout)
    assert len(list((tmp_path / "letters").iterdir())) == int(done.stdout.split()[0])


def test_a_dead_letter_goes_by_todays_rules_when_asked_to(
    desk: Office, far_end: BackgroundFarEnd
) -> None:
    to = new_recipient()
    fault = far_end.fail("rcpt", "550 5.1.1 No", address=to)
    hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "dead"), what="dead letter")
    entry = entry_for(desk, to, "dead")
    assert entry is not None
    far_end.mend(fault)
    desk.installation.environ["FRANKER_RULES"] = json.dumps(
        [{"name": "today", "sender": [SENDER], "tag": "anew"}]
    )
    try:
        done = desk.installation.run("queue", "retry", "--reroute", entry["id"])
    finally:
        del desk.installation.environ["FRANKER_RULES"]
    assert done.stdout == "1 retried\n", done.stderr
    wait_for(lambda: desk.taken_for(to), what="sent again")
    [arrived] = far_end.to(to)
    assert arrived.content.count(b"X-PM-Tag: anew\r\n") == 1
    assert arrived.content.count(b"X-PM-Metadata-franker-id") == 1
    assert arrived.content.count(b"Received:") == 1


def test_deferred_mail_is_not_rerouted(desk: Office) -> None:
    done = desk.installation.run("queue", "retry", "--reroute", "--deferred")
    assert done.returncode == 2
    assert "--reroute is for dead messages" in done.stderr


def test_deleting_all_that_died_asks_first_and_is_logged(
    desk: Office, far_end: BackgroundFarEnd
) -> None:
    to = new_recipient()
    far_end.fail("rcpt", "550 5.1.1 No", address=to)
    hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "dead"), what="dead letter")
    unsure = desk.installation.run("queue", "delete", "--dead", stdin="n\n")
    assert unsure.returncode == 1
    assert entry_for(desk, to, "dead") is not None
    done = desk.installation.run("queue", "delete", "--dead", "--yes")
    assert done.returncode == 0
    assert re.search(r"^\d+ deleted$", done.stdout.strip())
    pattern = re.compile(rf" discarded id=\S+ by=hand .*to={re.escape(to)}")
    wait_for(lambda: pattern.search(desk.program.log), what="the proxy's log has it")
    assert listed(desk, "dead") == []


@pytest.mark.parametrize("command", ["retry", "delete"])
def test_an_id_that_is_not_there_is_named_and_fails(desk: Office, command: str) -> None:
    done = desk.installation.run("queue", command, "01m7v00000000000000000000a")
    assert done.returncode == 1
    assert "01m7v00000000000000000000a: there is no such message" in done.stderr


def test_show_of_an_id_that_is_not_there_fails(desk: Office) -> None:
    done = desk.installation.run("queue", "show", "\x07x")
    assert done.returncode == 1
    assert "there is no such message" in done.stderr
    assert "?x: there is no such message" in done.stderr


def test_send_test_reports_that_it_was_sent(desk: Office) -> None:
    to = new_recipient()
    done = desk.installation.run("send-test", "--from", SENDER, "--to", to)
    assert re.fullmatch(r"kept as [0-9a-z]{26}\nsent\n", done.stdout), done.stderr
    assert done.returncode == 0
    assert len(desk.taken_for(to)) == 1


def test_send_test_reports_a_death_with_the_reply_and_fails(
    desk: Office, far_end: BackgroundFarEnd
) -> None:
    to = new_recipient()
    far_end.fail("rcpt", "550 5.1.1 Nobody", address=to)
    done = desk.installation.run("send-test", "--from", SENDER, "--to", to, "--json")
    answer = json.loads(done.stdout)
    assert (answer["outcome"], answer["detail"]) == ("dead", "550 5.1.1 Nobody")
    assert done.returncode == 1


def test_send_test_shows_the_refusal_of_the_listener(desk: Office) -> None:
    done = desk.installation.run("send-test", "--from", SENDER, "--to", "root")
    assert done.returncode == 1
    assert "refused at RCPT: 550" in done.stderr
    assert "local.postmaster" in done.stderr
