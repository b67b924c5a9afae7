"""What `franker-sendmail` took and Franker refuses for good: a dead letter, and its owner told."""

import pwd

import pytest

from proxy.queue.job import decode_envelope
from tests.sendmail.host import (
    a_message,
    answering,
    dead_letter,
    needs_users,
    store,
)
from tests.support.far_end import BackgroundFarEnd
from tests.support.office import Office
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.sendmail import NOBODY, Sendmail
from tests.support.waiting import wait_for

pytestmark = needs_users


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
