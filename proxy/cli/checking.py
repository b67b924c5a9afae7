"""`franker check`: can mail be kept, and can it leave?"""

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from proxy.cli.findings import Finding, held, left_behind, paused
from proxy.cli.host import Host, find_host
from proxy.cli.options import EX_FAILED, config_option, example, json_option, print_json
from proxy.cli.store import TIMEOUT_S, no_answer

if TYPE_CHECKING:
    from worker.smarthost.endpoints import Endpoint
    from worker.smarthost.sasl import Login

_DAY_S = 86_400.0
_SOON_DAYS = 14


@click.command(
    epilog=example(
        "franker check", "franker check --json | jq '.[] | select(.state == \"failed\")'"
    )
)
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Look whether mail can be kept and whether it can leave; send nothing.

    Configuration, store, and for each stream and port: connection, STARTTLS, certificate, login.
    A stream needs one port that works: the others are noted. Fails with 1 when mail cannot be kept
    or a stream's mail cannot leave.
    """
    host = find_host(config)
    findings = [
        Finding("configuration", host.source, "ok", "read"),
        *(Finding("configuration", host.source, "note", notice) for notice in host.notices),
        *_told(host),
        *asyncio.run(_look(host)),
    ]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.state:6}  {finding.what}  {finding.where}: {finding.detail}")
    if any(finding.state == "failed" for finding in findings):
        sys.exit(EX_FAILED)


def _told(host: Host) -> list[Finding]:
    """Say who hears of trouble."""
    from proxy.config import told_nobody

    notify = host.settings.notify
    nobody = told_nobody(host.settings)
    if nobody:
        return [Finding("alerts", "notify", "note", nobody)]
    if not notify.command:
        return [Finding("alerts", "notify.command", "note", "not set: log and metrics only")]
    found = shutil.which(notify.command[0])
    if found is None:
        detail = f"{notify.command[0]}: no such program, nobody hears of alerts"
        return [Finding("alerts", "notify.command", "failed", detail)]
    return [Finding("alerts", "notify.command", "ok", found)]


async def _look(host: Host) -> list[Finding]:
    found = await asyncio.gather(
        _store(host),
        paused(host),
        left_behind(host),
        held(host),
        *(_stream(host, name) for name in host.settings.streams),
        *(_look_up(host, name) for name in host.settings.streams),
    )
    return [finding for group in found for finding in group]


async def _store(host: Host) -> list[Finding]:
    import redis.exceptions

    from proxy.queue.connection import open_redis, target
    from proxy.queue.durability import judge
    from proxy.queue.store import StoreConnection

    try:
        where = target(host.settings, host.data_dir)
        client = open_redis(host.settings, host.data_dir, timeout=TIMEOUT_S)
    except ValueError as error:
        return [Finding("store", host.settings.redis.url, "failed", str(error))]
    name = f"private Redis in {host.data_dir}"
    if host.settings.redis.url:
        name = where.service or where.url.rpartition("@")[2]
    connection = StoreConnection(client)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await connection.open(())
            info = await connection.info()
            judged = judge(await connection.settings(), info, replicated=bool(where.sentinels))
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        return [Finding("store", name, "failed", f"no answer: {no_answer(host, error)}")]
    finally:
        await connection.close()
        await client.aclose()
    room, full = _room(host, info)
    if full:
        return [Finding("store", name, "failed", full)]
    if judged.durable:
        return [Finding("store", name, "ok", f"durable, {room}")]
    if host.settings.redis.require_durable:
        return [Finding("store", name, "failed", f"not durable, no mail is taken: {judged.reason}")]
    return [Finding("store", name, "note", f"not durable, as allowed: {judged.reason}; {room}")]


def _room(host: Host, info: Mapping[str, str]) -> tuple[str, str]:
    """Return how much room for mail there is, and why there is none, each in words."""
    from proxy.queue.capacity import memory_here, no_room_on_disk, room_for_mail

    redis = host.settings.redis
    limit = None if redis.max_memory == "auto" else redis.max_memory
    room = room_for_mail(limit, info, private=not redis.url, here=memory_here())
    disk = "" if redis.url else no_room_on_disk(host.data_dir)
    if not disk and not room.is_full:
        return str(room), ""
    taken = not disk and room.is_servers
    mail = "mail goes to the journal as long as that has room" if taken else "no mail is taken"
    return str(room), f"full, {mail}: {disk or room}"


async def _stream(host: Host, name: str) -> list[Finding]:
    """Try every port of one stream."""
    from worker.smarthost.endpoints import Endpoint
    from worker.smarthost.host import way_of

    way = way_of(host.settings.streams[name], host.settings.postmark)
    logins = way.logins()
    ports = host.settings.postmark.ports
    found = list(
        await asyncio.gather(
            *(_port(host, name, Endpoint(way.host, port), logins) for port in ports)
        )
    )
    if not logins:
        lacking = f"no login, its mail waits: {way.names} is not set"
        return [*found, Finding(f"stream {name}", way.host, "failed", lacking)]
    if all(finding.state == "failed" for finding in found):
        return found
    # One port is enough; clouds block 25.
    return [
        replace(finding, state="note", detail=f"{finding.detail} (another port works)")
        if finding.state == "failed"
        else finding
        for finding in found
    ]


async def _look_up(host: Host, name: str) -> list[Finding]:
    """Ask Postmark's API for a message that is not there, as after a lost reply."""
    from functools import partial

    from worker.outcomes.api import Api, TokenRefused, Unanswered
    from worker.outcomes.inquiry import api_tokens, by_token
    from worker.smarthost.tls import TrustStore

    postmark, stream = host.settings.postmark, host.settings.streams[name]
    what, tokens = f"look-ups {name}", api_tokens(stream)
    if not tokens:
        unasked = (
            f"no api_token: mail whose last reply is lost follows unknown_outcome = "
            f'"{postmark.unknown_outcome}"'
        )
        return [Finding(what, postmark.api_url, "note", unasked)]
    api = Api(postmark.api_url, TrustStore(postmark.ca_file), timeout=TIMEOUT_S)
    question = partial(api.messages, stream_id=stream.id or name, message_id="0" * 26)
    try:
        _, secret = await by_token(tokens, question)
    except TokenRefused as error:
        # With the login's token the stream's own lines say it.
        state: Literal["note", "failed"] = "failed" if stream.api_token else "note"
        return [Finding(what, postmark.api_url, state, str(error))]
    except Unanswered as error:
        return [Finding(what, postmark.api_url, "note", str(error))]
    finally:
        await api.close()
    return [Finding(what, postmark.api_url, "ok", f"{secret.name} accepted")]


async def _port(
    host: Host, stream: str, endpoint: "Endpoint", logins: Sequence["Login"]
) -> Finding:
    """Connect, STARTTLS, log in by the first credential that is accepted, and leave."""
    import socket

    from worker.replies import ConnectFailure
    from worker.smarthost.opening import connect
    from worker.smarthost.tls import TrustStoreUnusable, client_context
    from worker.verdict import Blame, judge_connect

    what, where = f"stream {stream}", str(endpoint)
    refused: list[str] = []
    for login in logins or (None,):
        try:
            connection = await connect(
                endpoint,
                login,
                tls=client_context(host.settings.postmark.ca_file),
                auth=host.settings.postmark.auth,
                local_hostname=socket.gethostname(),
                command_timeout=TIMEOUT_S * 2,
            )
        except TrustStoreUnusable as error:
            return Finding(what, where, "failed", str(error))
        except ConnectFailure as failure:
            days = _days_left(failure.certificate_expiry)
            if login is not None and judge_connect(failure) is Blame.CREDENTIALS:
                refused.append(f"{login.name}: {failure}")
                continue
            return Finding(what, where, "failed", str(failure), days)
        days = _days_left(connection.certificate_expiry)
        await connection.close()
        steps = ["STARTTLS verified", f"certificate ends in {days} days"]
        steps.append(f"login by {login.name} accepted" if login else "no login tried")
        soon = days is not None and days < _SOON_DAYS
        state: Literal["ok", "note"] = "note" if soon or refused else "ok"
        return Finding(what, where, state, ", ".join([*steps, *refused]), days)
    return Finding(what, where, "failed", "; ".join(refused))


def _days_left(expiry: float | None) -> int | None:
    return None if expiry is None else int((expiry - time.time()) // _DAY_S)
