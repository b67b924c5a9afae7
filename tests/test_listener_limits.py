"""What the listener holds at most: memory, connections, recipients, and other people's time."""

import asyncio

import pytest

from proxy.listener.connection import LINE_LIMIT
from tests.support.listening import MESSAGE, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MB = 1_000_000


def line_of(size: int) -> bytes:
    """Return `size` octets of text in lines."""
    return (b"x" * 70 + b"\r\n") * (size // 72)


async def test_a_message_over_the_limit_is_552_with_both_sizes(redis_server: RedisServer) -> None:
    async with front(redis_server, listen={"max_message_size": 20_000}) as office:
        dialog = await office.dial()
        content = MESSAGE + line_of(30_000)
        assert await dialog.mail(content) == (
            f"552 5.3.4 Message of {len(content)} octets is over the limit of 20000 octets "
            "(listen.max_message_size)"
        )
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_message_that_grows_over_the_limit_is_552_too(redis_server: RedisServer) -> None:
    async with front(redis_server, listen={"max_message_size": 20_000}) as office:
        dialog = await office.dial()
        content = MESSAGE + line_of(19_500 - len(MESSAGE))
        content += b"y" * (19_990 - len(content)) + b"\r\n"
        answer = await dialog.mail(content)
        assert answer.startswith("552 5.3.4 ")
        assert "20000" in answer
        assert str(len(content)) in answer
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_line_without_end_costs_no_memory_and_is_552(redis_server: RedisServer) -> None:
    async with front(redis_server, listen={"max_message_size": 100_000}) as office:
        dialog = await office.dial()
        await dialog.begin()
        most = 0
        for _ in range(80):
            dialog.send(b"x" * 10_000)
            await dialog.writer.drain()
            await asyncio.sleep(0)
            most = max(most, office.listener.held)
        dialog.send(b"\r\n.\r\n")
        assert (await dialog.reply()).startswith("552 5.3.4 Message of 800002 octets ")
        assert most <= 100_003
        assert office.listener.held == 0
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_message_that_never_ends_hears_552_and_is_cut_off(
    redis_server: RedisServer,
) -> None:
    async with front(
        redis_server, listen={"max_message_size": 10_000}, limits={"timeout": 1.0}
    ) as office:
        dialog = await office.dial()
        await dialog.begin()
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not dialog.reader.at_eof() and loop.time() - started < 30:
            dialog.send(b"x" * 10_000)
            try:
                await dialog.writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0.001)
        assert loop.time() - started < 30
        await wait_until(lambda: office.listener.sessions == 0, what="the session is cut off")
        assert office.listener.held == 0


async def test_the_early_552_is_the_only_reply_when_the_end_comes_after_all(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"max_message_size": 10_000}) as office:
        dialog = await office.dial()
        await dialog.begin()
        for _ in range(11):
            dialog.send(line_of(10_000))
        answer = await dialog.reply()
        assert answer.startswith("552 5.3.4 After ")
        assert "is without end" in answer
        dialog.send(b"\r\n.\r\n")
        assert await dialog.say("NOOP") == "250 2.0.0 Ok"
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_command_line_too_long_is_500_and_the_session_goes_on(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        for length in (LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT, 10 * LINE_LIMIT + 7):
            answer = await dialog.say(b"NOOP " + b"x" * length)
            assert answer == "500 5.5.2 Command line too long"
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_command_line_without_end_ends_the_session(redis_server: RedisServer) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        for _ in range(40):
            dialog.send(b"x" * 50_000)
        await wait_until(lambda: office.listener.sessions == 0, what="the session is ended")


async def test_recipients_beyond_the_limit_are_452_and_the_others_go_out(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"max_recipients": 3}) as office:
        dialog = await office.dial()
        await dialog.begin(recipients=tuple(f"u{n}@example.net" for n in range(3)), data=False)
        assert await dialog.say("RCPT TO:<u3@example.net>") == (
            "452 4.5.3 One message takes 3 recipients (listen.max_recipients); "
            "send the rest in another"
        )
        assert await dialog.say("RCPT TO:<u1@example.net>") == "250 2.1.5 Ok"
        assert (await dialog.say("DATA")).startswith("354")
        dialog.send(MESSAGE + b".\r\n")
        assert (await dialog.reply()).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["to"] == ["u0@example.net", "u1@example.net", "u2@example.net"]


async def test_a_thousand_recipients_are_taken(redis_server: RedisServer) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.begin(recipients=(), data=False)
        everybody = [f"user{n}@example.net" for n in range(1000)]
        dialog.send("".join(f"RCPT TO:<{one}>\r\n" for one in everybody))
        for _ in everybody:
            assert await dialog.reply() == "250 2.1.5 Ok"
        await dialog.say("DATA")
        dialog.send(MESSAGE + b".\r\n")
        assert (await dialog.reply()).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["to"] == everybody


async def test_connections_beyond_the_limit_hear_421_until_one_is_free(
    redis_server: RedisServer,
) -> None:
    # The client's part of 1 is 1, and so is all that there is.
    async with front(redis_server, listen={"max_connections": 1}) as office:
        one = await office.dial()
        await one.begin(data=False)
        two = await office.dial(greeted=False)
        assert (await two.reply()).startswith("421 4.3.2 This client has 1 connections already")
        assert await two.ended()
        await one.say("QUIT")
        await wait_until(lambda: office.listener.sessions == 0, what="one session is over")
        four = await office.dial()
        assert (await four.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_declared_size_that_does_not_fit_now_is_452_at_mail(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"memory": 50_000}) as office:
        first = await office.dial()
        await first.begin(data=False)
        await first.say("RSET")
        await first.say("MAIL FROM:<a@example.com> SIZE=40000")
        await first.say("RCPT TO:<you@example.net>")
        await first.say("DATA")
        assert office.listener.held == 40_000
        second = await office.dial()
        answer = await second.say("MAIL FROM:<a@example.com> SIZE=20000")
        assert answer == (
            "452 4.3.1 Too much mail is coming in at once (listen.memory); not taken, try again"
        )
        first.send(MESSAGE + line_of(39_000) + b".\r\n")
        assert (await first.reply()).startswith("250 2.0.0 ")
        assert (await second.say("MAIL FROM:<a@example.com> SIZE=20000")).startswith("250 2.1.0")


async def test_a_size_that_stopped_fitting_is_452_at_data_and_the_session_goes_on(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"memory": 50_000}) as office:
        first, second = await office.dial(), await office.dial()
        for dialog in (first, second):
            await dialog.say("MAIL FROM:<a@example.com> SIZE=40000")
            await dialog.say("RCPT TO:<you@example.net>")
        assert (await first.say("DATA")).startswith("354")
        assert (await second.say("DATA")).startswith("452 4.3.1 ")
        first.send(MESSAGE + b".\r\n")
        assert (await first.reply()).startswith("250 2.0.0 ")
        assert (await second.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_content_that_does_not_fit_is_452_and_makes_room_for_the_others(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"memory": 50_000}) as office:
        first, second = await office.dial(), await office.dial()
        await first.begin()
        await second.begin()
        first.send(MESSAGE + line_of(30_000))
        await wait_until(lambda: office.listener.held > 29_000, what="the first holds its part")
        second.send(MESSAGE + line_of(30_000) + b".\r\n")
        assert (await second.reply()).startswith("452 4.3.1 ")
        first.send(line_of(15_000) + b".\r\n")
        assert (await first.reply()).startswith("250 2.0.0 ")
        assert (await second.mail(MESSAGE + line_of(30_000))).startswith("250 2.0.0 ")
        assert office.listener.held == 0


async def test_a_hundred_clients_with_10_mb_at_once_stay_within_the_memory_and_lose_nothing(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        most = 0
        content = MESSAGE + line_of(9 * MB)

        async def deliver() -> str:
            nonlocal most
            dialog = await office.dial()
            await dialog.begin()
            view = memoryview(content)
            for at in range(0, len(view), 500_000):
                dialog.writer.write(view[at : at + 500_000])
                await dialog.writer.drain()
                most = max(most, office.listener.held)
            dialog.send(b".\r\n")
            answer = await dialog.reply(100)
            await dialog.close()
            return answer

        answers = await asyncio.gather(*(deliver() for _ in range(100)))
        assert 9 * MB < most <= 48 * MB + 1000
        kept = [one for one in answers if one.startswith("250 2.0.0 ")]
        assert kept
        assert all(one.startswith("452 4.3.1 ") for one in answers if one not in kept)
        assert redis_server.client().llen("rq:queue:franker-outbound") == len(kept)
        assert office.listener.held == 0


async def test_time_does_not_run_while_we_make_the_client_wait(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front(redis_server, limits={"timeout": 1.0}) as office:
        dialog = await office.dial()
        await dialog.begin()
        redis_server.pause()
        dialog.send(MESSAGE + b".\r\n")
        with pytest.raises(TimeoutError):
            await dialog.reply(2.5)
        redis_server.resume()
        assert (await dialog.reply()).startswith("250 2.0.0 ")
