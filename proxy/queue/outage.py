"""The absence of Redis: noticed, since when, how long clients are kept waiting, what was said."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from proxy.log import events

_SAY_AFTER_S = 2.0  # a restart within that time concerns nobody
_T = TypeVar("_T")


class Outage:
    """Calls `give_up` once an absence has lasted `bearable()` seconds.

    That is asked when it begins, and when there is reason to `reconsider`. An exchange with Redis
    ends after `patience` seconds, which is at least as long.
    """

    def __init__(
        self, patience: float, bearable: Callable[[], float], give_up: Callable[[], None]
    ) -> None:
        self._patience = patience
        self._bearable = bearable
        self._give_up = give_up
        self._since: float | None = None
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # uvloop's handle for a time that has come does not tell it
        self._said = False

    @property
    def lasts(self) -> bool:
        """Whether Redis is away now."""
        return self._since is not None

    async def in_time(self, exchange: Coroutine[Any, Any, _T]) -> _T:
        """Return what `exchange` gives; while it takes too long Redis is away since its beginning.

        Raises:
            TimeoutError: it took longer than the patience.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        alarm = None
        if (bearable := self._bearable()) < self._patience:
            alarm = loop.call_at(began + bearable, self.goes_on, "no answer in time", began)
        try:
            async with asyncio.timeout(self._patience):
                answer = await exchange
        except TimeoutError:
            self.goes_on("no answer in time", began)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
        self.over()
        return answer

    def goes_on(self, detail: str, since: float | None = None) -> None:
        """Note that Redis is away: since now, or since the loop time `since`, or longer."""
        loop = asyncio.get_running_loop()
        if self._since is None:
            self._since = loop.time() if since is None else since
        if self._timer is None:
            self._due = self._since + self._bearable()
            self._timer = loop.call_at(self._due, self._give_up)
        if not self._said and loop.time() - self._since >= _SAY_AFTER_S:
            self._said = True
            events.store_away(process="proxy", detail=detail)

    def reconsider(self) -> None:
        """Ask for the patience anew, if nobody has given up yet."""
        loop = asyncio.get_running_loop()
        if self._since is not None and self._timer is not None and self._due > loop.time():
            self._timer.cancel()
            self._due = self._since + self._bearable()
            self._timer = loop.call_at(self._due, self._give_up)

    def over(self) -> None:
        """Note that Redis is back."""
        self.forget()
        if self._said:
            self._said = False
            events.store_back(process="proxy")

    def forget(self) -> None:
        """Give up no more: nobody waits any longer."""
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
