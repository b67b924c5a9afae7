"""The store as a command uses it: open for the time of the command, its absence said in words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from proxy.cli.host import Host
from proxy.cli.options import fail, printable

if TYPE_CHECKING:
    import redis.asyncio

TIMEOUT_S = 5.0
"""For one answer of the store."""


def no_answer(host: Host, error: Exception) -> str:
    """Return what is wrong with a store that failed with `error`, and what to do."""
    from redis.exceptions import TimeoutError as RedisTimeoutError

    private = not host.settings.redis.url
    # A time-out while it connects is a ConnectionError of the library's, with these words.
    late = isinstance(error, TimeoutError | RedisTimeoutError) or str(error).startswith("Timeout")
    if late:
        advice = "its process is there and must be looked at: stopped, or waiting for its disk?"
        return f"nothing came within {TIMEOUT_S:.0f} s" + (f"; {advice}" if private else "")
    hint = "; `franker run` or `franker redis` starts it" if private else ""
    return f"{str(error) or type(error).__name__}{hint}"


@asynccontextmanager
async def open_store(host: Host) -> "AsyncIterator[redis.asyncio.Redis]":
    """Yield a client; leave with 1 when Redis does not answer."""
    from redis.exceptions import RedisError

    from proxy.queue.connection import open_redis

    client = None
    try:
        client = open_redis(host.settings, host.data_dir, timeout=TIMEOUT_S)
        yield client
    except BrokenPipeError:  # whoever reads our output has enough
        raise
    except (RedisError, OSError, ValueError) as error:
        where = "" if host.settings.redis.url else f" (private Redis in {host.data_dir})"
        fail(f"the store does not answer{where}: {no_answer(host, error)}")
    finally:
        if client is not None:
            await client.aclose()


async def check_stream(host: Host, redis: "redis.asyncio.Redis", stream: str | None) -> None:
    """Leave with 1 when no such stream is configured, and none has, or had, mail."""
    from proxy.queue.inventory import known_streams

    configured = host.settings.streams
    if stream is None or stream in configured:
        return
    known = await known_streams(redis)
    if stream not in known:
        named = ", ".join(dict.fromkeys((*configured, *known)))
        fail(f"there is no stream {printable(repr(stream))}; there are {named}")
