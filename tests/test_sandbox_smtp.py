"""The stand-in on the wire: what a client of Postmark sees, and failures on demand."""

import asyncio
import base64
import hmac
import ssl
import time
from collections.abc import AsyncIterator

import pytest
import uvloop

from proxy.sandbox.account import Account, SmtpToken
from proxy.sandbox.sandbox import Sandbox
from proxy.sandbox.sasl import digest_response, directives
from tests.support.dialog import Dialog
from tests.support.far_end import BROADCAST, FarEnd, background_far_end
from tests.support.waiting import wait_until

CONTENT = b"From: a@example.com\r\nSubject: Hi\r\n\r\nHello\r\n"
ENVELOPE = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as far_end:
        yield far_end


async def logged_in(far_end: FarEnd, port: int = 0, host: str = "127.0.0.1") -> Dialog:
    dialog = await Dialog.open(host, far_end.ports[port])
    await dialog.start_tls(far_end.ca_file, host)
    assert (await dialog.log_in(far_end.token))[:3] == "235"
    return dialog


async def test_ehlo_offers_what_was_seen_at_postmark(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        assert await dialog.reply() == "220 smtp.postmarkapp.com ESMTP sandbox"
        assert await dialog.say("EHLO client.example") == "\n".join(
            [
                "250-smtp.postmarkapp.com",
                "250-PIPELINING",
                "250-SIZE 20480000",
                "250-VRFY",
                "250-ETRN",
                "250-STARTTLS",
                "250-AUTH PLAIN LOGIN CRAM-MD5 DIGEST-MD5",
                "250-ENHANCEDSTATUSCODES",
                "250-8BITMIME",
                "250 DSN",
            ]
        )


async def test_starttls_is_not_offered_twice(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        assert "STARTTLS" not in await dialog.say("EHLO again")
        assert (await dialog.say("STARTTLS"))[:3] == "554"


async def test_a_message_is_kept_octet_by_octet(far_end: FarEnd) -> None:
    content = b"Subject: x\r\n\r\n.\r\n..two\r\n\xff\x00bare\nlines\r\r\n"
    async with await logged_in(far_end) as dialog:
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        answer = await dialog.deliver("a@example.com", ["b@example.net", "c@example.net"], stuffed)
    (message,) = far_end.messages
    assert answer == f"250 2.0.0 Ok: queued as {message.queue_id}"
    assert message.content == content
    assert message.recipients == ("b@example.net", "c@example.net")
    assert message.reverse_path == "a@example.com"
    assert message.tls.startswith("TLSv1.")
    assert message.port == far_end.ports[0]


async def test_an_empty_message_ends_with_the_first_dot(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        assert (await dialog.deliver("a@example.com", ["b@example.net"], b""))[:3] == "250"
    assert far_end.messages[0].content == b""


async def test_bare_line_feeds_around_a_dot_do_not_end_the_message(far_end: FarEnd) -> None:
    smuggled = b"a\r\n\r\none\n.\nMAIL FROM:<evil@example.com>\n.\r\ntwo\r\n"
    async with await logged_in(far_end) as dialog:
        assert (await dialog.deliver("a@example.com", ["b@example.net"], smuggled))[:3] == "250"
    assert far_end.messages[0].content == smuggled
    assert far_end.store.count == 1


async def test_a_whole_envelope_may_come_in_one_go(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        dialog.send(ENVELOPE)
        assert [(await dialog.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        # The next envelope rides with the message before it (RFC 2920 §3.1).
        dialog.send(CONTENT + b".\r\n" + ENVELOPE)
        assert [(await dialog.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        dialog.send(CONTENT + b".\r\nQUIT\r\n")
        assert [(await dialog.reply())[:3] for _ in range(2)] == ["250", "221"]
    assert [one.content for one in far_end.messages] == [CONTENT, CONTENT]


async def test_a_message_may_come_octet_by_octet(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        dialog.send(ENVELOPE)
        for _ in range(3):
            await dialog.reply()
        for octet in CONTENT + b".\r\n":
            dialog.send(bytes([octet]))
            await dialog.writer.drain()
        assert (await dialog.reply())[:3] == "250"
    assert far_end.messages[0].content == CONTENT


async def test_every_port_of_both_hosts_takes_mail(far_end: FarEnd) -> None:
    for host in far_end.hosts:
        for port in range(3):
            async with await logged_in(far_end, port, host) as dialog:
                await dialog.deliver("a@example.com", ["b@example.net"], CONTENT)
    assert [(one.host, one.port) for one in far_end.messages] == [
        (host, port)
        for host in ("smtp.postmarkapp.com", "smtp-broadcasts.postmarkapp.com")
        for port in far_end.ports
    ]


async def test_what_was_said_in_the_clear_does_not_survive_starttls(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.reply()
        await dialog.say("EHLO client.example")
        dialog.send(b"STARTTLS\r\nMAIL FROM:<injected@example.com>\r\n")
        assert (await dialog.reply())[:3] == "220"
        await dialog.shake_hands(far_end.ca_file)
        assert (await dialog.say("MAIL FROM:<a@example.com>"))[:3] == "503"
        assert (await dialog.say("EHLO client.example"))[:3] == "250"
        assert (await dialog.say("MAIL FROM:<a@example.com>"))[:3] == "250"


async def test_without_a_login_nothing_is_relayed(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        answer = await dialog.deliver("a@example.com", ["b@example.net"], CONTENT)
    assert answer == "554 5.7.1 <b@example.net>: Relay access denied"


async def test_a_wrong_token_is_refused_and_the_session_goes_on(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        refused = await dialog.log_in("11111111-2222-4333-8444-555555555555")
        assert refused.startswith("535 5.7.8 Error: authentication failed: ")
        assert await dialog.say("RSET") == "250 2.0.0 Ok"
        assert (await dialog.log_in(far_end.token))[:3] == "235"
    assert [(one.accepted, one.tls) for one in far_end.logins] == [(False, True), (True, True)]


async def test_no_login_is_good_where_smtp_is_switched_off() -> None:
    async with (
        FarEnd(Account(smtp_enabled=False)) as far_end,
        await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog,
    ):
        await dialog.start_tls(far_end.ca_file)
        assert (await dialog.log_in(far_end.token))[:3] == "535"


async def test_a_login_in_the_clear_is_seen_as_such(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.reply()
        await dialog.say("EHLO client.example")
        await dialog.log_in(far_end.token)
    assert [one.tls for one in far_end.logins] == [False]


async def test_an_smtp_token_stands_for_its_stream() -> None:
    token = SmtpToken("PM-B-broadcasts-abc", "secret", "broadcasts")
    async with FarEnd(Account(smtp_tokens=(token,))) as far_end:
        async with await Dialog.open(BROADCAST, far_end.ports[0]) as dialog:
            await dialog.start_tls(far_end.ca_file, BROADCAST)
            assert (await dialog.log_in(token.access_key, token.secret_key))[:3] == "235"
            await dialog.deliver("a@example.com", ["b@example.net"], CONTENT)
        (entry,) = far_end.store.entries()
        assert (entry.taken.stream, entry.delivered) == ("broadcasts", ("b@example.net",))


async def test_login_and_cram_md5_and_digest_md5_let_in(far_end: FarEnd) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    def challenge(reply: str) -> str:
        assert reply[:4] == "334 "
        return base64.b64decode(reply[4:]).decode()

    token = far_end.token
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        assert challenge(await dialog.say("AUTH LOGIN")) == "Username:"
        assert challenge(await dialog.say(encoded(token))) == "Password:"
        assert (await dialog.say(encoded(token)))[:3] == "235"
        assert (await dialog.say("AUTH PLAIN"))[:3] == "503"
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        given = challenge(await dialog.say("AUTH CRAM-MD5"))
        proof = hmac.new(token.encode(), given.encode(), "md5").hexdigest()
        assert (await dialog.say(encoded(f"{token} {proof}")))[:3] == "235"
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        said = directives(challenge(await dialog.say("AUTH DIGEST-MD5")))
        values = {
            "username": token,
            "realm": said["realm"],
            "nonce": said["nonce"],
            "nc": "00000001",
            "cnonce": "c",
            "digest-uri": "smtp/127.0.0.1",
            "qop": "auth",
        }
        values["response"] = digest_response(values, token, "AUTHENTICATE")
        line = ",".join(f'{key}="{value}"' for key, value in values.items())
        answer = challenge(await dialog.say(encoded(line)))
        assert answer == f"rspauth={digest_response(values, token, '')}"
        assert (await dialog.say(""))[:3] == "235"
    assert [one.mechanism for one in far_end.logins] == ["LOGIN", "CRAM-MD5", "DIGEST-MD5"]


async def test_an_aborted_or_broken_login_is_no_login(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        await dialog.say("AUTH LOGIN")
        assert (await dialog.say("*"))[:3] == "501"
        await dialog.say("AUTH LOGIN")
        assert (await dialog.say("not base64!"))[:3] == "501"
        assert (await dialog.say("AUTH GSSAPI"))[:3] == "535"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<a@example.com> SIZE=20480001", "552 5.3.4"),
        ("MAIL FROM:<a@example.com> SIZE=big", "501 5.5.4"),
        ("MAIL FROM:<a@example.com> SMTPUTF8", "555 5.5.4"),
        ("MAIL FROM:<jürgen@example.com>", "553 5.6.7"),
        ("MAIL a@example.com", "501 5.5.4"),
        ("RCPT TO:<b@example.net>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("BDAT 10 LAST", "502 5.5.2"),
        ("EHLO", "501 "),
        ("VRFY root", "252 2.0.0"),
        ("MAIL FROM:<> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x", "250 2.1.0"),
    ],
)
async def test_a_command_is_answered_as_by_postfix(
    far_end: FarEnd, command: str, reply: str
) -> None:
    async with await logged_in(far_end) as dialog:
        assert (await dialog.say(command)).startswith(reply)


async def test_a_message_above_the_size_limit_is_refused_whole(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        big = (b"x" * 998 + b"\r\n") * 20_500
        assert (await dialog.deliver("a@example.com", ["b@example.net"], big))[:9] == "552 5.3.4"
        answer = await dialog.deliver("a@example.com", ["b@example.net"], CONTENT)
        assert answer[:3] == "250"
    assert far_end.store.count == 1


async def test_a_limit_of_recipients_in_one_transaction() -> None:
    async with FarEnd(recipient_limit=2) as far_end, await logged_in(far_end) as dialog:
        await dialog.say("MAIL FROM:<a@example.com>")
        answers = [(await dialog.say(f"RCPT TO:<r{n}@example.net>"))[:9] for n in range(3)]
        assert answers == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]


async def test_too_many_errors_end_the_session(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        answers = [await dialog.say("JUMP") for _ in range(20)]
        assert {one[:3] for one in answers} == {"502"}
        assert (await dialog.reply()).startswith("421 4.7.0")
        assert await dialog.reply() == ""


async def test_a_message_taken_forgives_the_errors_before_it(far_end: FarEnd) -> None:
    async with await logged_in(far_end) as dialog:
        for _ in range(2):
            assert {(await dialog.say("JUMP"))[:3] for _ in range(19)} == {"502"}
            answer = await dialog.deliver("a@example.com", ["b@example.net"], CONTENT)
            assert answer[:3] == "250"


async def test_an_idle_session_ends_with_421() -> None:
    async with (
        FarEnd(idle=0.05) as far_end,
        await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog,
    ):
        assert (await dialog.reply())[:3] == "220"
        assert (await dialog.reply()).startswith("421 4.4.2")
        assert await dialog.reply() == ""


async def test_an_endless_line_ends_the_session(far_end: FarEnd) -> None:
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.reply()
        dialog.send(b"E" * 70_000)
        assert (await dialog.reply()).startswith("421 4.7.0")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("mail", ["451", "503", "503"]),
        ("rcpt", ["250", "451", "554"]),
        ("data", ["250", "250", "451"]),
    ],
)
async def test_a_reply_can_be_replaced_at_any_verb(
    far_end: FarEnd, at: str, expected: list[str]
) -> None:
    far_end.fail(at, "451 4.3.0 not now")  # type: ignore[arg-type]  # a moment, as text
    async with await logged_in(far_end) as dialog:
        dialog.send(ENVELOPE)
        assert [(await dialog.reply())[:3] for _ in range(3)] == expected


async def test_one_of_three_recipients_can_be_refused(far_end: FarEnd) -> None:
    far_end.fail("rcpt", "550 5.1.1 nobody", address="b@*")
    async with await logged_in(far_end) as dialog:
        await dialog.say("MAIL FROM:<s@example.com>")
        answers = [(await dialog.say(f"RCPT TO:<{n}@example.net>"))[:3] for n in "abc"]
        assert answers == ["250", "550", "250"]


async def test_a_refusal_after_the_dot_takes_nothing(far_end: FarEnd) -> None:
    far_end.fail("dot", "554 5.7.1 no", times=1)
    async with await logged_in(far_end) as dialog:
        assert (await dialog.deliver("a@example.com", ["b@example.net"], CONTENT))[:3] == "554"
        assert far_end.messages == []
        assert (await dialog.deliver("a@example.com", ["b@example.net"], CONTENT))[:3] == "250"


async def test_a_message_can_be_taken_without_its_250_being_heard(far_end: FarEnd) -> None:
    far_end.fail("taken", do="drop")
    async with await logged_in(far_end) as dialog:
        assert await dialog.deliver("a@example.com", ["b@example.net"], CONTENT) == ""
    assert far_end.store.count == 1


@pytest.mark.parametrize("at", ["mail", "content", "dot"])
async def test_a_connection_can_be_dropped_before_the_message_is_taken(
    far_end: FarEnd, at: str
) -> None:
    far_end.fail(at, do="drop", times=1)  # type: ignore[arg-type]  # a moment, as text
    async with await logged_in(far_end) as dialog:
        assert await dialog.deliver("a@example.com", ["b@example.net"], CONTENT) == ""
    assert far_end.messages == []


async def test_a_connection_can_be_reset(far_end: FarEnd) -> None:
    far_end.fail("connect", do="reset")
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        with pytest.raises(ConnectionResetError):
            await dialog.reply()


async def test_a_reply_of_421_closes_the_connection(far_end: FarEnd) -> None:
    far_end.fail("mail", "421 4.3.2 going down")
    async with await logged_in(far_end) as dialog:
        assert (await dialog.say("MAIL FROM:<a@example.com>"))[:3] == "421"
        assert await dialog.reply() == ""


async def test_a_greeting_can_be_421(far_end: FarEnd) -> None:
    far_end.fail("connect", "421 4.3.2 busy", port=far_end.ports[0])
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        assert await dialog.reply() == "421 4.3.2 busy"
        assert await dialog.reply() == ""
    async with await Dialog.open("127.0.0.1", far_end.ports[1]) as dialog:
        assert (await dialog.reply())[:3] == "220"


async def test_a_server_can_hang(far_end: FarEnd) -> None:
    far_end.fail("noop", do="hang")
    async with await logged_in(far_end) as dialog:
        dialog.send(b"NOOP\r\n")
        with pytest.raises(TimeoutError):
            await dialog.reply(timeout=0.1)
        assert len(far_end.sessions) == 1
    await wait_until(lambda: not far_end.sessions)


async def test_a_port_can_be_closed_and_opened_again(far_end: FarEnd) -> None:
    fault = far_end.fail("connect", do="refuse", port=far_end.ports[0])
    with pytest.raises(ConnectionRefusedError):
        await Dialog.open("127.0.0.1", far_end.ports[0])
    far_end.mend(fault)
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        assert (await dialog.reply())[:3] == "220"


async def test_a_port_can_swallow_packets_and_recover(far_end: FarEnd) -> None:
    far_end.fail("connect", do="blackhole", port=far_end.ports[0])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Dialog.open("127.0.0.1", far_end.ports[0]), 0.3)
    far_end.mend()
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        assert (await dialog.reply())[:3] == "220"


@pytest.mark.parametrize("flaw", ["expired", "name", "untrusted"])
async def test_a_certificate_can_be_wrong(far_end: FarEnd, flaw: str) -> None:
    far_end.fail("starttls", do="certificate", what=flaw)
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        with pytest.raises(ssl.SSLCertVerificationError):
            await dialog.start_tls(far_end.ca_file)
    far_end.mend()
    await (await logged_in(far_end)).close()


async def test_a_certificate_can_be_about_to_end(far_end: FarEnd) -> None:
    far_end.fail("starttls", do="certificate", what="ending")
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        ends = ssl.cert_time_to_seconds(dialog.writer.get_extra_info("peercert")["notAfter"])
    assert 9 * 86_400 < ends - time.time() <= 10 * 86_400


async def test_starttls_can_be_missing_or_refused(far_end: FarEnd) -> None:
    hidden = far_end.fail("ehlo", do="hide", what="STARTTLS")
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.reply()
        assert "STARTTLS" not in await dialog.say("EHLO client.example")
        far_end.mend(hidden)
        far_end.fail("starttls", "454 4.7.0 TLS not available")
        assert "STARTTLS" in await dialog.say("EHLO client.example")
        assert (await dialog.say("STARTTLS"))[:3] == "454"


async def test_a_handshake_can_break(far_end: FarEnd) -> None:
    far_end.fail("tls", do="drop")
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await dialog.start_tls(far_end.ca_file)


async def test_a_login_mechanism_can_be_hidden(far_end: FarEnd) -> None:
    far_end.fail("ehlo", do="hide", what="PLAIN")
    async with await logged_in(far_end) as dialog:
        answer = await dialog.say("EHLO client.example")
    assert "AUTH LOGIN CRAM-MD5 DIGEST-MD5" in answer


async def test_a_login_can_be_refused_for_one_user(far_end: FarEnd) -> None:
    far_end.fail("auth", "454 4.7.0 try later", address=far_end.token, times=1)
    async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
        await dialog.start_tls(far_end.ca_file)
        assert (await dialog.log_in(far_end.token))[:3] == "454"
        assert (await dialog.log_in(far_end.token))[:3] == "235"


async def test_a_delay_is_served_before_the_usual_reply(far_end: FarEnd) -> None:
    far_end.fail("noop", do="delay", seconds=0.1)
    async with await logged_in(far_end) as dialog:
        started = time.monotonic()
        assert (await dialog.say("NOOP"))[:3] == "250"
        assert time.monotonic() - started >= 0.1


async def test_latency_holds_every_reply_and_costs_pipelined_commands_one_trip() -> None:
    async with FarEnd(latency=0.05) as far_end, await logged_in(far_end) as dialog:
        started = time.monotonic()
        dialog.send(ENVELOPE)
        assert await dialog.codes_at_once() == ["250", "250", "354"]
        assert time.monotonic() - started >= 0.05
        dialog.send(CONTENT + b".\r\nQUIT\r\n")
        assert [(await dialog.reply())[:3] for _ in range(2)] == ["250", "221"]


async def test_all_connections_can_be_cut_at_once(far_end: FarEnd) -> None:
    dialogs = [await logged_in(far_end) for _ in range(3)]
    assert far_end.cut() == 3
    for dialog in dialogs:
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)):
            assert await dialog.say("NOOP")
        await dialog.close()
    await wait_until(lambda: not far_end.sessions)
    assert far_end.most_connections["127.0.0.1"] == 3


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(far_end: FarEnd) -> None:
    dialog = await logged_in(far_end)
    dialog.send(ENVELOPE + b"half a mess")
    await dialog.close()
    await wait_until(lambda: not far_end.sessions)
    assert far_end.messages == []


async def test_thousands_of_messages_are_all_there_in_order(far_end: FarEnd) -> None:
    async def send(sender: int, count: int) -> None:
        async with await logged_in(far_end) as dialog:
            envelope = f"MAIL FROM:<{sender}@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
            for number in range(count):
                dialog.send(envelope.encode())
                for _ in range(3):
                    await dialog.reply()
                dialog.send(b"Subject: %d\r\n\r\n%s.\r\n" % (number, b"text\r\n" * 100))
                assert (await dialog.reply())[:3] == "250"

    await asyncio.gather(*(send(sender, 200) for sender in range(10)))
    assert far_end.store.count == 2000
    of_three = [one for one in far_end.messages if one.reverse_path == "3@example.com"]
    assert [one.subject for one in of_three] == [str(number) for number in range(200)]


async def test_the_stand_in_refuses_to_be_reachable_from_elsewhere(far_end: FarEnd) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        Sandbox(far_end.ca_file.parent, hosts={"0.0.0.0": "transactional"})


async def test_the_authority_is_kept_over_restarts(far_end: FarEnd) -> None:
    folder = far_end.ca_file.parent
    before = far_end.ca_file.read_bytes()
    async with Sandbox(folder) as again:
        assert again.ca_file.read_bytes() == before
        async with await Dialog.open("127.0.0.1", again.ports[0]) as dialog:
            await dialog.start_tls(far_end.ca_file)
    assert (folder / "ca.key").stat().st_mode & 0o077 == 0


async def test_a_taken_port_is_an_error_at_start(far_end: FarEnd) -> None:
    with pytest.raises(OSError, match="in use"):
        await Sandbox(far_end.ca_file.parent, ports=far_end.ports).start()


def test_a_far_end_can_live_in_a_thread_of_its_own() -> None:
    with background_far_end() as far_end:
        far_end.fail("connect", "421 4.3.2 busy", times=1)

        async def greetings() -> list[str]:
            found = []
            for _ in range(2):
                async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
                    found.append((await dialog.reply())[:3])
            return found

        assert asyncio.run(greetings()) == ["421", "220"]


def test_the_stand_in_is_the_same_on_uvloop() -> None:
    async def main() -> None:
        async with FarEnd() as far_end:
            async with await logged_in(far_end) as dialog:
                answer = await dialog.deliver("a@example.com", ["b@example.net"], CONTENT)
                assert answer[:3] == "250"
            fault = far_end.fail("connect", do="blackhole", port=far_end.ports[0])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(Dialog.open("127.0.0.1", far_end.ports[0]), 0.2)
            far_end.mend(fault)
            far_end.fail("starttls", do="certificate", what="expired")
            async with await Dialog.open("127.0.0.1", far_end.ports[0]) as dialog:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await dialog.start_tls(far_end.ca_file)
            far_end.mend()
            open_until_the_end = await logged_in(far_end)
        await open_until_the_end.close()
        assert [one.content for one in far_end.messages] == [CONTENT]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
