"""The configuration as frozen values: every key with its default (see franker.toml.example).

Times are seconds, sizes are octets. Whatever reads a value here may rely on it being valid.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from proxy.config.secrets import Secret, Secrets
from proxy.config.units import Duration, Size

STREAM_ID = re.compile(r"(?!pm-)[a-z][a-z0-9_-]{0,29}")
"""Postmark's rule for a message stream's id."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenTLS(_Section):
    """Certificate and key offered to clients that insist on STARTTLS."""

    cert: Path
    key: Path


class ListenAddress(_Section):
    """One address to listen on: "127.0.0.1:25", "[::1]:25" or "unix:PATH"."""

    address: str
    allow: tuple[str, ...] | None = None  # None: what listen.allow says
    auth: Literal["", "accept"] = ""
    tls: ListenTLS | None = None


def _address(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


class Listen(_Section):
    """[listen]: where and from whom mail is taken."""

    smtp: tuple[Annotated[ListenAddress, BeforeValidator(_address)], ...] = (
        ListenAddress(address="127.0.0.1:25"),
        ListenAddress(address="[::1]:25"),
    )
    http: str = "127.0.0.1:9587"
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_message_size: Size = 10_000_000
    max_connections: int = Field(default=500, ge=1)
    max_recipients: int = Field(default=1000, ge=1)
    memory: Size = 48_000_000
    charset: str = "windows-1252"


class Local(_Section):
    """[local]: mail for people of this host, as cron sends it."""

    names: tuple[str, ...] = ()
    domain: str = ""
    from_: str = Field(default="", alias="from")
    postmaster: str = ""
    aliases: dict[str, str | tuple[str, ...]] = {}
    aliases_file: str = ""


class Redis(_Section):
    """[redis]: where mail is kept. An empty url means the private server under data_dir."""

    url: str = ""
    password: Secret = Secret(env="FRANKER_REDIS_PASSWORD")
    require_durable: bool = True
    max_memory: Size | Literal["auto"] = "auto"


class Postmark(_Section):
    """[postmark]: the far end."""

    transactional_host: str = "smtp.postmarkapp.com"
    broadcast_host: str = "smtp-broadcasts.postmarkapp.com"
    ports: tuple[int, ...] = (587, 2525, 25)
    connections: int = Field(default=10, ge=1)
    ca_file: str = ""
    auth: tuple[Literal["PLAIN", "CRAM-MD5", "DIGEST-MD5", "LOGIN"], ...] = (
        "PLAIN",
        "CRAM-MD5",
        "DIGEST-MD5",
        "LOGIN",
    )
    api_url: str = "https://api.postmarkapp.com"
    verified: tuple[str, ...] = ()
    unknown_outcome: Literal["resend", "hold"] = "resend"


class Retry(_Section):
    """[retry]: how often a deferred recipient is tried again, and for how long."""

    first: Duration = 30.0
    cap: Duration = 600.0
    horizon: Duration = 172_800.0


class Worker(_Section):
    """[worker]: worker N of a host listens on this port + N - 1."""

    http: str = "127.0.0.1:9588"


class Log(_Section):
    """[log]: the form of the lines on stderr."""

    format: Literal["kv", "json"] = "kv"
    addresses: Literal["full", "domain"] = "full"


class Stream(_Section):
    """[streams.NAME]: one message stream of Postmark and the login for it."""

    id: str = ""  # empty: the stream's name in the configuration
    kind: Literal["transactional", "broadcast"] = "transactional"
    token: Secrets = ()
    access_key: Secrets = ()
    secret_key: Secrets = ()
    api_token: Secrets = ()


class Rule(_Section):
    """[[rules]]: which mail it is, and what is done with it."""

    name: str
    sender: tuple[str, ...] = ()
    recipient: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    login: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    stream: str = "outbound"
    tag: str = ""
    metadata: dict[str, str] = {}
    from_: str = Field(default="", alias="from")
    keep_id: bool = True
    track_opens: bool | None = None
    track_links: Literal["None", "HtmlAndText", "HtmlOnly", "TextOnly", ""] = ""
    set_headers: dict[str, str] = {}
    remove_headers: tuple[str, ...] = ()
    owner: str = ""
    expires: Duration | None = None
    action: Literal["relay", "reject", "discard"] = "relay"


class Settings(_Section):
    """The whole configuration."""

    data_dir: Path = Path("/var/lib/franker")
    listen: Listen = Listen()
    local: Local = Local()
    redis: Redis = Redis()
    postmark: Postmark = Postmark()
    retry: Retry = Retry()
    worker: Worker = Worker()
    log: Log = Log()
    streams: dict[str, Stream] = {"outbound": Stream(token=(Secret(env="POSTMARK_SERVER_TOKEN"),))}
    rules: tuple[Rule, ...] = ()
