"""`franker-sendmail` against everything that `franker run` starts: what it takes arrives."""

import pytest

from tests.sendmail.host import (
    a_message,
    dead_letter,
    needs_users,
    store,
)
from tests.support.office import Office
from tests.support.sendmail import NOBODY, Sendmail
from tests.support.waiting import wait_for

pytestmark = needs_users


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
