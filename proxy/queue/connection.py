"""Connections to the Redis that keeps the mail: the private one, or the one `redis.url` names.

redis-py repeats commands after a time-out by default, whole transactions too, and so applies them
twice; here it never does. Whoever repeats, repeats with a script that cannot be applied twice.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import redis.asyncio
import redis.asyncio.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from proxy.config import Settings

SOCKET_NAME = "redis.sock"
"""The private server's socket under data_dir."""

CONNECT_TIMEOUT_S = 5.0
_SENTINEL_PORT = 26379


def plain(client: redis.asyncio.Redis) -> Any:
    """Return `client` without the library's types: they allow decoded replies, ours are octets."""
    return client


def cancellations() -> int:
    """Return how often the current task was asked to end.

    The library loses a cancellation that arrives together with a reply, or while it connects
    (async_timeout, Python 3.11's wait_for); whoever waits for it looks here.
    """
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def end_if_cancelled() -> None:
    """Raise the CancelledError that the library may have lost: it must not be slept over."""
    if cancellations():
        raise asyncio.CancelledError


@dataclass(frozen=True, slots=True)
class Target:
    """Where Redis is: `url` for redis-py, or, behind Sentinels, their addresses and the service."""

    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def target(settings: Settings, data_dir: Path) -> Target:
    """Return where `settings` say Redis is; its private server's socket when they name none.

    The URL has been checked with the rest of the configuration; it never holds a password.
    """
    url = settings.redis.url
    if not url:
        return Target(f"unix://{data_dir / SOCKET_NAME}")
    secret = settings.redis.password.read()
    options: dict[str, Any] = {"password": secret} if secret else {}
    scheme, _, rest = url.partition("://")
    if "+sentinel" not in scheme:
        return Target(url, options=options)
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    service, _, database = path.partition("/")
    user, _, hosts = hosts.rpartition("@")
    if user:
        options["username"] = unquote(user)
    options["db"] = int(database or dict(parse_qsl(query)).get("db", "0"))
    options["ssl"] = scheme.startswith("rediss")
    return Target("", tuple(map(_address, hosts.split(","))), service, options)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return text.strip("[]"), _SENTINEL_PORT
    return host.strip("[]"), int(port)


def _common(timeout: float | None) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


class _BehindSentinels(redis.asyncio.Redis):
    """A client that ends its connections to the Sentinels with its own."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def open_redis(settings: Settings, data_dir: Path, *, timeout: float | None) -> redis.asyncio.Redis:
    """Return a client (it connects at its first command) that never repeats a command.

    `timeout` is for each answer, in seconds; None waits for ever.
    """
    where = target(settings, data_dir)
    common = _common(timeout) | where.options | {"retry": AsyncRetry(NoBackoff(), 0)}
    if not where.sentinels:
        return redis.asyncio.Redis.from_url(where.url, **common)
    asked: Any = redis.asyncio.sentinel.Sentinel  # its methods lack annotations
    sentinel = asked(where.sentinels, sentinel_kwargs=_sentinels(AsyncRetry(NoBackoff(), 0)))
    client: redis.asyncio.Redis = sentinel.master_for(
        where.service, redis_class=_BehindSentinels, **common
    )
    return client


def _sentinels(retry: object) -> dict[str, Any]:
    return {"socket_timeout": CONNECT_TIMEOUT_S, "retry": retry}
