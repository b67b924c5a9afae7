"""One process's alerts: looks at what is wrong, decides, and tells log, metrics and people."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Gauge

from proxy import log
from proxy.alerts.command import Command
from proxy.alerts.said import Said
from proxy.alerts.standing import Alert, Kind, Phase, Standing, Trouble, decide
from proxy.config.model import Notify
from proxy.queue.connection import end_if_cancelled

LOOK_EVERY_S = 1.0
_KINDS = frozenset(kind.value for kind in Kind)
_UNTOLD = 100  # words waiting for a command that does not keep up; the oldest are dropped


@dataclass(frozen=True, slots=True)
class View:
    """What is wrong now. `unseen` tells of which kind and subject nothing could be seen."""

    troubles: tuple[Trouble, ...]
    unseen: Callable[[Kind, str], bool] = lambda _kind, _subject: False


class Alerts:
    """Says what `look` sees: when it begins, each `notify.repeat`, and when it is over.

    `look` is given what [notify] says now; `host` is where this process runs. `mine` tells which
    kinds and subjects it looks for, and may end when an earlier process said them.
    """

    def __init__(
        self,
        look: Callable[[Notify], View],
        said: Said,
        notify: Notify,
        *,
        host: str,
        shown: Gauge,
        mine: Callable[[Kind, str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._look = look
        self._said = said
        self._host = host
        self._shown = shown
        self._mine = mine
        self._clock = clock
        self._standing: dict[str, Standing] = {}
        self._remembered = False
        self._untold: deque[Alert] = deque(maxlen=_UNTOLD)
        self._telling: asyncio.Task[None] | None = None
        self.go_by(notify)

    def go_by(self, notify: Notify) -> None:
        """Look, and tell people, as `notify` says from now on."""
        self._notify = notify
        self._command = Command(notify.command) if notify.command else None

    async def run(self) -> None:
        """Look each second, until cancelled."""
        try:
            while True:
                try:
                    await self.look_once()
                except Exception as error:
                    log.defect("alerts", error=error)
                end_if_cancelled()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """End a command that still runs."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

    async def look_once(self) -> None:
        """Look, and say what is to be said."""
        if not self._remembered:
            await self._remember()
        view, now = self._look(self._notify), self._clock()
        self._standing, alerts = decide(
            self._standing, view.troubles, unseen=view.unseen, now=now, repeat=self._notify.repeat
        )
        kinds = [one.trouble.kind for one in self._standing.values() if not one.over]
        for kind in Kind:
            if self._mine(kind, self._host):
                self._shown.labels(kind).set(kinds.count(kind))
        for alert in alerts:
            await self._say(alert, now)

    async def _remember(self) -> None:
        """Take over what an earlier process said and did not see the end of."""
        standing = await self._said.standing()
        if standing is None:
            return
        self._remembered = True
        now = self._clock()
        for key, headline in standing.items():
            word, _, subject = key.partition(" ")
            if word in _KINDS and self._mine(Kind(word), subject):
                trouble = Trouble(Kind(word), subject, headline)
                # Said some time ago: `Said` knows when the next word is due.
                old = Standing(trouble, now, now - self._notify.repeat)
                self._standing.setdefault(key, old)

    async def _say(self, alert: Alert, now: float) -> None:
        trouble = alert.trouble
        if alert.phase is Phase.OVER:
            if not await self._said.over(trouble.key):
                return
        else:
            # A little less, so that the next word is due for all when it is for the first.
            left = await self._said.say(trouble.key, trouble.headline, self._notify.repeat * 0.99)
            if left:
                known = self._standing[trouble.key]
                said_at = now - self._notify.repeat + left
                self._standing[trouble.key] = Standing(known.trouble, known.since, said_at)
                return
        log.alert(
            trouble.kind,
            subject=trouble.subject,
            phase=alert.phase,
            seconds=alert.seconds,
            text=trouble.headline,
        )
        if self._command is not None:
            self._untold.append(alert)
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell(), name="alerts")

    async def _tell(self) -> None:
        while self._untold:
            command, alert = self._command, self._untold.popleft()
            if command is None:  # not any more
                continue
            fault = await command.run(alert.text(self._host))
            if fault:
                log.alert_untold(alert.trouble.kind, subject=alert.trouble.subject, detail=fault)
