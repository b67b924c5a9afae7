"""Transactions on one connection, against a peer that does what a test writes down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.scripted_peer import (
    ENVELOPE_OK,
    EXTENSIONS,
    GO_ON,
    OK_FINAL,
    OK_MAIL,
    OK_RCPT,
    Peer,
    Script,
    Session,
)
from tests.support.waiting import wait_until
from worker.smarthost.connection import CHUNK, Connection
from worker.smarthost.transaction import Transaction

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


async def yes() -> bool:
    return True


def transaction(
    *recipients: str,
    content: bytes = CONTENT,
    before_dot: Callable[[], Awaitable[bool]] = yes,
    mail_from: str = "a@example.com",
) -> Transaction:
    return Transaction(mail_from, recipients or ("b@example.net",), content, before_dot)


@contextlib.asynccontextmanager
async def connected(
    script: Script, *, extensions: tuple[str, ...] = EXTENSIONS, **options: float
) -> AsyncIterator[tuple[Connection, Peer]]:
    """A connection to a peer that shakes hands and then plays `script`."""

    async def whole(session: Session) -> None:
        await session.shake_hands()
        await script(session)
        await session.until_end()

    async with Peer(whole, extensions=extensions) as peer:
        connection = await peer.connect(**options)
        try:
            yield connection, peer
        finally:
            connection.abort("the test is over")
            await connection.lost


async def test_a_message_goes_as_one_group_and_its_content() -> None:
    async def script(session: Session) -> None:
        assert await session.envelope() == [
            f"MAIL FROM:<a@example.com> SIZE={len(CONTENT)}",
            "RCPT TO:<b@example.net>",
            "RCPT TO:<c@example.net>",
            "DATA",
        ]
        await session.say(OK_MAIL, OK_RCPT, OK_RCPT, GO_ON)
        assert await session.content() == CONTENT
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction("b@example.net", "c@example.net"))
        assert str(replies.mail) == OK_MAIL
        assert {a: r.code for a, r in replies.recipients.items()} == {
            "b@example.net": 250,
            "c@example.net": 250,
        }
        assert replies.data is not None
        assert replies.data.code == 354
        assert str(replies.final) == OK_FINAL
        assert replies.dot_sent
        assert not replies.broken
        assert connection.alive
        assert connection.outstanding == 0


async def test_the_null_reverse_path_is_written_as_such() -> None:
    async def script(session: Session) -> None:
        assert (await session.envelope())[0].startswith("MAIL FROM:<> ")
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        assert (await connection.submit(transaction(mail_from=""))).final is not None


async def test_the_next_envelope_rides_with_the_message_before_it() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        # Nothing was answered yet, and the next envelope is here already.
        assert (await session.envelope())[1] == "RCPT TO:<second@example.net>"
        await session.say(OK_FINAL, *ENVELOPE_OK)
        await session.content()
        await session.say("250 2.0.0 Ok: queued as second")

    async with connected(script) as (connection, _):
        first = connection.submit(transaction())
        second = connection.submit(transaction("second@example.net"))
        assert connection.free_slots == 0
        assert str((await first).final) == OK_FINAL
        assert str((await second).final) == "250 2.0.0 Ok: queued as second"


async def test_a_third_transaction_at_once_is_a_defect() -> None:
    async def script(session: Session) -> None:
        await session.until_end()

    async with connected(script) as (connection, _):
        connection.submit(transaction())
        connection.submit(transaction())
        with pytest.raises(RuntimeError):
            connection.submit(transaction())


async def test_hundreds_of_messages_go_over_one_connection_in_order() -> None:
    async def script(session: Session) -> None:
        for _ in range(300):
            mail = await session.envelope()
            await session.say(*ENVELOPE_OK)
            await session.content()
            await session.say(f"250 2.0.0 {mail[1]}")

    async with connected(script) as (connection, _):
        waiting: list[tuple[str, asyncio.Future]] = []
        for number in range(300):
            while not connection.free_slots:
                address, future = waiting.pop(0)
                assert str((await future).final) == f"250 2.0.0 RCPT TO:<{address}>"
            address = f"n{number}@example.net"
            waiting.append((address, connection.submit(transaction(address))))
        for address, future in waiting:
            assert str((await future).final) == f"250 2.0.0 RCPT TO:<{address}>"


async def test_nothing_of_a_short_content_is_written_before_the_dot_is_allowed() -> None:
    allowed = asyncio.Event()
    asked = asyncio.Event()

    async def before_dot() -> bool:
        asked.set()
        await allowed.wait()
        return True

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.reader.readexactly(1)
        assert allowed.is_set()
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        future = connection.submit(transaction(before_dot=before_dot))
        await asked.wait()
        assert connection.outstanding == 1
        allowed.set()
        assert (await future).final is not None


async def test_a_message_submitted_meanwhile_does_not_take_the_dot_along() -> None:
    asked = asyncio.Event()
    rest: list[bytes] = []

    async def before_dot() -> bool:
        asked.set()
        await asyncio.Event().wait()
        return True

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        rest.append(await session.until_end())

    async with connected(script) as (connection, _):
        first = connection.submit(transaction(before_dot=before_dot))
        await asked.wait()
        second = connection.submit(transaction())
        for _ in range(10):  # turns of the loop in which a write would have been made
            await asyncio.sleep(0)
        connection.abort("enough")
        assert not (await first).dot_sent
        assert (await second).mail is None
        await wait_until(lambda: rest)
        assert rest == [b""]


async def test_a_future_that_is_done_may_stand_for_the_permission() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        permission = asyncio.get_running_loop().create_future()
        permission.set_result(True)
        replies = await connection.submit(transaction(before_dot=lambda: permission))
        assert replies.final is not None


async def no() -> bool:
    return False


async def defect() -> bool:
    raise OSError("the store is away")


async def cancelled() -> bool:
    raise asyncio.CancelledError


@pytest.mark.parametrize("answer", [no, defect, cancelled])
async def test_without_permission_the_connection_is_dropped_without_a_dot(
    answer: Callable[[], Awaitable[bool]],
) -> None:
    rest: list[bytes] = []

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        rest.append(await session.until_end())

    async with connected(script) as (connection, _):
        first = connection.submit(transaction(before_dot=answer))
        second = connection.submit(transaction())
        replies = await first
        assert not replies.dot_sent
        assert replies.ours
        assert "held back by us" in replies.broken
        assert (await second).ours
        assert not connection.alive
        await wait_until(lambda: rest)
        assert rest == [b""]


async def test_permission_refused_at_once_drops_a_connection_too() -> None:
    def before_dot() -> Awaitable[bool]:
        raise RuntimeError("no mark was made")

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction(before_dot=before_dot))
        assert replies.ours
        assert "no mark was made" in replies.broken


async def test_a_long_content_is_streamed_while_its_dot_waits_for_permission() -> None:
    content = b"Subject: long\r\n\r\n" + b".a line that starts with a dot\r\n" * 60_000
    allowed = asyncio.Event()

    async def before_dot() -> bool:
        await allowed.wait()
        return True

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        taken = await session.reader.readexactly(len(stuffed))
        assert not allowed.is_set()
        allowed.set()
        assert taken == stuffed
        assert await session.reader.readexactly(3) == b".\r\n"
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction(content=content, before_dot=before_dot))
        assert replies.final is not None
        assert replies.final.code == 250


async def test_leave_for_the_dot_of_a_long_content_is_asked_for_when_all_of_it_is_out() -> None:
    content = (b"x" * 998 + b"\r\n") * 60_000  # more than sockets hold
    asked: list[str] = []

    async def before_dot() -> bool:
        asked.append("now")
        return True

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.reader.readexactly(len(content) // 2)
        assert not asked
        await session.reader.readexactly(len(content) // 2)
        assert await session.reader.readexactly(3) == b".\r\n"
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction(content=content, before_dot=before_dot))
        assert replies.dot_sent
        assert asked == ["now"]


async def test_a_long_content_waits_for_a_far_end_that_takes_nothing() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        session.writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with connected(script, command_timeout=1) as (connection, _):
        content = b"x" * 998 + b"\r\n"
        replies = await connection.submit(transaction(content=content * 20_000))
        assert replies.broken == "the message was not taken within 1 s"
        assert not replies.dot_sent


@pytest.mark.parametrize("last", [b"x", b"x\r\n", b".", b"\r\n.\r\n", b"\r\n."])
@pytest.mark.parametrize("length", [10, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_every_length_arrives_whole(length: int, last: bytes) -> None:
    line = b"..line\r\n"
    content = (line * (length // len(line) + 1))[: length - len(last)] + last
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n")
    taken: list[bytes] = []

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        taken.append(await session.content())
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        await connection.submit(transaction(content=content))
        unstuffed = b"".join(
            line[1:] if line.startswith(b".") else line for line in taken[0].splitlines(True)
        )
        assert unstuffed == (content if content.endswith(b"\r\n") else content + b"\r\n")


async def test_a_bare_line_feed_in_the_queue_cannot_end_a_message_early() -> None:
    taken: list[bytes] = []

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        taken.append(await session.content())
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        await connection.submit(transaction(content=b"a\n.\nMAIL FROM:<x@y>\r.\r\n"))
        assert taken == [b"a\r\n..\r\nMAIL FROM:<x@y>\r\n..\r\n"]


async def test_when_everybody_is_refused_and_354_comes_a_lone_dot_ends_it() -> None:
    asked: list[bool] = []

    async def before_dot() -> bool:
        asked.append(True)
        return True

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL, "550 5.1.1 no", GO_ON)
        assert await session.content() == b""
        await session.say("554 5.5.1 Error: no valid recipients")
        assert (await session.envelope())[1] == "RCPT TO:<second@example.net>"
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        first = connection.submit(transaction(before_dot=before_dot))
        second = connection.submit(transaction("second@example.net"))
        replies = await first
        assert not replies.dot_sent
        assert replies.final is None
        assert not replies.broken
        assert str(replies.recipients["b@example.net"]) == "550 5.1.1 no"
        assert str((await second).final) == OK_FINAL
        assert not asked


async def test_when_data_is_refused_rset_goes_before_the_next_mail() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL, "550 5.1.1 no", "554 5.5.1 Error: no valid recipients")
        lines = await session.envelope()
        assert lines[0] == "RSET"
        assert lines[1].startswith("MAIL ")
        await session.say("250 2.0.0 Ok", *ENVELOPE_OK)
        await session.content()
        await session.say(OK_FINAL)
        assert (await session.envelope())[0].startswith("MAIL ")

    async with connected(script) as (connection, peer):
        first = connection.submit(transaction())
        second = connection.submit(transaction())
        assert str((await first).data) == "554 5.5.1 Error: no valid recipients"
        assert str((await second).final) == OK_FINAL
        connection.submit(transaction())
        await wait_until(lambda: peer.heard[-1] == "DATA")


async def test_a_refused_rset_ends_the_connection_and_blames_no_mail() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL, "550 5.1.1 no", "554 5.5.1 no valid recipients")
        await session.envelope()
        await session.say("500 what")

    async with connected(script) as (connection, _):
        await connection.submit(transaction())
        replies = await connection.submit(transaction())
        assert "RSET" in replies.broken
        assert replies.mail is None


async def test_a_refused_mail_is_told_apart_from_the_message_before_it() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.envelope()
        await session.say(
            OK_FINAL,
            "550 5.1.8 sender refused",
            "503 5.5.1 Error: need MAIL command",
            "503 5.5.1 Error: need RCPT command",
        )

    async with connected(script) as (connection, _):
        first = connection.submit(transaction())
        second = connection.submit(transaction())
        assert str((await first).final) == OK_FINAL
        replies = await second
        assert str(replies.mail) == "550 5.1.8 sender refused"
        assert not replies.dot_sent
        assert connection.alive


async def test_354_after_a_refused_mail_and_a_taken_recipient_ends_the_connection() -> None:
    rest: list[bytes] = []

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say("550 5.1.8 sender refused", OK_RCPT, GO_ON)
        rest.append(await session.until_end())

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction())
        assert "impossible reply" in replies.broken
        await wait_until(lambda: rest)
        assert rest == [b""]


async def test_421_in_mid_pipeline_ends_both_transactions_with_what_was_known() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL, "550 5.1.1 no", "421 4.3.2 shutting down")
        session.drop()

    async with connected(script) as (connection, _):
        first = connection.submit(transaction("b@example.net", "c@example.net", "d@example.net"))
        second = connection.submit(transaction())
        replies = await first
        assert {a: r.code for a, r in replies.recipients.items()} == {
            "b@example.net": 550,
            "c@example.net": 421,
        }
        assert replies.broken == "the far end closes: 421 4.3.2 shutting down"
        assert replies.owed
        replies = await second
        assert replies.mail is None
        assert replies.broken
        assert not replies.owed
        assert not connection.alive


async def test_421_to_the_final_dot_is_a_reply() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.say("421 4.3.2 try again later")

    async with connected(script) as (connection, _):
        first = connection.submit(transaction())
        second = connection.submit(transaction())
        assert str((await first).final) == "421 4.3.2 try again later"
        replies = await second
        assert replies.broken
        assert not replies.dot_sent
        assert await connection.lost == "the far end closes: 421 4.3.2 try again later"


async def test_a_drop_with_a_dot_and_an_envelope_in_flight_leaves_only_the_first_unknown() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.envelope()
        session.drop()

    async with connected(script) as (connection, _):
        first = connection.submit(transaction())
        second = connection.submit(transaction())
        replies = await first
        assert replies.dot_sent
        assert replies.final is None
        assert replies.broken
        assert replies.owed
        replies = await second
        assert not replies.dot_sent
        assert replies.broken
        assert not replies.owed


async def test_a_drop_before_anything_was_written_is_not_held_against_the_message() -> None:
    async def script(session: Session) -> None:
        await session.until_end()

    async with connected(script) as (connection, _):
        future = connection.submit(transaction())
        connection.eof_received()  # in the same turn of the loop: nothing is written yet
        replies = await future
        assert replies.broken == "the far end closed the connection"
        assert not replies.owed
        assert not replies.ours


async def test_a_drop_while_the_dot_waits_ends_the_waiting_but_not_the_callers_future() -> None:
    waiting = asyncio.Event()
    ended = asyncio.Event()
    callers: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def before_dot() -> bool:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return True

    def asked() -> Awaitable[bool]:
        waiting.set()
        return callers

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await waiting.wait()
        session.drop()

    async with connected(script) as (connection, _):
        assert not (await connection.submit(transaction(before_dot=before_dot))).dot_sent
        await asyncio.wait_for(ended.wait(), 5)
    waiting.clear()
    async with connected(script) as (connection, _):
        assert not (await connection.submit(transaction(before_dot=asked))).dot_sent
        assert not callers.done()
        callers.set_result(True)  # too late, and harmless
        await connection.lost


async def test_a_drop_before_354_leaves_nothing_unknown() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL)
        session.drop()

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction())
        assert replies.mail is not None
        assert not replies.recipients
        assert not replies.dot_sent
        assert replies.broken


async def test_silence_after_a_command_ends_the_connection_in_time() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL)

    async with connected(script, command_timeout=1, final_timeout=30) as (connection, _):
        replies = await connection.submit(transaction())
        assert replies.broken == "no reply to RCPT within 1 s"


async def test_silence_after_the_dot_has_its_own_time_and_leaves_the_outcome_unknown() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()

    async with connected(script, command_timeout=30, final_timeout=0.2) as (connection, _):
        replies = await connection.submit(transaction())
        assert replies.broken == "no reply to the final dot within 0.2 s"
        assert replies.dot_sent


async def test_a_slow_final_reply_is_waited_for_longer_than_a_command() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.reader.read(1), 1.5)
        await session.say(OK_FINAL)

    async with connected(script, command_timeout=1, final_timeout=30) as (connection, _):
        assert (await connection.submit(transaction())).final is not None


async def test_time_spent_on_our_own_permission_is_not_the_far_ends() -> None:
    allowed = asyncio.get_running_loop().create_future()

    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.reader.read(1), 1.5)
        allowed.set_result(True)
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script, command_timeout=1) as (connection, _):
        replies = await connection.submit(transaction(before_dot=lambda: allowed))
        assert replies.final is not None


async def test_replies_may_come_octet_by_octet() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        for octet in b"250-2.1.0 one\r\n250 2.1.0 two\r\n250 2.1.5 Ok\r\n354 go\r\n":
            await session.send(bytes([octet]))
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction())
        assert replies.mail is not None
        assert replies.mail.text == "2.1.0 one\n2.1.0 two"
        assert replies.final is not None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not an SMTP reply"),
        (b"\x00\xff\xfe garbage\r\n", "not an SMTP reply"),
        (b"99999 no\r\n", "not an SMTP reply"),
        (b"x" * 70_000, "without end"),
        (b"250-and on\r\n" * 5_000, "without end"),
        (b"354 go on\r\n", "impossible reply to MAIL"),
    ],
)
async def test_what_is_no_reply_ends_the_connection_and_nothing_is_sent(
    said: bytes, why: str
) -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.send(said)

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction())
        assert why in replies.broken
        assert not replies.dot_sent
        assert replies.mail is None


async def test_a_final_reply_before_garbage_still_counts() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()
        await session.send(OK_FINAL.encode() + b"\r\n\xff\xfe\r\n")

    async with connected(script) as (connection, _):
        assert str((await connection.submit(transaction())).final) == OK_FINAL
        assert "not an SMTP reply" in await connection.lost


async def test_250_to_data_is_not_taken_for_a_message_sent() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(OK_MAIL, OK_RCPT, "250 2.0.0 Ok")

    async with connected(script) as (connection, _):
        replies = await connection.submit(transaction())
        assert "impossible reply to DATA" in replies.broken
        assert replies.final is None
        assert not replies.dot_sent


async def test_a_refusal_in_the_middle_of_a_long_content_counts_and_no_dot_follows() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.reader.readexactly(1000)
        await session.say("552 5.3.4 too big")

    async with connected(script) as (connection, _):
        content = b"x" * 998 + b"\r\n"
        replies = await connection.submit(transaction(content=content * 20_000))
        assert str(replies.final) == "552 5.3.4 too big"
        assert not replies.dot_sent
        assert not connection.alive


async def test_a_drop_in_the_middle_of_a_long_content_leaves_nothing_unknown() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.reader.readexactly(1000)
        session.drop()

    async with connected(script) as (connection, _):
        content = b"x" * 998 + b"\r\n"
        replies = await connection.submit(transaction(content=content * 20_000))
        assert replies.broken
        assert not replies.dot_sent


async def test_a_word_while_nothing_is_outstanding_ends_the_connection() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say("550 5.1.8 no", "503 5.5.1 no", "503 5.5.1 no")
        await heard.wait()
        await session.say("421 4.4.2 idle too long")

    heard = asyncio.Event()
    async with connected(script) as (connection, _):
        await connection.submit(transaction())
        assert connection.free_slots == 2
        heard.set()
        assert await connection.lost == "the far end said unasked: 421 4.4.2 idle too long"
        assert not connection.alive
        assert connection.free_slots == 0
        replies = await connection.submit(transaction())
        assert "idle too long" in replies.broken
        assert not replies.ours


async def test_a_refused_message_leaves_the_connection_in_use() -> None:
    async def script(session: Session) -> None:
        for final in ("554 5.7.1 spam", OK_FINAL):
            await session.envelope()
            await session.say(*ENVELOPE_OK)
            await session.content()
            await session.say(final)

    async with connected(script) as (connection, _):
        assert str((await connection.submit(transaction())).final) == "554 5.7.1 spam"
        assert str((await connection.submit(transaction())).final) == OK_FINAL


async def test_eight_bit_content_is_announced_where_that_is_offered() -> None:
    async def script(session: Session) -> None:
        assert (await session.envelope())[0] == "MAIL FROM:<a@example.com> SIZE=6 BODY=8BITMIME"

    async with connected(script) as (connection, peer):
        connection.submit(transaction(content="gr\xfc\r\n".encode()[:-2] + b"\r\n"))
        await wait_until(lambda: peer.heard[-1] == "DATA")


async def test_nothing_is_announced_that_is_not_offered() -> None:
    async def script(session: Session) -> None:
        assert (await session.envelope())[0] == "MAIL FROM:<a@example.com>"

    async with connected(script, extensions=("PIPELINING",)) as (connection, peer):
        connection.submit(transaction(content=b"\xfc\r\n"))
        await wait_until(lambda: peer.heard[-1] == "DATA")


# -- where PIPELINING is not offered -------------------------------------------------------------

PLAIN = ("SIZE 20480000",)


async def in_turn(session: Session, command: str, reply: str) -> None:
    """Hear one command, make sure that nothing follows it, and answer."""
    line = await session.line()
    assert line.startswith(command), line
    assert not session.reader._buffer  # type: ignore[attr-defined]  # the only way to look ahead
    await session.say(reply)


async def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    async def script(session: Session) -> None:
        for _ in range(2):
            await in_turn(session, "MAIL", OK_MAIL)
            await in_turn(session, "RCPT TO:<b@", OK_RCPT)
            await in_turn(session, "RCPT TO:<c@", "450 4.2.1 later")
            await in_turn(session, "DATA", GO_ON)
            assert await session.content() == CONTENT
            await session.say(OK_FINAL)

    async with connected(script, extensions=PLAIN) as (connection, _):
        for _ in range(2):
            assert connection.free_slots == 1
            future = connection.submit(transaction("b@example.net", "c@example.net"))
            assert connection.free_slots == 0
            replies = await future
            assert {a: r.code for a, r in replies.recipients.items()} == {
                "b@example.net": 250,
                "c@example.net": 450,
            }
            assert str(replies.final) == OK_FINAL


async def test_without_pipelining_no_data_follows_when_everybody_is_refused() -> None:
    async def script(session: Session) -> None:
        await in_turn(session, "MAIL", OK_MAIL)
        await in_turn(session, "RCPT", "550 5.1.1 no")
        await in_turn(session, "RSET", "250 2.0.0 Ok")
        await in_turn(session, "MAIL", "550 5.1.8 no")
        await in_turn(session, "MAIL", OK_MAIL)
        await in_turn(session, "RCPT", OK_RCPT)
        await in_turn(session, "DATA", GO_ON)
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script, extensions=PLAIN) as (connection, _):
        replies = await connection.submit(transaction())
        assert replies.recipients["b@example.net"].code == 550
        assert replies.data is None
        assert not replies.broken
        replies = await connection.submit(transaction())
        assert str(replies.mail) == "550 5.1.8 no"
        assert not replies.recipients
        assert str((await connection.submit(transaction())).final) == OK_FINAL


async def test_without_pipelining_a_reply_too_many_ends_the_connection() -> None:
    async def script(session: Session) -> None:
        await in_turn(session, "MAIL", f"{OK_MAIL}\r\n{OK_RCPT}")

    async with connected(script, extensions=PLAIN) as (connection, _):
        replies = await connection.submit(transaction())
        assert replies.broken == f"the far end said unasked: {OK_RCPT}"
        assert not replies.recipients


async def test_without_pipelining_a_reply_in_pieces_repeats_no_command() -> None:
    halved = asyncio.Event()

    async def script(session: Session) -> None:
        await session.line()
        await halved.wait()
        await session.send(b"0 Ok\r\n")
        await in_turn(session, "RCPT", OK_RCPT)
        await in_turn(session, "DATA", GO_ON)
        await session.content()
        await session.say(OK_FINAL)

    async with connected(script, extensions=PLAIN) as (connection, peer):
        future = connection.submit(transaction())
        await wait_until(lambda: peer.heard[-1].startswith("MAIL"))
        connection.data_received(b"250 2.1.")  # sent for real, both halves may come as one
        halved.set()
        assert (await future).final is not None
        assert [line[:4] for line in peer.heard[-3:]] == ["MAIL", "RCPT", "DATA"]


# -- the end -------------------------------------------------------------------------------------


async def test_close_says_quit() -> None:
    async def script(session: Session) -> None:
        assert await session.line() == "QUIT"
        await session.say("221 2.0.0 Bye")

    async with connected(script) as (connection, peer):
        await connection.close()
        assert peer.heard[-1] == "QUIT"
        assert connection.lost.result() == "closed by us"
        replies = await connection.submit(transaction())
        assert replies.ours


async def test_close_under_a_transaction_leaves_the_outcome_to_the_dot() -> None:
    async def script(session: Session) -> None:
        await session.envelope()
        await session.say(*ENVELOPE_OK)
        await session.content()

    async with connected(script) as (connection, peer):
        first = connection.submit(transaction())
        await wait_until(lambda: peer.heard[-1] == "DATA")
        second = connection.submit(transaction())
        await wait_until(lambda: peer.heard.count("DATA") == 1 and connection._line[0][0].dot_sent)
        await connection.close()
        replies = await first
        assert replies.dot_sent
        assert replies.ours
        assert replies.final is None
        assert not (await second).dot_sent
        assert "QUIT" not in peer.heard


async def test_the_certificates_end_is_known() -> None:
    async def script(session: Session) -> None:
        await session.until_end()

    async with connected(script) as (connection, _):
        assert connection.certificate_expiry is not None
        assert connection.certificate_expiry > 1_700_000_000


@pytest.mark.parametrize(
    "address", ["a@b\r\nRSET", "a@b> SIZE=1", "a@b\x00", "grü@example.com", "a\tb@c"]
)
def test_an_address_cannot_carry_a_command(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        transaction(address)
    with pytest.raises(ValueError, match="not an address"):
        transaction(mail_from=address)


def test_a_transaction_has_a_recipient() -> None:
    with pytest.raises(ValueError, match="without recipients"):
        Transaction("a@example.com", (), CONTENT, yes)
