"""The proxy process: `franker proxy`. Opens everything, says so, and ends it in order."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy import log, troubles
from proxy.alerts import Alerts, Kind, View, open_alerts
from proxy.config import Loaded, Settings, told_nobody, usable_data_dir
from proxy.config.model import Notify
from proxy.drop import DropFolder, DropReader, drop_folder
from proxy.listener import Intake, Limits, Listener
from proxy.listener.counting import begin_at_zero
from proxy.listener.sockets import BindError, open_sockets
from proxy.log import systemd
from proxy.metrics.intake import ALERTS, CONFIG, QUEUE_DEPTHS, REGISTRY
from proxy.own_host import StartError, raise_file_limit
from proxy.parts import NEEDS_RESTART, Changeable, intake_for
from proxy.queue.commit import GroupCommit, group_commit
from proxy.queue.connection import open_redis
from proxy.queue.depths import feed_depths
from proxy.queue.holdings import Holdings, look_after
from proxy.queue.notes import log_by_hand
from proxy.reloading import Reloading, listen
from proxy.web import HttpServer, serve_http
from proxy.web.server import HttpError

_DEPTHS_TIMEOUT_S = 5.0


async def serve(
    settings: Settings,
    source: str,
    notices: Sequence[str],
    *,
    reread: Callable[[], Loaded] | None = None,
    ready: asyncio.Event | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Take mail until SIGTERM or SIGINT, or until `stop` is set.

    `source` says where `settings` are from, `notices` what else should be said of them. `reread`
    returns what is configured at the time of a SIGHUP; None: there is nothing to be read again.
    `ready` is set when everything is open and mail can be kept (or the store is late).

    Raises:
        StartError: an address cannot be listened on, a file named in the configuration not read.
    """
    log.setup(settings.log)
    data_dir, moved = usable_data_dir(settings, os.environ)
    for text in (*notices, moved, told_nobody(settings)):
        if text:
            log.notice(text)
    raise_file_limit(settings.listen.max_connections)
    begin_at_zero(settings)
    stopping, hung_up = stop or asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
            stack.callback(loop.remove_signal_handler, number)
        if reread is not None:
            listen(hung_up)
        streams = list(settings.streams)
        try:
            commit = await _open_store(settings, data_dir, streams, stack)
            intake, listener = await _open_listener(settings, commit, stack)
        except (BindError, ValueError, OSError) as error:
            raise StartError(str(error)) from error
        drop = await _open_drop(settings, data_dir, intake, listener, stack)
        http = await _open_http(settings, commit, stack)
        await _store_or_patience(commit, stopping)
        holdings = await stack.enter_async_context(look_after(settings, data_dir, "proxy"))
        alerts = await stack.enter_async_context(_alerts(settings, data_dir, commit, holdings))
        # What is here now stays for good: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log.started(
            "proxy",
            config=source,
            smtp=" ".join(listener.names),
            http=http.address if http is not None else "-",
            data_dir=str(data_dir),
        )
        facts = [f"X_SMTP={' '.join(listener.names)}"]
        if http is not None:
            facts.append(f"X_HTTP={http.address}")
        if missing := _missing_logins(settings):
            facts.append(f"X_NO_LOGIN={missing}")
        systemd.tell("READY=1", *facts)
        if reread is not None:
            take = Changeable(listener, commit, alerts, streams, drop).go_by
            reloading = Reloading(
                "proxy",
                hung_up,
                settings,
                notices,
                reread,
                take,
                fixed=NEEDS_RESTART,
                shown=CONFIG,
            )
            await stack.enter_async_context(reloading.at_work())
        if ready is not None:
            ready.set()
        await stopping.wait()
        systemd.tell("STOPPING=1")
        log.stopping("proxy", detail="asked to end")
        await listener.close()


def _missing_logins(settings: Settings) -> str:
    """Return which secrets a stream's mail waits for, by their names; "" when none."""
    lacking: dict[str, None] = {}
    for stream in settings.streams.values():
        for login in (stream.token, stream.access_key, stream.secret_key):
            if login and not any(secret.read() for secret in login):
                lacking |= dict.fromkeys(secret.name for secret in login)
    return ", ".join(name.removeprefix("env ") for name in lacking)


async def _open_store(
    settings: Settings, data_dir: Path, streams: Sequence[str], stack: contextlib.AsyncExitStack
) -> GroupCommit:
    """Return the way into the queue, at work; the depths of `streams` are shown, as it stands."""
    commit = group_commit(settings, data_dir)
    await commit.start()
    stack.push_async_callback(commit.close)
    reader = open_redis(settings, data_dir, timeout=_DEPTHS_TIMEOUT_S)
    stack.push_async_callback(reader.aclose)
    depths = asyncio.create_task(
        feed_depths(QUEUE_DEPTHS, reader, streams, clock=time.time),
        name="queue depths",
    )
    stack.push_async_callback(_cancel, depths)
    by_hand = asyncio.create_task(log_by_hand(reader), name="what was done by hand")
    stack.push_async_callback(_cancel, by_hand)
    return commit


async def _open_listener(
    settings: Settings, commit: GroupCommit, stack: contextlib.AsyncExitStack
) -> tuple[Intake, Listener]:
    hostname, intake = await intake_for(settings, commit)
    listener = Listener(intake, Limits.of(settings.listen), hostname)
    sockets = open_sockets(settings.listen.smtp, os.environ, log.notice)
    await listener.open(sockets, settings.listen)
    stack.push_async_callback(listener.close, 0.0)
    return intake, listener


async def _open_drop(
    settings: Settings,
    data_dir: Path,
    intake: Intake,
    listener: Listener,
    stack: contextlib.AsyncExitStack,
) -> DropReader | None:
    """Take what sendmail leaves in the drop folder; return what does, None where that cannot be."""
    folder = DropFolder(drop_folder(settings, data_dir))
    trouble = await asyncio.to_thread(folder.prepare)
    if not trouble:
        try:
            await asyncio.to_thread(folder.say_listening, listener.names)
        except OSError as error:
            why = error.strerror or str(error)
            log.notice(f"drop.folder: {folder.path}: {why}; sendmail looks for us on port 25 only")
    if trouble:
        # Mail by SMTP comes first: it is taken without.
        log.notice(f"drop.folder: {trouble}; what sendmail leaves there is not taken")
        return None
    reader = DropReader(
        folder,
        intake,
        recipients=settings.listen.max_recipients,
        refuses=listener.refuses_local,
    )
    reading = asyncio.create_task(reader.run(), name="drop")
    stack.push_async_callback(_cancel, reading)
    return reader


async def _open_http(
    settings: Settings, commit: GroupCommit, stack: contextlib.AsyncExitStack
) -> HttpServer | None:
    async def readiness() -> tuple[bool, str]:
        return not commit.unready, commit.unready

    try:
        http = await serve_http(settings.listen.http, metrics=REGISTRY, ready=readiness)
    except HttpError as error:
        # Mail comes first: a port that another program has must not keep it out.
        log.notice(f"listen.{error}; mail is taken without metrics")
        return None
    stack.push_async_callback(http.close)
    return http


def _alerts(
    settings: Settings, data_dir: Path, commit: GroupCommit, holdings: Holdings
) -> contextlib.AbstractAsyncContextManager[Alerts]:
    """Tell people of what goes wrong: store, journal, dead letters, mail held or of no stream."""
    host = socket.gethostname()
    ready_at = time.monotonic()

    def look(notify: Notify) -> View:
        nonlocal ready_at
        depths = QUEUE_DEPTHS.fed
        seen = [*troubles.dead_letters(depths), *troubles.unserved(depths)]
        if not commit.unready:
            ready_at = time.monotonic()
        durability = commit.durability
        known_bad = durability is not None and not durability.durable
        if commit.unready and (
            known_bad or time.monotonic() - ready_at > troubles.STORE_PATIENCE_S
        ):
            seen.append(troubles.store(host, commit.unready))
        journal = commit.journal
        if journal is not None and (journal.taking or journal.messages):
            refused = bool(commit.unready)
            obstacle = commit.obstacle
            seen.append(troubles.journal(host, journal.messages, obstacle, refused=refused))
        holds = holdings.holds
        seen += troubles.held(holds or (), now=time.time(), after=notify.delay)
        return View(
            tuple(seen),
            lambda kind, _: (
                (kind in (Kind.DEAD_LETTERS, Kind.UNSERVED) and not depths)
                or (kind is Kind.HELD and holds is None)
            ),
        )

    def mine(kind: Kind, subject: str) -> bool:
        return kind in (Kind.DEAD_LETTERS, Kind.HELD, Kind.UNSERVED) or (
            kind is not Kind.ROUTE and subject == host
        )

    return open_alerts(settings, data_dir, look, shown=ALERTS, mine=mine)


async def _store_or_patience(commit: GroupCommit, stopping: asyncio.Event) -> None:
    """Return when mail can be kept, when it has taken too long, or when we are to end.

    Too long: then READY is said all the same. Mail hears 451, but it is heard.
    """
    deadline = asyncio.get_running_loop().time() + troubles.STORE_PATIENCE_S
    while commit.unready and not stopping.is_set():
        if asyncio.get_running_loop().time() > deadline:
            log.notice(f"no mail is taken for now: {commit.unready}")
            return
        await asyncio.sleep(0.01)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
