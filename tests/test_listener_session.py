"""SMTP sessions as clients see them: real sockets, a real Redis behind."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.metrics.intake import MESSAGES_REFUSED
from tests.support.listening import HOST, MESSAGE, Front, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

QUEUED = re.compile(r"250 2\.0\.0 Ok: queued as ([0-9a-z]{26})")


@pytest_asyncio.fixture
async def office(redis_server: RedisServer) -> AsyncIterator[Front]:
    async with front(redis_server, local={"postmaster": "ops@example.com"}) as found:
        yield found


async def test_250_names_the_id_under_which_the_message_is_in_the_queue(office: Front) -> None:
    dialog = await office.dial()
    answer = await dialog.mail(MESSAGE)
    found = QUEUED.fullmatch(answer)
    assert found is not None, answer
    (kept,) = office.kept()
    assert kept.id == found[1]
    assert kept.envelope["to"] == ["you@example.net"]
    assert kept.body.endswith(b"\r\n\r\nHello.\r\n")
    assert await dialog.say("QUIT") == "221 2.0.0 Bye"
    assert await dialog.ended()


async def test_ehlo_offers_what_is_held_and_nothing_else(office: Front) -> None:
    dialog = await office.dial()
    assert await dialog.say("EHLO client.example.com") == "\n".join(
        [
            f"250-{HOST}",
            "250-SIZE 10000000",
            "250-PIPELINING",
            "250-8BITMIME",
            "250-SMTPUTF8",
            "250-XONCE",
            "250 ENHANCEDSTATUSCODES",
        ]
    )


@pytest.mark.parametrize(
    "greeting", ["", "HELO", "HELO x", "EHLO", "EHLO [127.0.0.1]", "EHLO a b", "ehlo \x07"]
)
async def test_mail_may_begin_with_any_greeting_or_none(office: Front, greeting: str) -> None:
    dialog = await office.dial()
    if greeting:
        assert (await dialog.say(greeting)).startswith("250")
    assert (await dialog.say("MAIL FROM:<app@example.com> SIZE=100")).startswith("250 2.1.0")
    assert (await dialog.say("RCPT TO:<you@example.net>")).startswith("250 2.1.5")
    assert (await dialog.say("DATA")).startswith("354 ")
    dialog.send(MESSAGE + b".\r\n")
    assert QUEUED.fullmatch(await dialog.reply())


@pytest.mark.parametrize(
    ("mail", "rcpt"),
    [
        ("MAIL FROM: <app@example.com>", "RCPT TO: <you@example.net>"),
        ("mail from:app@example.com", "rcpt to:you@example.net"),
        (
            "MAIL FROM:<@a.example,@b.example:app@example.com>",
            "RCPT TO:<@c.example:you@example.net>",
        ),
        (
            "MAIL FROM:<app@example.com> AUTH=<> RET=HDRS ENVID=QQ314159",
            "RCPT TO:<you@example.net>",
        ),
        (
            "MAIL FROM:<app@example.com> SIZE=300 BODY=8BITMIME SMTPUTF8",
            "RCPT TO:<you@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;you@example.net",
        ),
        ("MAIL\tFROM:<app@example.com>", "RCPT\tTO:<you@example.net>"),
    ],
)
async def test_odd_but_clear_syntax_is_understood(office: Front, mail: str, rcpt: str) -> None:
    dialog = await office.dial()
    await dialog.say("EHLO x")
    assert (await dialog.say(mail)).startswith("250 2.1.0")
    assert (await dialog.say(rcpt)).startswith("250 2.1.5")
    await dialog.say("DATA")
    dialog.send(MESSAGE + b".\r\n")
    assert QUEUED.fullmatch(await dialog.reply())
    (kept,) = office.kept()
    assert kept.envelope["rp"] == "app@example.com"
    assert kept.envelope["to"] == ["you@example.net"]


async def test_the_null_reverse_path_is_taken_and_kept_as_such(office: Front) -> None:
    dialog = await office.dial()
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE, sender=""))
    (kept,) = office.kept()
    assert "rp" not in kept.envelope  # "" is the default


async def test_notify_never_of_all_recipients_asks_for_no_notice(office: Front) -> None:
    dialog = await office.dial()
    for options in ("NOTIFY=NEVER", "notify=never"), ("NOTIFY=NEVER", ""), ("", ""):
        await dialog.say("MAIL FROM:<app@example.com>")
        for number, option in enumerate(options):
            await dialog.say(f"RCPT TO:<you{number}@example.net> {option}".rstrip())
        await dialog.say("DATA")
        dialog.send(MESSAGE + b".\r\n")
        assert QUEUED.fullmatch(await dialog.reply())
    never, somebody, everybody = office.kept()
    assert never.envelope["ntf"] is False
    assert "ntf" not in somebody.envelope
    assert "ntf" not in everybody.envelope


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MAIL", "501 5.5.4 Say MAIL FROM:<address>"),
        ("MAIL FROM:", "501 5.5.4 Say MAIL FROM:<address>"),
        ("MAIL TO:<a@example.com>", "501 5.5.4 Say MAIL FROM:<address>"),
        ("MAIL FROM:<a@example.com> SIZE=x", "501 5.5.4 SIZE is a number of octets"),
        ("MAIL FROM:<a@example.com> BODY=9BIT", "501 5.5.4 BODY is 7BIT or 8BITMIME"),
        ("MAIL FROM:<a@example.com> XFOO=1", "555 5.5.4 Parameter XFOO is not known here"),
        ("RCPT TO:<a@example.com>", "503 5.5.1 First comes MAIL"),
        ("DATA", "503 5.5.1 First comes MAIL"),
        ("BDAT 10 LAST", "500 5.5.1 There is no such command here"),
        ("XCLIENT ADDR=1.2.3.4", "500 5.5.1 There is no such command here"),
        ("\xff\xfe", "500 5.5.1 There is no such command here"),
        ("", "500 5.5.1 There is no such command here"),
        ("STARTTLS", "502 5.5.1 STARTTLS is not offered here; go on without"),
        ("AUTH PLAIN AGEAYg==", "503 5.5.1 AUTH is not asked for here; go on without"),
        ("EXPN staff", "502 5.5.1 This command is not offered here"),
        ("VRFY you", "252 2.5.0 Cannot verify, but will take mail for it and try"),
        ("RSET", "250 2.0.0 Ok"),
        ("RSET now", "501 5.5.4 This command takes no argument"),
        ("NOOP with words", "250 2.0.0 Ok"),
        ("HELP", "214 2.0.0 Franker takes mail and relays it to Postmark: MAIL, RCPT, DATA"),
        ("MAIL FROM:<a@example.com> SIZE=10000001", None),
    ],
)
async def test_each_reply_has_an_enhanced_code_and_plain_words(
    office: Front, line: str, answer: str | None
) -> None:
    dialog = await office.dial()
    await dialog.say("EHLO x")
    if answer is None:
        answer = (
            "552 5.3.4 Message of 10000001 octets is over the limit of 10000000 octets "
            "(listen.max_message_size)"
        )
    assert await dialog.say(line.encode("latin-1")) == answer
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE))


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MAIL FROM:<b@example.com>", "503 5.5.1 There is a MAIL already; RSET to begin anew"),
        ("RCPT", "501 5.5.4 Say RCPT TO:<address>"),
        ("RCPT TO:", "501 5.5.4 Say RCPT TO:<address>"),
        ("RCPT TO:<>", "501 5.5.4 Say RCPT TO:<address>"),
        ("RCPT TO:<a@example.com> XFOO", "555 5.5.4 Parameter XFOO is not known here"),
        ("DATA", "554 5.5.1 No recipient was accepted"),
        ("DATA now", "501 5.5.4 This command takes no argument"),
    ],
)
async def test_what_is_wrong_within_a_mail_is_said(office: Front, line: str, answer: str) -> None:
    dialog = await office.dial()
    await dialog.begin(recipients=(), data=False)
    assert await dialog.say(line) == answer
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE))


async def test_a_non_ascii_mailbox_is_553_at_rcpt_and_others_go_on(office: Front) -> None:
    dialog = await office.dial()
    await dialog.begin(data=False)
    assert (await dialog.say("RCPT TO:<jörg@example.net>")).startswith("553 5.6.7 ")
    assert (await dialog.say(b"RCPT TO:<j\xf6rg@example.net>")).startswith("553 ")
    assert (await dialog.say("RCPT TO:<info@bücher.example>")).startswith("250 2.1.5")
    await dialog.say("DATA")
    dialog.send(MESSAGE + b".\r\n")
    assert QUEUED.fullmatch(await dialog.reply())
    (kept,) = office.kept()
    assert kept.envelope["to"] == ["you@example.net", "info@xn--bcher-kva.example"]


async def test_a_local_recipient_without_a_postmaster_names_the_key(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as bare:
        dialog = await bare.dial()
        await dialog.begin(data=False)
        answer = await dialog.say("RCPT TO:<root>")
        assert answer.startswith("550 5.1.1 ")
        assert "local.postmaster" in answer


async def test_recipients_named_twice_are_kept_once(office: Front) -> None:
    dialog = await office.dial()
    twice = ("you@example.net", "me@example.net", "you@example.net")
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE, recipients=twice))
    (kept,) = office.kept()
    assert kept.envelope["to"] == ["you@example.net", "me@example.net"]


async def test_many_messages_in_one_session(office: Front) -> None:
    dialog = await office.dial()
    for _ in range(5):
        assert QUEUED.fullmatch(await dialog.mail(MESSAGE))
    assert len(office.kept()) == 5


async def test_rset_forgets_the_mail(office: Front) -> None:
    dialog = await office.dial()
    await dialog.begin(data=False)
    assert await dialog.say("RSET") == "250 2.0.0 Ok"
    assert await dialog.say("DATA") == "503 5.5.1 First comes MAIL"
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE, recipients=("other@example.net",)))
    (kept,) = office.kept()
    assert kept.envelope["to"] == ["other@example.net"]


async def test_a_second_ehlo_forgets_the_mail(office: Front) -> None:
    dialog = await office.dial()
    await dialog.begin(data=False)
    await dialog.say("EHLO again")
    assert await dialog.say("DATA") == "503 5.5.1 First comes MAIL"


async def test_pipelined_commands_are_answered_in_order_and_together(office: Front) -> None:
    dialog = await office.dial()
    await dialog.say("EHLO x")
    dialog.send(
        b"MAIL FROM:<app@example.com>\r\nRCPT TO:<you@example.net>\r\nRCPT TO:<>\r\nDATA\r\n"
    )
    assert [await dialog.reply() for _ in range(4)] == [
        "250 2.1.0 Ok",
        "250 2.1.5 Ok",
        "501 5.5.4 Say RCPT TO:<address>",
        "354 End data with <CR><LF>.<CR><LF>",
    ]
    dialog.send(MESSAGE + b".\r\nMAIL FROM:<b@example.com>\r\nQUIT\r\n")
    assert QUEUED.fullmatch(await dialog.reply())
    assert await dialog.reply() == "250 2.1.0 Ok"
    assert await dialog.reply() == "221 2.0.0 Bye"
    assert await dialog.ended()


async def test_a_client_that_waits_for_no_reply_and_closes_its_side_is_served(
    office: Front,
) -> None:
    dialog = await office.dial(greeted=False)
    mail = (
        b"MAIL FROM:<a@example.com>\r\nRCPT TO:<you@example.net>\r\nDATA\r\n" + MESSAGE + b".\r\n"
    )
    dialog.send(b"EHLO x\r\n" + mail + mail + b"QUIT\r\n")
    dialog.writer.write_eof()
    codes = [(await dialog.reply())[:3] for _ in range(11)]
    assert codes == ["220", "250"] + ["250", "250", "354", "250"] * 2 + ["221"]
    assert await dialog.ended()
    assert len(office.kept()) == 2


async def test_a_dialog_in_lf_only_is_served(office: Front) -> None:
    dialog = await office.dial()
    dialog.send(b"HELO cobol\nMAIL FROM:<a@example.com>\nRCPT TO:<you@example.net>\nDATA\n")
    assert [(await dialog.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
    dialog.send(MESSAGE.replace(b"\r\n", b"\n") + b"..dot\n.\nQUIT\n")
    assert QUEUED.fullmatch(await dialog.reply())
    assert await dialog.reply() == "221 2.0.0 Bye"
    (kept,) = office.kept()
    assert kept.body.endswith(b"\r\n\r\nHello.\r\n.dot\r\n")
    assert kept.body.count(b"\n") == kept.body.count(b"\r\n")


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n"]
)
async def test_nothing_is_smuggled_into_a_session(office: Front, end: bytes) -> None:
    dialog = await office.dial()
    smuggled = b"text" + end + b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\n"
    answer = await dialog.mail(MESSAGE + smuggled + b"DATA\r\nSubject: evil\r\n\r\nx\r\n")
    assert QUEUED.fullmatch(answer)
    assert await dialog.say("NOOP") == "250 2.0.0 Ok"
    (kept,) = office.kept()
    assert kept.envelope["rp"] == "app@example.com"
    assert b"RCPT TO:<victim@example.net>" in kept.body


async def test_one_crlf_in_a_command_is_enough_for_lf_dot_lf_to_end_nothing(office: Front) -> None:
    dialog = await office.dial()
    dialog.send(b"EHLO x\r\nMAIL FROM:<a@example.com>\nRCPT TO:<you@example.net>\nDATA\n")
    for _ in range(4):
        await dialog.reply()
    dialog.send(b"Subject: x\n\ntext\n.\nMAIL FROM:<evil@example.com>\n\r\n.\r\n")
    assert QUEUED.fullmatch(await dialog.reply())
    (kept,) = office.kept()
    assert b"evil@example.com" in kept.body


async def test_bare_line_ends_and_nul_cannot_hide_a_field(office: Front) -> None:
    dialog = await office.dial()
    content = MESSAGE.replace(
        b"Subject: hello\r\n",
        b"Subject: hello\nX-PM-Message-Stream: evil\rBcc: spy@example.org\r\n",
    )
    assert QUEUED.fullmatch(await dialog.mail(content))
    (kept,) = office.kept()
    assert b"evil" not in kept.body
    assert b"spy@" not in kept.body
    assert b"X-PM-Message-Stream: outbound\r\n" in kept.body


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /send HTTP/1.1", "Host: localhost:2525"])
async def test_a_browser_that_was_made_to_speak_here_is_cut_off(office: Front, line: str) -> None:
    dialog = await office.dial()
    dialog.send(f"{line}\r\nMAIL FROM:<a@example.com>\r\n".encode())
    assert await dialog.reply() == "554 5.5.1 This is SMTP, not HTTP"
    assert await dialog.ended()


async def test_after_many_errors_in_a_row_the_session_ends(office: Front) -> None:
    dialog = await office.dial()
    for _ in range(29):
        assert (await dialog.say("WHAT")).startswith("500 5.5.1")
    assert (await dialog.say("WHAT")).startswith("500 5.5.1")
    assert await dialog.reply() == "421 4.7.0 Too many errors, closing"
    assert await dialog.ended()


async def test_an_error_of_our_own_is_451_says_nothing_of_itself_and_the_session_goes_on(
    office: Front, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("redis at 10.0.0.5 with password hunter2")

    with monkeypatch.context() as patch:
        patch.setattr("proxy.listener.intake.submit", broken)
        dialog = await office.dial()
        answer = await dialog.mail(MESSAGE)
    assert answer == "451 4.3.0 Franker had an error of its own; not taken, try again"
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE))
    shown = capfd.readouterr().err
    assert "defect" in shown
    assert "RuntimeError" in shown


@pytest.mark.parametrize("judge", ["check_sender", "resolve_recipient"])
async def test_an_error_of_our_own_before_data_is_451_and_the_next_mail_is_taken(
    office: Front, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    def broken(*_arguments: object) -> None:
        raise KeyError("hunter2")

    dialog = await office.dial()
    await dialog.say("EHLO x")
    if judge == "resolve_recipient":
        await dialog.say("MAIL FROM:<app@example.com>")
    with monkeypatch.context() as patch:
        patch.setattr(f"proxy.listener.intake.{judge}", broken)
        line = "MAIL FROM:<a@example.com>" if judge == "check_sender" else "RCPT TO:<a@example.net>"
        answer = await dialog.say(line)
    assert answer == "451 4.3.0 Franker had an error of its own; not taken, try again"
    assert await dialog.say("MAIL FROM:<b@example.com>") == "250 2.1.0 Ok"


async def test_a_refused_message_leaves_the_session_usable(office: Front) -> None:
    dialog = await office.dial()
    looped = b"X-PM-Metadata-franker-id: 01jd0000000000000000000000\r\n" + MESSAGE
    assert (await dialog.mail(looped)).startswith("554 5.4.6 ")
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE))


async def test_a_header_without_end_is_552(office: Front) -> None:
    dialog = await office.dial()
    header = b"".join(b"X-Field-%d: %s\r\n" % (n, b"x" * 80) for n in range(5000))
    assert (await dialog.mail(header)).startswith("552 5.3.4 ")
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE))


async def test_a_rule_that_rejects_is_a_550_and_one_that_discards_a_250(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    rules = [
        {"name": "no", "sender": ["no@example.com"], "action": "reject"},
        {"name": "away", "sender": ["away@example.com"], "action": "discard"},
    ]
    async with front(redis_server, rules=rules) as ruled:
        dialog = await ruled.dial()
        assert (await dialog.mail(MESSAGE, sender="no@example.com")).startswith("550 5.7.1 ")
        assert QUEUED.fullmatch(await dialog.mail(MESSAGE, sender="away@example.com"))
        assert ruled.kept() == []
    assert "discarded" in capfd.readouterr().err


async def test_the_client_is_in_the_received_field(office: Front) -> None:
    dialog = await office.dial()
    assert QUEUED.fullmatch(await dialog.mail(MESSAGE))
    (kept,) = office.kept()
    received = kept.body[kept.body.index(b"Received:") :].split(b"\r\nFrom:")[0]
    assert b"client.example.com" in received
    assert b"with ESMTP" in received
    assert b"127.0.0.1" in received
    assert b" for " not in received


async def test_each_end_of_a_session_gives_back_what_it_held(office: Front) -> None:
    dialog = await office.dial()
    await dialog.begin()
    dialog.send(MESSAGE)
    await wait_until(lambda: office.listener.held == len(MESSAGE), what="octets are counted")
    assert office.listener.sessions == 1
    dialog.reset()
    await wait_until(lambda: office.listener.sessions == 0, what="the session is gone")
    await wait_until(lambda: office.listener.held == 0, what="its memory is free")
    assert office.kept() == []


async def test_a_command_that_makes_no_sense_is_counted_and_logged_but_never_shown(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    count = MESSAGES_REFUSED.labels("syntax")
    async with front(redis_server) as office:
        dialog = await office.dial()
        before = count._value.get()
        assert (await dialog.say("AUTH PLAIN AGEAYg==")).startswith("503 ")
        assert (await dialog.say("MAIL FROM:<a@example.com> SOLICIT=x")).startswith("555 ")
        assert (await dialog.say("AGEAYg==")).startswith("500 ")
        assert count._value.get() == before + 3
    log = capfd.readouterr().err
    assert 'reason=syntax reply="503 5.5.1 AUTH is not asked for here' in log
    assert 'reason=syntax reply="555 5.5.4 Parameter SOLICIT is not known here' in log
    assert "AGEAYg==" not in log


@pytest.mark.parametrize("value", ["", "=", "=0", "=" + "g" * 32, "=" + "0" * 33, "=" + "A" * 32])
async def test_an_id_to_be_kept_once_under_must_be_one(office: Front, value: str) -> None:
    dialog = await office.dial()
    await dialog.say("EHLO client.example.com")
    answer = await dialog.say(f"MAIL FROM:<app@example.com> XONCE{value}")
    assert answer.startswith("250" if value in ("", "=") else "501 5.5.4 XONCE")
