"""What must hold between tables, and what is allowed but worth saying. Pure.

These run on what is valid by itself; a check is left out where a value it needs was at fault.
"""

import ipaddress
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from proxy.config.faults import Fault, Place, Written, shown
from proxy.config.local_names import LOOPBACK_NAMES
from proxy.config.model import PRIVATE_DISK_FLOOR, STREAM_ID, Listen, Settings
from proxy.config.secrets import Secret

_POSTMARK_OCTETS = 10_000_000
_DATA_DIR_OCTETS = 107 - len("/redis.sock")  # a unix socket's path: unix(7)


def cross_faults(
    settings: Settings, written: Written, found: Collection[Fault], hosts: Collection[str] = ()
) -> list[Fault]:
    """Return what is wrong between values that are each valid.

    `hosts` are this host's own names, `found` the faults already known; a check that needs a value
    at fault is left out.
    """
    faults: list[Fault] = []

    def fault(place: Place, allowed: str, *needs: Place) -> None:
        if not any(one.covers(need) for one in found for need in (place, *needs)):
            was = shown(place, written.at(place))
            faults.append(Fault(place, written.where(place), was, allowed))

    # A stream with a fault has no settings, but its name is there to be used.
    streams = [
        *settings.streams,
        *(n for n in _table(written, "streams") if n not in settings.streams),
    ]
    one_of_streams = "a stream that is configured: " + ", ".join(f'"{name}"' for name in streams)
    listen, retry = settings.listen, settings.retry
    if listen.memory < listen.max_message_size:
        fault(
            ("listen", "memory"),
            "at least listen.max_message_size, or no message of that size could ever be taken",
            ("listen", "max_message_size"),
        )
    if retry.cap < retry.first:
        fault(("retry", "cap"), "at least retry.first", ("retry", "first"))
    if retry.horizon < retry.cap:
        fault(("retry", "horizon"), "at least retry.cap", ("retry", "cap"))
    if settings.listen.http == settings.worker.http and not listen.http.endswith(":0"):
        fault(("worker", "http"), "another address than listen.http", ("listen", "http"))
    if settings.notify.stream not in streams:
        fault(("notify", "stream"), one_of_streams, ("streams",))
    if not settings.redis.url and len(os.fsencode(settings.data_dir)) > _DATA_DIR_OCTETS:
        fault(("data_dir",), f"at most {_DATA_DIR_OCTETS} octets: Redis's socket lies in it")
    for name, stream in settings.streams.items():
        if not stream.id and not STREAM_ID.fullmatch(name):
            fault(
                ("streams", name, "id"),
                f'"{name}" is no stream id of Postmark (1 to 30 of a-z 0-9 - _, beginning with a '
                "letter and not with pm-), so this key must say which stream it is",
            )
    own = {name.lower() for name in (*LOOPBACK_NAMES, *hosts, *settings.local.names)}
    for key, address, names_of_host in (
        ("from", settings.local.from_, {*LOOPBACK_NAMES}),  # a host may be called as a mail domain
        ("postmaster", settings.local.postmaster, own),
    ):
        if address.rpartition("@")[2].lower() in names_of_host:
            fault(("local", key), "an address elsewhere: this one's domain is a name of this host")
    names = Counter(rule.name for rule in settings.rules)
    for position, rule in enumerate(settings.rules):
        if rule.stream not in streams:
            fault(("rules", position, "stream"), one_of_streams, ("streams",))
        if names[rule.name] > 1:
            fault(("rules", position, "name"), "a name that no other rule has")
    return faults


def _table(written: Written, key: str) -> Mapping[str, object]:
    value = written.at((key,))
    return value if isinstance(value, dict) else {}


def notices(settings: Settings) -> list[str]:
    """Return what is allowed but should be said at start and by `franker check`."""
    return [
        *_open_doors(settings.listen),
        *_sizes(settings),
        *_clear_redis(settings.redis.url),
        *_shadowed_rules(settings),
        *_mute(settings),
        *_stuck_journal(settings),
    ]


def _open_doors(listen: Listen) -> Iterator[str]:
    allowed = {("listen.allow", text): None for text in listen.allow}
    for one in listen.smtp:
        for wider in one.allow or ():
            allowed[f"listen.smtp {one.address} allow", wider] = None
    for key, text in allowed:
        network: ipaddress.IPv4Network | ipaddress.IPv6Network = ipaddress.ip_network(text)
        if network.is_loopback:
            continue
        if network.prefixlen == 0:
            yield f"{key}: {text} lets anybody who reaches this host send mail in your name"
        elif network.num_addresses == 1:
            yield f"{key}: {text} may submit without a password"
        else:
            yield (
                f"{key}: {text} may submit without a password, {network.num_addresses:,} addresses"
            )


def _sizes(settings: Settings) -> Iterator[str]:
    if settings.listen.max_message_size > _POSTMARK_OCTETS:
        yield (
            "listen.max_message_size: above 10MB, where Postmark refuses; such mail would be "
            "kept and then die"
        )


def _stuck_journal(settings: Settings) -> Iterator[str]:
    """Say it when the journal would go on where the private Redis, on the same disk, stops."""
    floor = settings.journal.disk_floor
    if not settings.redis.url and floor < PRIVATE_DISK_FLOOR:
        yield (
            f"journal.disk_floor: {floor / 1e6:g}MB is below the"
            f" {PRIVATE_DISK_FLOOR / 1e6:.0f}MB that stay free for the private Redis on the same"
            " disk: mail that is in the journal waits there until so much is free again"
        )


def _clear_redis(url: str) -> Iterator[str]:
    if url.startswith(("redis://", "redis+sentinel://")):
        from urllib.parse import urlsplit  # rarely needed

        host = urlsplit(url.partition(",")[0]).hostname or "localhost"
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = host == "localhost"
        if not local:
            yield f"redis.url: mail and password go to {host} in clear text; rediss:// encrypts"


def _shadowed_rules(settings: Settings) -> Iterator[str]:
    for rule, later in zip(settings.rules, settings.rules[1:], strict=False):
        if rule.selects_all:
            yield (
                f"rules.{rule.name}: no key selects, so it takes all mail; "
                f'"{later.name}" and what follows is never reached'
            )
            return


def _mute(settings: Settings) -> Iterator[str]:
    """Say it when somebody is to be told by mail, and it cannot be."""
    notify, verified = settings.notify, settings.postmark.verified
    owned = [rule.name for rule in settings.rules if rule.owner]
    if not notify.to and not owned:
        return
    key, sender = "notify.from", notify.from_
    if not sender:
        key, sender = "local.from", settings.local.from_
    if not sender:
        whom = "notify.to" if notify.to else f"the owner of {', '.join(owned)}"
        yield f"notify.from is not set: {whom} will not be told of mail that dies or is late"
    elif verified and not _covers(verified, sender):
        yield f"{key}: {sender} is not in postmark.verified; Postmark may refuse the notices"


def _covers(verified: Collection[str], address: str) -> bool:
    known = {one.lower() for one in verified}
    return address.lower() in known or address.rpartition("@")[2].lower() in known


def told_nobody(settings: Settings) -> str:
    """Say it when nobody is told of anything; "" when somebody is, of something."""
    notify = settings.notify
    if notify.command or notify.to or any(rule.owner for rule in settings.rules):
        return ""
    return (
        "nobody is told when mail dies, is late or cannot leave, but by log and metrics: set"
        " notify.to (notices by mail) or notify.command (alerts)"
    )


def secret_variables(settings: Settings) -> set[str]:
    """Return the environment variables that hold secrets."""
    secrets: list[Secret] = [settings.redis.password]
    for stream in settings.streams.values():
        secrets += stream.token + stream.access_key + stream.secret_key + stream.api_token
    return {secret.env for secret in secrets if secret.env}
