"""The store as a command uses it: open for the time of the command, its absence said in words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from proxy.cli.host import Host
from proxy.cli.options import fail

if TYPE_CHECKING:
    import redis.asyncio

_TIMEOUT_S = 30.0


@asynccontextmanager
async def open_store(host: Host) -> "AsyncIterator[redis.asyncio.Redis]":
    """Yield a client; leave with 1 when Redis does not answer."""
    from redis.exceptions import RedisError

    from proxy.queue.connection import open_redis

    client = None
    try:
        client = open_redis(host.settings, host.data_dir, timeout=_TIMEOUT_S)
        yield client
    except BrokenPipeError:  # whoever reads our output has enough
        raise
    except (RedisError, OSError, ValueError) as error:
        where = "" if host.settings.redis.url else f" (private Redis in {host.data_dir})"
        hint = "" if host.settings.redis.url else "; `franker run` or `franker redis` starts it"
        fail(f"the store does not answer{where}: {error}{hint}")
    finally:
        if client is not None:
            await client.aclose()
