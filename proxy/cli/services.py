"""The commands that run until they are told to stop."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from proxy.cli.host import TRIAL
from proxy.cli.options import EX_CONFIG, EX_FAILED, config_option, data_dir_of, example, fail, load
from proxy.cli.running import FILE_NAME

if TYPE_CHECKING:
    from proxy.config import Settings

_SANDBOX_FOLDER = "sandbox"


@click.command(epilog=example("POSTMARK_SERVER_TOKEN=... franker run", "franker run --sandbox"))
@config_option
@click.option("--sandbox", is_flag=True, help="Relay to a stand-in for Postmark on this machine.")
def run(config: Path | None, sandbox: bool) -> None:
    """Run everything on this host: the private Redis, the proxy, a worker.

    Each is restarted when it falls; Ctrl-C or SIGTERM ends them, Redis last. With --sandbox mail
    goes to a stand-in for Postmark, and is kept in a store of its own, so that real mail never
    ends there.
    """
    settings = load(config).settings
    data_dir = _data_dir(settings)
    parts = ["proxy", "worker"]
    if sandbox:
        if settings.redis.url:
            fail("--sandbox keeps its mail in a private Redis of its own; unset redis.url for it")
        data_dir /= TRIAL
        _point_to_sandbox(settings, data_dir)
        parts.insert(0, "sandbox")
    if not settings.redis.url:
        parts.insert(0, "redis")
    data_dir.mkdir(mode=0o700, exist_ok=True)
    os.environ["FRANKER_DATA_DIR"] = str(data_dir)
    if config is not None:
        os.environ["FRANKER_CONFIG"] = str(config.absolute())
    arguments = ["--log", settings.log.format, "--run-file", str(data_dir / FILE_NAME), *parts]
    sys.stderr.flush()
    # A fresh interpreter: the parent lives as long as the host, and needs nothing of what this
    # one has loaded. -P: a folder named proxy where it was started means nothing.
    command = [sys.executable, "-P", "-m", "proxy.supervisor", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def _data_dir(settings: "Settings") -> Path:
    """Return the folder to keep everything in, and say what must be said of it."""
    data_dir, notice = data_dir_of(settings)
    if notice and settings.log.format == "json":
        from proxy import log

        log.setup(settings.log)
        log.notice(notice)
    elif notice:
        click.echo(f"franker: {notice}", err=True)
    return data_dir


def _point_to_sandbox(settings: "Settings", data_dir: Path) -> None:
    """Make the children of this process relay to a sandbox in `data_dir`."""
    from proxy.sandbox.where import SandboxMissing, prepare, sandbox_settings

    try:
        data_dir.mkdir(mode=0o700, exist_ok=True)
        where = prepare(data_dir / _SANDBOX_FOLDER)
    except (SandboxMissing, OSError) as error:
        fail(str(error))
    os.environ.update(sandbox_settings(settings, where))


@click.command(epilog=example("franker redis --config /etc/franker/franker.toml"))
@config_option
@click.option("--needed", is_flag=True, help="Run nothing; exit with 1 if redis.url is set.")
def redis(config: Path | None, needed: bool) -> None:
    """Run the private Redis that keeps the mail: durable, on a socket in the data folder."""
    settings = load(config).settings
    if needed:
        sys.exit(EX_FAILED if settings.redis.url else 0)
    from proxy import log
    from proxy.queue.server import ServerError, run_private_redis

    log.setup(settings.log)
    try:
        run_private_redis(_data_dir(settings))
    except ServerError as error:
        _leave("redis", settings, f"franker: {error}", EX_FAILED)


@click.command(epilog=example("franker proxy --config /etc/franker/franker.toml"))
@config_option
def proxy(config: Path | None) -> None:
    """Take mail by SMTP and keep it. SIGHUP lets it read its configuration again."""
    from proxy.config import load_again
    from proxy.daemon import serve
    from proxy.reloading import put_off

    put_off()
    loaded = load(config)
    data_dir_of(loaded.settings)
    reread = partial(load_again, loaded, config, os.environ)
    service = serve(loaded.settings, loaded.source, loaded.notices, reread=reread)
    _serve("proxy", loaded.settings, service)


@click.command(epilog=example("franker worker", "franker worker --number 2"))
@config_option
@click.option(
    "--number",
    type=click.IntRange(1, 999),
    metavar="N",
    default=1,
    show_default=True,
    help="Which worker of this host it is; its HTTP port is that of [worker] + N - 1.",
)
def worker(config: Path | None, number: int) -> None:
    """Relay the mail that is kept. As many as wanted, on as many hosts as wanted.

    SIGHUP lets it read its configuration again.
    """
    from proxy import log
    from proxy.config import load_again
    from proxy.reloading import put_off
    from worker.daemon import serve

    put_off()
    loaded = load(config)
    data_dir_of(loaded.settings)
    log.setup(loaded.settings.log)
    reread = partial(load_again, loaded, config, os.environ)
    service = serve(loaded.settings, loaded.source, loaded.notices, number=number, reread=reread)
    _serve("worker", loaded.settings, service)


@click.command(epilog=example("franker sandbox"))
@config_option
def sandbox(config: Path | None) -> None:
    """Run a stand-in for Postmark on this machine; it shows what it took.

    It has both SMTP hosts with STARTTLS and login, the HTTP API, Postmark's quirks, and failures on
    demand. Nothing leaves it.
    """
    from proxy.sandbox.where import SandboxMissing, account_for, find, prepare

    settings = load(config).settings
    folder = _data_dir(settings) / _SANDBOX_FOLDER
    try:
        where = find(folder) if "FRANKER_SANDBOX_TOKEN" in os.environ else prepare(folder)
    except (SandboxMissing, OSError) as error:
        fail(str(error))
    from proxy.sandbox.serve import serve

    _serve("sandbox", settings, serve(where, account_for(settings), ready=_tell_ready))


def _serve(process: str, settings: "Settings", service: Coroutine[Any, Any, None]) -> None:
    """Run `service` to its end.

    Leave with its words, and 78 when the configuration cannot be used after all, 1 when the system
    refuses something. In a log that is JSON the words are, too.
    """
    import uvloop

    from proxy.cli.memory import keep_freed_memory
    from proxy.config import ConfigError
    from proxy.log.watchdog import watched

    async def run() -> None:
        async with watched():
            await service

    keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except ConfigError as error:
        _leave(process, settings, str(error), EX_CONFIG)
    except OSError as error:
        _leave(process, settings, f"franker: {error}", EX_FAILED)


def _leave(process: str, settings: "Settings", text: str, code: int) -> NoReturn:
    if settings.log.format == "json":
        from proxy import log

        log.setup(settings.log)
        log.stopping(process, detail=text.removeprefix("franker: "))
    else:
        click.echo(text, err=True)
    sys.exit(code)


def _tell_ready(facts: Mapping[str, str]) -> None:
    """Tell whoever started this process that it is ready, and where."""
    from proxy.log import systemd

    systemd.tell("READY=1", *(f"X_{name}={value}" for name, value in facts.items()))
