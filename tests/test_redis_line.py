"""One connection to Redis: replies find who asked, and what waits leaves together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from proxy.queue.wire import Wire, pack
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@asynccontextmanager
async def opened(server: RedisServer, heard: list[Any] | None = None) -> AsyncIterator[Wire]:
    """Open a wire to `server`; what answers no call goes to `heard`."""
    redis = Redis(unix_socket_path=str(server.socket))
    wire = Wire(redis, None if heard is None else heard.append)
    try:
        await wire.open()
        yield wire
    finally:
        await wire.close()
        await redis.aclose()


async def test_the_reply_to_who_has_gone_is_given_to_nobody_else(redis_server: RedisServer) -> None:
    async with opened(redis_server) as wire:
        first = wire.call(pack("ECHO", "first"))
        gone = wire.call(pack("ECHO", "gone"))
        last = wire.call(pack("ECHO", "last"))
        gone.cancel()
        assert await first == b"first"
        assert await last == b"last"
        assert await wire.call(pack("ECHO", 7)) == b"7"


async def test_calls_made_while_an_answer_is_awaited_leave_when_it_has_come_and_in_one_piece(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()

    def reads() -> int:
        found: int = client.info("stats")["total_reads_processed"]
        return found

    async with opened(redis_server) as wire:
        blocked = wire.call(pack("BLPOP", "gate", 0))
        await wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        waiting = [wire.call(pack("INCR", "counter")) for _ in range(3)]
        assert client.get("counter") is None
        client.rpush("gate", "open")
        before = reads()
        assert await blocked == [b"gate", b"open"]
        assert [await each for each in waiting] == [1, 2, 3]
        assert reads() - before == 2  # of the one piece, and of the question itself


async def test_an_error_reply_is_the_librarys_own_and_harms_no_other_call(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server) as wire:
        unknown = wire.call(pack("EVALSHA", "0" * 40, 0))
        fine = wire.call(pack("ECHO", "fine"))
        with pytest.raises(NoScriptError):
            await unknown
        assert await fine == b"fine"
        assert wire.alive


async def test_of_several_commands_the_last_reply_counts_or_the_first_error(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server) as wire:
        three = [pack("MULTI"), pack("ECHO", "within"), pack("EXEC")]
        wrong = [pack("MULTI"), pack("ECHO"), pack("NONSENSE"), pack("EXEC")]
        gone = wire.call(three, replies=3)
        fails, last = wire.call(wrong, replies=4), wire.call(three, replies=3)
        after = wire.call(pack("ECHO", "after"))
        gone.cancel()
        with pytest.raises(ResponseError, match=r"wrong number of arguments for 'echo'"):
            await fails
        assert await last == [b"within"]
        assert await after == b"after"


async def test_a_transaction_is_refused_for_the_reason_that_it_was_aborted_for(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server) as wire:
        await wire.call([pack("MULTI"), pack("SET", "key", "value")], replies=2)
        redis_server.client().config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await wire.call(pack("EXEC"))


async def test_when_the_connection_is_lost_all_who_wait_hear_so(redis_server: RedisServer) -> None:
    async with opened(redis_server) as wire:
        calls = [wire.call(pack("BLPOP", "never", 0)), wire.call(pack("PING"))]
        await wait_until(lambda: redis_server.client().info("clients")["blocked_clients"] == 1)
        redis_server.client().client_kill_filter(_type="normal", skipme=True)
        for call in (*calls, wire.call(pack("PING"))):
            with pytest.raises(RedisConnectionError):
                await call
        assert not wire.alive


async def test_what_is_published_is_heard_and_at_last_that_the_connection_ended(
    redis_server: RedisServer,
) -> None:
    heard: list[Any] = []
    async with opened(redis_server, heard) as wire:
        wire.say(pack("SUBSCRIBE", "news"))
        await wait_until(lambda: heard)
        redis_server.client().publish("news", "good")
        await wait_until(lambda: [b"message", b"news", b"good"] in heard)
    assert isinstance(heard[-1], RedisConnectionError)


async def test_what_comes_unasked_before_a_call_has_left_mixes_no_replies_up(
    redis_server: RedisServer,
) -> None:
    heard: list[Any] = []
    async with opened(redis_server, heard) as wire:
        first = wire.call(pack("ECHO", "first"))  # leaves with this turn's end
        wire.data_received(b"+unasked\r\n")
        second = wire.call(pack("ECHO", "second"))
        assert [await first, await second] == [b"first", b"second"]
        assert heard == [b"unasked"]
