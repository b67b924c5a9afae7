"""Mail for and from people of this host: cron and its like."""

import pytest

from proxy.mail.envelope import Client
from proxy.submission import Policy, check_sender, resolve_recipient
from tests.support.mail import LOCAL, accepted, envelope, field, fields, policy, refusal

CRON = """\
From: root (Cron Daemon) <root>
To: root
Subject: Cron <root@box> test -x /usr/sbin/anacron
MIME-Version: 1.0
Content-Type: text/plain; charset=US-ASCII
Content-Transfer-Encoding: 8bit
X-Cron-Env: <SHELL=/bin/sh>
X-Cron-Env: <HOME=/root>

run-parts failed
"""

NOT_ASCII = '553 5.6.7 Postmark takes no address whose mailbox is not ASCII: "j?rg@example.com"'


@pytest.mark.parametrize("own", ["localhost", "LOCALHOST", "box", "Box.Office.Example", "lan"])
def test_an_alias_to_a_name_of_this_host_is_followed_and_never_sent_to_postmark(own: str):
    aliases = {"www": [f"root@{own}"], "root": ["me@example.com"], "web": [f"nobody@{own}"]}
    given = policy(local={**LOCAL, "names": ["lan"], "aliases": aliases})
    assert resolve_recipient(given, "www") == ("me@example.com",)
    assert resolve_recipient(given, "web") == ("ops@example.com",)


def from_cron(given: Policy):
    return accepted(CRON, given, envelope("root", "root"))


def test_crons_message_goes_to_the_postmaster_with_a_from_that_postmark_takes():
    job = from_cron(policy(local=LOCAL)).job
    assert job.envelope.recipients == ("ops@example.com",)
    assert job.envelope.mail_from == "host@example.com"
    assert field(job.body, "From") == (
        '"root (Cron Daemon) on box.office.example" <host@example.com>'
    )
    assert field(job.body, "To") == "ops@example.com"
    assert field(job.body, "X-Original-From") == "root (Cron Daemon) <root>"
    assert fields(job.body, "Reply-To") == []
    assert field(job.body, "Subject") == "Cron <root@box> test -x /usr/sbin/anacron"
    assert job.body.endswith(b"\r\n\r\nrun-parts failed\r\n")


def test_what_from_was_is_kept_with_the_job():
    assert from_cron(policy(local=LOCAL)).job.envelope.replaced == {
        "From": "root (Cron Daemon) <root>"
    }


def test_the_older_form_of_crons_from_keeps_its_name():
    old = CRON.replace("root (Cron Daemon) <root>", "root (Cron Daemon)")
    job = accepted(old, policy(local=LOCAL), envelope("root", "root")).job
    assert field(job.body, "From") == '"Cron Daemon on box.office.example" <host@example.com>'


def test_with_nothing_configured_a_local_recipient_is_refused_and_the_key_named():
    answer = resolve_recipient(policy(), "root")
    assert str(answer) == (
        '550 5.1.1 "root" is a name of this host and nobody is named for its mail: set '
        "local.postmaster, or the name in local.aliases, in franker.toml"
    )


def test_with_only_a_postmaster_configured_a_local_from_is_refused_and_the_key_named():
    given = policy(local={"postmaster": "ops@example.com"})
    assert refusal(CRON, given, envelope("root", "root")) == (
        '550 5.7.1 The From address "root" is a name of this host, which Postmark does not '
        "accept: set local.from (or local.domain) in franker.toml"
    )


@pytest.mark.parametrize(
    "address",
    [
        "root",
        "root@localhost",
        "root@LOCALHOST.localdomain",
        "root@box",
        "root@Box.Office.Example",
        "root@mail.lan",
        "root@[127.0.0.1]",
        "root@localhost.",
    ],
)
def test_every_name_of_this_host_is_local(address):
    given = policy(local={"postmaster": "ops@example.com", "names": ["mail.lan"]})
    assert resolve_recipient(given, address) == ("ops@example.com",)


@pytest.mark.parametrize("address", ["root@example.com", "root@sub.box", "box@boxes.example"])
def test_other_names_are_not_local(address):
    assert resolve_recipient(policy(), address) == (address,)


def test_an_alias_goes_before_the_postmaster_and_case_does_not_matter():
    given = policy(
        local={
            "postmaster": "ops@example.com",
            "aliases": {"Backup": ["a@example.com", "b@example.com"], "www": "web@example.com"},
        }
    )
    assert resolve_recipient(given, "backup") == ("a@example.com", "b@example.com")
    assert resolve_recipient(given, "WWW@localhost") == ("web@example.com",)
    assert resolve_recipient(given, "other") == ("ops@example.com",)


ETC_ALIASES = """\
# See man 5 aliases for format
postmaster:    root
mailer-daemon: postmaster
nobody: /dev/null
support: "|/usr/bin/ticket --queue 1", :include:/etc/list
root:   admin@example.com,
        second@example.com
loop: pool
pool: loop
all: first, second
first: both
second: both
both: both@example.com
self: self
"quoted": q@example.com
broken line
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("root", ("admin@example.com", "second@example.com")),
        ("mailer-daemon", ("admin@example.com", "second@example.com")),
        ("quoted", ("q@example.com",)),
        ("nobody", ("ops@example.com",)),
        ("support", ("ops@example.com",)),
        ("loop", ("ops@example.com",)),
        ("all", ("both@example.com",)),
        ("self", ("ops@example.com",)),
        ("nowhere", ("ops@example.com",)),
    ],
)
def test_the_aliases_file_is_followed_and_only_its_addresses_count(name, expected):
    given = policy(local={"postmaster": "ops@example.com"}, aliases_text=ETC_ALIASES)
    assert resolve_recipient(given, name) == expected


def test_an_alias_in_the_configuration_counts_for_more_than_one_in_the_file():
    given = policy(local={"aliases": {"root": "me@example.com"}}, aliases_text=ETC_ALIASES)
    assert resolve_recipient(given, "postmaster") == ("me@example.com",)


def test_a_recipient_named_twice_gets_one_copy():
    given = policy(local=LOCAL)
    job = accepted(CRON, given, envelope("root", "root", "ops@example.com", "daemon")).job
    assert job.envelope.recipients == ("ops@example.com",)


def test_a_bare_sender_is_qualified_by_the_domain():
    given = policy(local={"postmaster": "ops@example.com", "domain": "example.com"})
    job = from_cron(given).job
    assert field(job.body, "From") == '"root (Cron Daemon)" <root@example.com>'
    assert job.envelope.mail_from == "root@example.com"
    assert fields(job.body, "X-Original-From") == []


def test_a_from_at_a_name_of_this_host_is_replaced_although_a_domain_is_set():
    given = policy(local={**LOCAL, "domain": "example.com"})
    job = accepted("From: App <app@box>\n\nx\n", given).job
    assert field(job.body, "From") == '"App on box.office.example" <host@example.com>'


def test_without_local_from_a_from_at_a_name_of_this_host_gets_the_domain():
    given = policy(local={"domain": "example.com"})
    assert field(accepted("From: app@localhost\n\nx\n", given).job.body, "From") == (
        "app@example.com"
    )


def test_a_from_without_a_name_is_named_after_its_mailbox():
    job = accepted("From: www-data@localhost\n\nx\n", policy(local=LOCAL)).job
    assert field(job.body, "From") == '"www-data on box.office.example" <host@example.com>'


def test_a_from_at_a_verified_domain_is_not_local_though_the_host_has_its_name():
    given = policy(host_names=("example.com",), postmark={"verified": ["example.com"]})
    assert field(accepted("From: shop@example.com\n\nx\n", given).job.body, "From") == (
        "shop@example.com"
    )


def test_the_name_on_host_is_that_of_the_client_where_it_came_from_another_host():
    of = envelope("root", "root", client=Client("10.0.0.7", "db1.office.example", "ESMTP"))
    job = accepted(CRON, policy(local=LOCAL), of).job
    assert "on db1.office.example" in field(job.body, "From")
    of = envelope("root", "root", client=Client("10.0.0.7", "db1", "ESMTP"))
    assert "on 10.0.0.7" in field(accepted(CRON, policy(local=LOCAL), of).job.body, "From")


def test_to_and_cc_show_where_the_mail_goes():
    given = policy(local={**LOCAL, "aliases": {"dev": ["a@example.com", "b@example.com"]}})
    content = "From: x@example.com\nTo: Developers <dev>, c@example.org\nCc: root@box\n\nx\n"
    job = accepted(content, given).job
    assert field(job.body, "To") == (
        "Developers <a@example.com>, Developers <b@example.com>, c@example.org"
    )
    assert field(job.body, "Cc") == "ops@example.com"


def test_local_names_in_the_header_that_nobody_is_named_for_go():
    content = "From: x@example.com\nTo: root\nCc: root\nSender: root\nReply-To: root\n\nx\n"
    job = accepted(content).job
    assert field(job.body, "To") == "undisclosed-recipients:;"
    for name in ("Cc", "Sender", "Reply-To"):
        assert fields(job.body, name) == []


def test_local_names_in_the_header_are_qualified_by_the_domain():
    content = "From: x@example.com\nTo: root\nSender: root@box\nReply-To: Me <me>\n\nx\n"
    job = accepted(content, policy(local={"domain": "example.com"})).job
    assert field(job.body, "To") == "root@example.com"
    assert field(job.body, "Sender") == "root@example.com"
    assert field(job.body, "Reply-To") == "Me <me@example.com>"


@pytest.mark.parametrize("sender", ["", "root", "app@example.com", "a@bücher.example", "x@box"])
def test_senders_that_can_be_taken_are_taken(sender):
    assert check_sender(policy(), sender) is None


@pytest.mark.parametrize(
    ("sender", "reply"),
    [
        ("jörg@example.com", NOT_ASCII),
        ("a b@example.com", '501 5.1.7 Bad sender address "a b@example.com"'),
        ("a@b\r\nRCPT TO:<x@y>", '501 5.1.7 Bad sender address "a@b??RCPT TO:<x@y>"'),
        ("a@-..-", '501 5.1.7 Bad sender address "a@-..-"'),
    ],
)
def test_senders_that_cannot_be_taken_are_refused_in_plain_words(sender, reply):
    assert str(check_sender(policy(), sender)) == reply


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("jörg@example.com", NOT_ASCII),
        ("a@b c", '501 5.1.3 Bad recipient address "a@b c"'),
        ("a\r\n@b.example", '501 5.1.3 Bad recipient address "a??@b.example"'),
        ("a b", '501 5.1.3 Bad recipient address "a b"'),
        ("<a>@b.example", '501 5.1.3 Bad recipient address "<a>@b.example"'),
        ("a@xn--" + "é" * 80, '501 5.1.3 Bad recipient address "a@xn--' + "?" * 80 + '"'),
    ],
)
def test_recipients_that_cannot_be_taken_are_refused_in_plain_words(recipient, reply):
    assert str(resolve_recipient(policy(), recipient)) == reply


def test_a_domain_outside_of_ascii_becomes_its_a_labels():
    assert resolve_recipient(policy(), "info@Bücher.example") == ("info@xn--bcher-kva.example",)
    content = "From: Shop <shop@bücher.example>\nTo: a@straße.example\n\nx\n"
    job = accepted(content).job
    assert field(job.body, "From") == "Shop <shop@xn--bcher-kva.example>"
    assert field(job.body, "To") == "a@xn--strae-oqa.example"
    assert job.envelope.mail_from == "shop@xn--bcher-kva.example"


@pytest.mark.parametrize("name", ["From", "To", "Cc", "Sender", "Reply-To"])
def test_a_mailbox_outside_of_ascii_in_the_header_is_refused(name):
    other = "" if name == "From" else "From: x@example.com\n"
    assert refusal(f"{other}{name}: Jörg <jörg@example.com>\n\nx\n") == NOT_ASCII
