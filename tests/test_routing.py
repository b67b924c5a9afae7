"""Rules: which mail it is, and what is done with it."""

import time

import pytest

from proxy.config.model import Settings
from proxy.mail.envelope import Client, Envelope
from proxy.routing import Pattern, Route, compile_rules, route

CLIENT = Client("192.0.2.7", "h", login="erp", uid=1001, user="batch")


def routed(
    rule: dict,
    *,
    sender: str = "payroll@hr.example.com",
    recipients: tuple[str, ...] = ("bob@example.net",),
    client: Client = CLIENT,
    first_from: str = "Robot@App.example.com",
    subject: str = "Your payslip",
) -> Route:
    rules = compile_rules(Settings.model_validate({"rules": [{"name": "r", **rule}]}))
    return route(rules, Envelope(sender, recipients, client), first_from, subject)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("a@b", "a@b", True),
        ("A@b", "a@B", True),
        ("a@b", "xa@b", False),
        ("a@b", "a@bx", False),
        ("a.b", "axb", False),
        ("*", "", True),
        ("*", "anything", True),
        ("a*", "abc", True),
        ("*c", "abc", True),
        ("a*c", "ac", True),
        ("ab*ba", "aba", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("*bb*bb*", "bbb", False),
        ("a**c", "abc", True),
        ("[ab]", "a", False),
        ("?", "x", False),
        ("STRASSE", "straße", True),
        ("", "", True),
    ],
)
def test_a_star_stands_for_any_run_of_characters_and_nothing_else_is_special(
    pattern, value, expected
):
    assert Pattern(pattern).matches(value.casefold()) is expected


def test_no_pattern_takes_long_on_any_text():
    began = time.process_time()
    assert not Pattern("*a" * 40 + "*b").matches("a" * 200_000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "rule",
    [
        {"sender": ["payroll@*"]},
        {"sender": ["x@y", "*@hr.example.com"]},
        {"sender": ["robot@app.example.com"]},
        {"recipient": ["*@example.net"]},
        {"client": ["192.0.2.0/24"]},
        {"client": ["192.0.2.7"]},
        {"user": ["batch"]},
        {"user": ["1001"]},
        {"user": ["BAT*"]},
        {"login": ["erp"]},
        {"subject": ["*payslip*"]},
        {},
        {"sender": ["payroll@*"], "subject": ["your*"], "client": ["192.0.2.7"], "user": ["1001"]},
    ],
)
def test_a_rule_matches(rule):
    assert routed(rule).rule == "r"


@pytest.mark.parametrize(
    "rule",
    [
        {"sender": ["payroll"]},
        {"sender": ["<>"]},
        {"sender": ["Robot"]},
        {"recipient": ["*@example.org"]},
        {"client": ["192.0.3.0/24"]},
        {"client": ["unix"]},
        {"client": ["2001:db8::/32"]},
        {"user": ["root"]},
        {"login": ["other"]},
        {"subject": ["payslip"]},
        {"sender": ["payroll@*"], "subject": ["mine*"]},
    ],
)
def test_a_rule_does_not_match(rule):
    found = routed(rule)
    assert found.rule == ""
    assert found.stream == "outbound"
    assert found.why == ("no rule matches",)


def test_the_null_sender_is_written_as_angle_brackets():
    assert routed({"sender": ["<>"]}, sender="", first_from="").rule == "r"
    assert routed({"sender": ["x@*"]}, sender="", first_from="").rule == ""


def test_all_recipients_must_match_for_the_rule_to_hold():
    rule = {"recipient": ["*@a.example", "*@b.example"]}
    assert routed(rule, recipients=("x@a.example", "y@b.example")).rule == "r"
    assert routed(rule, recipients=("x@a.example", "y@c.example")).rule == ""


def test_a_unix_socket_is_a_client_of_its_own():
    client = Client("unix", uid=0)
    assert routed({"client": ["unix"]}, client=client).rule == "r"
    assert routed({"client": ["127.0.0.0/8"]}, client=client).rule == ""


def test_a_process_without_a_name_is_matched_by_its_uid():
    assert routed({"user": ["4711"]}, client=Client("127.0.0.1", uid=4711)).rule == "r"
    assert routed({"user": ["*"]}, client=Client("10.0.0.1")).rule == ""


def test_the_first_rule_that_matches_wins():
    rules = compile_rules(
        Settings.model_validate(
            {
                "streams": {"news": {"id": "news-stream", "kind": "broadcast"}, "outbound": {}},
                "rules": [
                    {"name": "one", "sender": ["x@*"]},
                    {"name": "two", "sender": ["a@*"], "stream": "news"},
                    {"name": "three"},
                ],
            }
        )
    )
    found = route(rules, Envelope("a@b", ("c@d",), CLIENT), "", "")
    assert (found.rule, found.stream) == ("two", "news")
    assert found.treatment.stream_id == "news-stream"
    assert route(rules, Envelope("q@b", ("c@d",), CLIENT), "", "").rule == "three"


def test_why_names_every_key_that_held():
    assert routed({"sender": ["payroll@*"], "client": ["192.0.2.0/24"]}).why == (
        "sender payroll@hr.example.com matches payroll@*",
        "client 192.0.2.7 is in 192.0.2.0/24",
    )


def test_what_a_rule_asks_for_is_compiled_once():
    found = routed(
        {
            "tag": "payroll",
            "metadata": {"App": "pay roll"},
            "from": "pay@bücher.example",
            "keep_id": False,
            "track_opens": False,
            "track_links": "HtmlOnly",
            "set_headers": {"X-Site": "Köln"},
            "remove_headers": ["X-Mailer"],
            "owner": "team@example.com",
            "expires": "15m",
        }
    )
    assert (found.owner, found.expires, found.action) == ("team@example.com", 900.0, "relay")
    asked = found.treatment
    assert asked.tag == b" payroll"
    assert asked.metadata == ((b"App", b" pay roll"),)
    assert asked.from_ == "pay@xn--bcher-kva.example"
    assert not asked.keep_id
    assert (asked.track_opens, asked.track_links) == (b" false", b" HtmlOnly")
    assert asked.set_fields == ((b"X-Site", b" =?utf-8?b?S8O2bG4=?="),)
    assert asked.remove == (b"x-mailer",)
