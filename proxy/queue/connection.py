"""Connections to the Redis that keeps the mail: the private one, or the one `redis.url` names.

redis-py repeats commands after a time-out by default, whole transactions too, and so applies them
twice; here it never does. Whoever repeats, repeats with a script that cannot be applied twice.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from proxy import log
from proxy.config import Settings

SOCKET_NAME = "redis.sock"
"""The private server's socket under data_dir."""

CONNECT_TIMEOUT_S = 5.0
_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Target:
    """Where Redis is: `url` for redis-py, or, behind Sentinels, their addresses and the service."""

    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def target(settings: Settings, data_dir: Path) -> Target:
    """Return where `settings` say Redis is; its private server's socket when they name none.

    Raises:
        ValueError: `redis.url` has a form that is not known here.
    """
    url = settings.redis.url or f"unix://{data_dir / SOCKET_NAME}"
    options: dict[str, Any] = {}
    parts = urlsplit(url)
    if settings.redis.url and parts.password is None and (secret := settings.redis.password.read()):
        log.conceal(secret)
        options["password"] = secret
    if not parts.scheme.startswith(("redis+sentinel", "rediss+sentinel")):
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(
                f"redis.url: {parts.scheme}:// is not known;"
                " redis:// rediss:// unix:// redis+sentinel:// are"
            )
        return Target(url, options=options)
    hosts, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("redis.url: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE names no service")
    login, _, hosts = hosts.rpartition("@")
    if login:
        user, _, password = login.partition(":")
        if user:
            options["username"] = unquote(user)
        if password:
            options["password"] = unquote(password)
    options["db"] = int(database or dict(parse_qsl(parts.query)).get("db", "0"))
    options["ssl"] = parts.scheme.startswith("rediss")
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


def open_redis(settings: Settings, data_dir: Path, *, timeout: float | None) -> redis.asyncio.Redis:
    """Return a client (it connects at its first command) that never repeats a command.

    `timeout` is for each answer, in seconds; None waits for ever.

    Raises:
        ValueError: `redis.url` has a form that is not known here.
    """
    where = target(settings, data_dir)
    common = _common(timeout) | where.options | {"retry": AsyncRetry(NoBackoff(), 0)}
    if not where.sentinels:
        return redis.asyncio.Redis.from_url(where.url, **common)
    asked: Any = redis.asyncio.sentinel.Sentinel  # its methods lack annotations
    sentinel = asked(where.sentinels, sentinel_kwargs=_sentinels(AsyncRetry(NoBackoff(), 0)))
    client: redis.asyncio.Redis = sentinel.master_for(where.service, **common)
    return client


def open_redis_sync(settings: Settings, data_dir: Path, *, timeout: float | None) -> redis.Redis:
    """Return what `open_redis` does as a blocking client, for what RQ does itself."""
    where = target(settings, data_dir)
    common = _common(timeout) | where.options | {"retry": Retry(NoBackoff(), 0)}
    if not where.sentinels:
        return redis.Redis.from_url(where.url, **common)
    asked: Any = redis.sentinel.Sentinel
    sentinel = asked(where.sentinels, sentinel_kwargs=_sentinels(Retry(NoBackoff(), 0)))
    client: redis.Redis = sentinel.master_for(where.service, **common)
    return client


def _sentinels(retry: object) -> dict[str, Any]:
    return {"socket_timeout": CONNECT_TIMEOUT_S, "retry": retry}
