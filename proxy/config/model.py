"""The configuration as frozen values: every key with its default (see franker.toml.example).

Times are seconds, sizes are octets. Whatever reads a value here may rely on it being valid; what
spans several tables is checked by `proxy.config.load` only (see `proxy.config.checks`).
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.config.fields import (
    Charset,
    Count,
    Host,
    HostName,
    HostPort,
    ListenOn,
    MailboxOrDomain,
    Network,
    OptionalDomain,
    OptionalMailbox,
    Port,
    is_mailbox,
    listed,
)
from proxy.config.rule import Rule
from proxy.config.secrets import OneSecret, Secret, Secrets
from proxy.config.section import Section
from proxy.config.units import Duration, Size, SizeOrAuto

__all__ = [
    "STREAM_ID",
    "Dead",
    "Drop",
    "Journal",
    "Listen",
    "ListenAddress",
    "ListenTLS",
    "Local",
    "Log",
    "Notify",
    "Postmark",
    "Redis",
    "Retry",
    "Rule",
    "Settings",
    "Stream",
    "Worker",
]

STREAM_ID = re.compile(r"(?!pm-)[a-z][a-z0-9_-]{0,29}")
"""Postmark's rule for a message stream's id."""

_STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")  # it names a queue and a label
_LOCAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_T = TypeVar("_T", bound=Hashable)


def _some_distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("a list of at least one, each only once")
    return values


class ListenTLS(Section):
    """Certificate and key offered to clients that insist on STARTTLS."""

    cert: Path
    key: Path


class ListenAddress(Section):
    """One address to listen on: "127.0.0.1:25", "[::1]:25" or "unix:PATH"."""

    address: ListenOn
    allow: Annotated[tuple[Network, ...], BeforeValidator(listed)] | None = None
    """None: what listen.allow says."""
    auth: Literal["", "accept"] = ""
    tls: ListenTLS | None = None


def _address(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


def _distinct_addresses(values: tuple[ListenAddress, ...]) -> tuple[ListenAddress, ...]:
    addresses = [one.address for one in values if not one.address.endswith(":0")]
    if len(set(addresses)) < len(addresses):
        raise ValueError("each address only once")
    return values


class Listen(Section):
    """[listen]: where and from whom mail is taken."""

    smtp: Annotated[
        tuple[Annotated[ListenAddress, BeforeValidator(_address)], ...],
        BeforeValidator(listed),
        AfterValidator(_distinct_addresses),
    ] = (
        ListenAddress(address="127.0.0.1:25"),
        ListenAddress(address="[::1]:25"),
    )
    http: HostPort = "127.0.0.1:9587"
    allow: Annotated[tuple[Network, ...], BeforeValidator(listed)] = ("127.0.0.0/8", "::1/128")
    max_message_size: Size = 10_000_000
    max_connections: Count = 500
    max_recipients: Count = 1000
    memory: Size = 48_000_000
    charset: Charset = "windows-1252"


def _aliases(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError('a table such as { root = "admin@example.com" }')
    table: dict[str, tuple[str, ...]] = {}
    for name, targets in value.items():
        to = listed(targets)
        if not isinstance(to, list | tuple) or not to or not all(isinstance(t, str) for t in to):
            raise ValueError(f'"{name}" needs an address, or a list of them')
        if not _LOCAL_NAME.fullmatch(name):
            raise ValueError(f'"{name}" is no name of a local user')
        table[name] = tuple(to)
    names = {name.lower() for name in table}
    for name, targets in table.items():
        for target in targets:
            if not is_mailbox(target) and target.lower() not in names:
                raise ValueError(
                    f'"{name}" goes to "{target}", which is neither an address nor another alias'
                )
    return table


class Local(Section):
    """[local]: mail for people of this host, as cron sends it."""

    names: Annotated[tuple[HostName, ...], BeforeValidator(listed)] = ()
    domain: OptionalDomain = ""
    from_: OptionalMailbox = Field(default="", alias="from")
    postmaster: OptionalMailbox = ""
    aliases: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_aliases)] = Field(
        default_factory=dict
    )
    aliases_file: str = ""


_UNIX_URL = re.compile(r"unix:///\S+")
_REDIS_URL = re.compile(r"rediss?(\+sentinel)?://(?:[^\s/@]*@)?([^\s/?@]+)(/[^\s/?]+)?([/?]\S*)?")
_HOST_MAYBE_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(?::(\d{1,5}))?", re.ASCII)


def _redis_url(value: str) -> str:
    if not value:
        return value
    userinfo, at, _ = value.partition("://")[2].rpartition("@")
    if (at and ":" in userinfo) or re.search(r"[?&]password=", value):
        raise ValueError("no password in the address; name its place in redis.password")
    if not _UNIX_URL.fullmatch(value) and not _names_servers(value):
        raise ValueError(
            "empty for a private server, or redis://HOST:PORT/0, rediss://HOST:PORT/0, "
            "unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/NAME"
        )
    return value


def _names_servers(url: str) -> bool:
    """Tell whether `url` names one server, or Sentinels and the service they watch."""
    match = _REDIS_URL.fullmatch(url)
    if match is None:
        return False
    sentinel, hosts, service = match[1], match[2].split(","), match[3]
    found = [_HOST_MAYBE_PORT.fullmatch(host) for host in hosts]
    ports_fit = all(one is not None and int(one[1] or 0) <= 65535 for one in found)
    return ports_fit and (service is not None if sentinel else len(hosts) == 1)


class Redis(Section):
    """[redis]: where mail is kept. An empty url means the private server under data_dir."""

    url: Annotated[str, AfterValidator(_redis_url)] = ""
    password: OneSecret = Secret(env="FRANKER_REDIS_PASSWORD")
    require_durable: bool = True
    max_memory: SizeOrAuto = "auto"


def _api_url(value: str) -> str:
    if not re.fullmatch(
        r"(?:https://[^\s/@?#]+|http://(?:127\.[0-9.]+|localhost|\[::1\])(?::\d+)?)(?:/[^\s@?#]*)?",
        value,
    ):
        raise ValueError('an address such as "https://api.postmarkapp.com"; http:// on loopback')
    return value


AuthMechanism = Literal["PLAIN", "CRAM-MD5", "DIGEST-MD5", "LOGIN"]


class Postmark(Section):
    """[postmark]: the far end."""

    transactional_host: Host = "smtp.postmarkapp.com"
    broadcast_host: Host = "smtp-broadcasts.postmarkapp.com"
    ports: Annotated[tuple[Port, ...], AfterValidator(_some_distinct)] = (587, 2525, 25)
    connections: Count = 10
    ca_file: str = ""
    auth: Annotated[
        tuple[AuthMechanism, ...], BeforeValidator(listed), AfterValidator(_some_distinct)
    ] = ("PLAIN", "CRAM-MD5", "DIGEST-MD5", "LOGIN")
    api_url: Annotated[str, AfterValidator(_api_url)] = "https://api.postmarkapp.com"
    verified: Annotated[tuple[MailboxOrDomain, ...], BeforeValidator(listed)] = ()
    unknown_outcome: Literal["resend", "hold"] = "resend"
    ask_for: Duration = 120.0


class Retry(Section):
    """[retry]: how often a deferred recipient is tried again, and for how long."""

    first: Duration = 30.0
    cap: Duration = 600.0
    horizon: Duration = 172_800.0


class Worker(Section):
    """[worker]: worker N of a host listens on this port + N - 1."""

    http: HostPort = "127.0.0.1:9588"


class Notify(Section):
    """[notify]: who hears of mail that dies or is late."""

    to: OptionalMailbox = ""
    from_: OptionalMailbox = Field(default="", alias="from")
    stream: str = "outbound"
    command: tuple[str, ...] = ()
    repeat: Duration = 14_400.0
    delay: Duration = 14_400.0


PRIVATE_DISK_FLOOR = 100_000_000
"""Octets that stay free where the private Redis writes: below them no mail enters it."""


class Journal(Section):
    """[journal]: how much mail may wait on this host's own disk while Redis is away."""

    max_size: Size = 1_000_000_000
    disk_floor: Size = 200_000_000


def _absolute(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValueError("a path that begins with /")
    return value


class Drop(Section):
    """[drop]: where sendmail puts mail while the proxy does not take it.

    Empty: /var/spool/franker/drop with the default data_dir, else "drop" in data_dir.
    """

    folder: Annotated[str, AfterValidator(_absolute)] = ""


class Dead(Section):
    """[dead]: how long and how much of dead mail is kept."""

    keep: Duration = 2_592_000.0
    max: Size = 200_000_000


class Log(Section):
    """[log]: the form of the lines on stderr."""

    format: Literal["kv", "json"] = "kv"
    addresses: Literal["full", "domain"] = "full"


_SERVER_TOKEN = Secret(env="POSTMARK_SERVER_TOKEN")


def _stream_id(value: str) -> str:
    if value and not STREAM_ID.fullmatch(value):
        raise ValueError(
            "Postmark's stream ids are 1 to 30 of a-z 0-9 - _, begin with a letter and not with pm-"
        )
    return value


class Stream(Section):
    """[streams.NAME]: one message stream of Postmark and the login for it.

    A stream with neither token nor access_key uses $POSTMARK_SERVER_TOKEN: one server's API token
    is good for all its streams. Either `token` or both keys are set, never all.
    """

    id: Annotated[str, AfterValidator(_stream_id)] = ""
    """Postmark's id; empty: the stream's name in the configuration."""
    kind: Literal["transactional", "broadcast"] = "transactional"
    token: Secrets = ()
    access_key: Secrets = ()
    secret_key: Secrets = ()
    api_token: Secrets = ()

    @model_validator(mode="before")
    @classmethod
    def _server_token(cls, value: object) -> object:
        keys = ("token", "access_key", "secret_key")
        if isinstance(value, dict) and not any(key in value for key in keys):
            return {**value, "token": _SERVER_TOKEN}
        return value

    @model_validator(mode="after")
    def _one_login(self) -> "Stream":
        if self.token and (self.access_key or self.secret_key):
            raise ValueError(
                "one login: either token, or access_key and secret_key (an SMTP token)"
            )
        if not self.token and len(self.access_key) != len(self.secret_key):
            raise ValueError("access_key and secret_key belong together, as many of each")
        if not self.token and not self.access_key:
            raise ValueError("a login: token, or access_key and secret_key (an SMTP token)")
        return self


def _streams(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("tables, each headed [streams.NAME]")
    return value if "outbound" in value else {"outbound": Stream(), **value}


def _stream_name(value: str) -> str:
    if not _STREAM_NAME.fullmatch(value):
        raise ValueError("a stream's name is 1 to 40 of A-Z a-z 0-9 - _, beginning with no - or _")
    return value


def _rules(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of tables, each headed [[rules]]")
    return tuple(
        {"name": f"rule-{number}", **one} if isinstance(one, dict) else one
        for number, one in enumerate(value, 1)
    )


class Settings(Section):
    """The whole configuration. `streams` always has "outbound", where mail without a rule goes."""

    data_dir: Path = Path("/var/lib/franker")
    listen: Listen = Listen()
    local: Local = Local()
    redis: Redis = Redis()
    postmark: Postmark = Postmark()
    retry: Retry = Retry()
    worker: Worker = Worker()
    notify: Notify = Notify()
    journal: Journal = Journal()
    drop: Drop = Drop()
    dead: Dead = Dead()
    log: Log = Log()
    streams: Annotated[
        dict[Annotated[str, AfterValidator(_stream_name)], Stream], BeforeValidator(_streams)
    ] = Field(default_factory=lambda: {"outbound": Stream()})
    rules: Annotated[tuple[Rule, ...], BeforeValidator(_rules)] = ()
