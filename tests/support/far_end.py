"""The far end of the tests: the shipped stand-in for Postmark, in this process, on free ports.

    async with FarEnd() as far_end:
        far_end.fail("rcpt", "451 4.7.1 later", address="b@*", times=1)
        ...
        await far_end.until(3)
        assert far_end.recipients() == ["a@example.com", ...]

Faults: see proxy/sandbox/faults.py. `background_far_end()` is the same for tests without a loop.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from proxy.sandbox.account import TOKEN, Account, SmtpToken
from proxy.sandbox.message import Taken
from proxy.sandbox.sandbox import Sandbox
from proxy.sandbox.store import Login
from proxy.sandbox.web import SandboxWeb
from tests.support.waiting import wait_for, wait_until

TRANSACTIONAL = "127.0.0.1"
BROADCAST = "127.0.0.2"

SMTP_TOKEN = SmtpToken("PM-T-outbound-abc", "not-for-the-api", "outbound")
"""A login that opens no API: what became of mail cannot be asked with it."""


class FarEnd(Sandbox):
    """A sandbox in a temporary folder, with what tests like to ask it."""

    token = TOKEN

    def __init__(
        self, account: Account | None = None, *, indexing_delay: float = 0.0, **options: Any
    ) -> None:
        """`indexing_delay`: seconds after which the API finds a message."""
        self._folder = tempfile.TemporaryDirectory(prefix="far-end-")
        account = account or Account(smtp_tokens=(SMTP_TOKEN,))
        super().__init__(Path(self._folder.name), account, **options)
        self._indexing_delay = indexing_delay
        self.web = SandboxWeb(self, indexing_delay=indexing_delay)

    async def start(self) -> None:
        """Listen, and serve the API."""
        await super().start()
        await self.web.start()

    async def close(self) -> None:
        """Close it and remove its folder."""
        await self.web.close()
        await super().close()
        self._folder.cleanup()

    async def api_returns(self) -> None:
        """Serve the API again, where it was, after `web.close()`."""
        self.web = SandboxWeb(self, port=self.web.port, indexing_delay=self._indexing_delay)
        await self.web.start()

    @property
    def messages(self) -> list[Taken]:
        """What was taken, oldest first."""
        return self.store.messages

    @property
    def logins(self) -> list[Login]:
        """Every attempt to log in, oldest first."""
        return list(self.store.logins)

    def to(self, recipient: str) -> list[Taken]:
        """The messages that `recipient` was sent."""
        return [one for one in self.messages if recipient in one.recipients]

    def recipients(self) -> list[str]:
        """All recipients of all messages, sorted; one that got two stands there twice."""
        return sorted(address for one in self.messages for address in one.recipients)

    def counts(self, field: str = "X-PM-Metadata-franker-id") -> Counter[tuple[str, str]]:
        """How often each (value of `field`, recipient) was taken: above 1 is a duplicate."""
        return Counter((one.field(field) or "", r) for one in self.messages for r in one.recipients)

    async def until(self, count: int, timeout: float = 20.0) -> list[Taken]:
        """Wait until `count` messages are taken, and return them."""
        await wait_until(lambda: self.store.count >= count, timeout, f"{count} messages taken")
        return self.messages

    def postmark(self, **more: Any) -> dict[str, Any]:
        """The [postmark] section that leads here."""
        return {
            "transactional_host": TRANSACTIONAL,
            "broadcast_host": BROADCAST,
            "ports": list(self.ports),
            "ca_file": str(self.ca_file),
            "api_url": self.web.url,
        } | more


class BackgroundFarEnd:
    """A far end in a thread of its own; its attributes may be read, `call` changes it."""

    def __init__(self, far_end: FarEnd, loop: asyncio.AbstractEventLoop) -> None:
        self.far_end = far_end
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.far_end, name)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function()` in the far end's loop and return what it returns."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def fail(self, *arguments: Any, **options: Any) -> int:
        """As FarEnd.fail."""
        number: int = self.call(lambda: self.far_end.fail(*arguments, **options))
        return number

    def mend(self, number: int | None = None) -> bool:
        """As FarEnd.mend."""
        found: bool = self.call(lambda: self.far_end.mend(number))
        return found

    def until(self, count: int, timeout: float = 20.0) -> list[Taken]:
        """As FarEnd.until."""
        wait_for(lambda: self.far_end.store.count >= count, timeout, f"{count} messages taken")
        return self.far_end.messages


@contextlib.contextmanager
def background_far_end(
    account: Account | None = None, *, enter: Callable[[], None] | None = None, **options: Any
) -> Iterator[BackgroundFarEnd]:
    """A far end in a thread of its own, which calls `enter` first (to change its network)."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="far-end", daemon=True)
    thread.start()

    async def make() -> FarEnd:
        if enter is not None:
            enter()
        far_end = FarEnd(account, **options)
        await far_end.start()
        return far_end

    far_end = asyncio.run_coroutine_threadsafe(make(), loop).result(10)
    try:
        yield BackgroundFarEnd(far_end, loop)
    finally:
        asyncio.run_coroutine_threadsafe(far_end.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def environment(far_end: FarEnd | BackgroundFarEnd, **more: str) -> Mapping[str, str]:
    """An environment for processes of ours that relay to `far_end`, and to nothing real."""
    section = far_end.postmark()
    return (
        {k: v for k, v in os.environ.items() if not k.startswith(("FRANKER_", "POSTMARK_"))}
        | {
            "POSTMARK_SERVER_TOKEN": far_end.token,
            "FRANKER_POSTMARK__TRANSACTIONAL_HOST": section["transactional_host"],
            "FRANKER_POSTMARK__BROADCAST_HOST": section["broadcast_host"],
            "FRANKER_POSTMARK__PORTS": str(section["ports"]),
            "FRANKER_POSTMARK__CA_FILE": section["ca_file"],
            "FRANKER_POSTMARK__API_URL": section["api_url"],
        }
        | more
    )
