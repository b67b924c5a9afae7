"""The configuration read again while a process runs: at SIGHUP, whole or not at all."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

from proxy import log
from proxy.config import ConfigError, Loaded, Settings, as_far_as_possible, changed_keys
from proxy.log import systemd
from proxy.metrics.config_state import ConfigState

_HANG_UP = {signal.SIGHUP}


def put_off() -> None:
    """Let a SIGHUP wait until somebody listens: one that comes early would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANG_UP)


def listen(asked: asyncio.Event) -> None:
    """Set `asked` at each SIGHUP, and now if one has waited."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANG_UP)


class Unusable(Exception):
    """What settings name cannot be used: a file, a certificate. `faults` says all there is."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class Reloading:
    """Reads again when `asked` is set, and hands what it read to the running process.

    `running` and `notices` are what was read at the start. `reread` returns what is configured
    now, or raises ConfigError; `take` makes the process go by it, or raises Unusable before it has
    changed anything. `fixed` are the keys that need a restart (see `as_far_as_possible`). Asked
    while it reads, however often, it reads once more after that.
    """

    def __init__(
        self,
        process: str,
        asked: asyncio.Event,
        running: Settings,
        notices: Sequence[str],
        reread: Callable[[], Loaded],
        take: Callable[[Settings], Awaitable[None]],
        *,
        fixed: Collection[str],
        shown: ConfigState,
    ) -> None:
        self._process = process
        self._running = running
        self._noticed = set(notices)
        self._reread = reread
        self._take = take
        self._fixed = fixed
        self._shown = shown
        self._asked = asked

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Read whenever asked, as long as the block is in."""
        task = asyncio.create_task(self._run(), name="reloading")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            systemd.tell_reloading()
            try:
                await self._read()
            except ConfigError as error:
                self._shown.refused()
                log.reload_refused(self._process, config=error.source, faults=error.faults)
            except Exception as error:
                self._shown.refused()
                log.defect("reloading", error=error)
            systemd.tell("READY=1")

    async def _read(self) -> None:
        loaded = await asyncio.to_thread(self._reread)
        settings, waiting = as_far_as_possible(self._running, loaded.settings, self._fixed)
        try:
            await self._take(settings)
        except Unusable as error:
            raise ConfigError(loaded.source, error.faults) from error
        changed = changed_keys(self._running, settings)
        self._running = settings
        self._shown.taken()
        log.setup(settings.log)
        for text in loaded.notices:
            if text not in self._noticed:
                log.notice(text)
        self._noticed = set(loaded.notices)
        log.reloaded(self._process, config=loaded.source, changed=changed, needs_restart=waiting)
