"""The worker process: claims mail as its channels have room for it, until it is told to stop."""

import asyncio
import contextlib
import os
import signal
import socket
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from proxy import log
from proxy.alerts import View, open_alerts
from proxy.config import Loaded, Settings, told_nobody, usable_data_dir
from proxy.log import systemd
from proxy.metrics import relaying
from proxy.reloading import Reloading, listen
from proxy.web.server import HttpError, HttpServer, serve_http
from worker import troubles
from worker.channel import Channel
from worker.claim import Claim, Settlement
from worker.claims import Claims
from worker.expiry import Expiry
from worker.network import Network
from worker.notices import open_office

POLL_S = 1.0
"""How long at most a message waits when its wake-up was lost."""

GATHER_S = 0.005
"""How long after a claim that left nothing the next one waits for more to go along.

Each costs Redis an fsync, behind which a client's next 250 waits. What comes after a rest is
claimed at once.
"""

OCTETS_IN_HAND = 24_000_000
"""Octets of messages in memory above which no more are claimed: one claim (4 MB or one message)
goes beyond it at most."""

LOOK_AGAIN_S = 60.0
"""How often a port that failed is looked at, while mail goes by another."""

NEEDS_RESTART = ("data_dir", "redis", "worker.http")
"""What of the configuration a running worker cannot change."""

_TICK_S = 0.5


class Relay:
    """All channels of a worker, fed from its claims."""

    def __init__(self, settings: Settings, claims: Claims) -> None:
        self._claims = claims
        self._stopping = asyncio.Event()
        self._roomy = asyncio.Event()
        self._asked: frozenset[str] = frozenset()  # streams, in the last claim
        self.network = Network(settings, claims, self._room_for)
        self._expiry = Expiry(claims, list(settings.streams), self._offer)
        claims.on_shutdown = self.stop
        claims.on_stop_job = self.network.stop_job
        claims.on_recall = lambda: [
            done for channel in self.channels for done in channel.recall("the holds have changed")
        ]
        claims.connections_in_use = lambda: self.network.connections_in_use

    @property
    def channels(self) -> list[Channel]:
        """The channels that take mail."""
        return self.network.channels

    def go_by(self, settings: Settings) -> None:
        """Go by other settings from now on, unless it is ending."""
        if self._stopping.is_set():
            return
        self._claims.go_by(settings)
        self.network.go_by(settings)
        self._expiry.go_by(list(settings.streams))
        self._roomy.set()

    def stop(self) -> None:
        """Claim no more and let `run` end."""
        self._stopping.set()
        self._roomy.set()
        self._claims.stop_claiming()

    async def stopped(self) -> None:
        """Return when `stop` was called."""
        await self._stopping.wait()

    def _room_for(self, streams: frozenset[str]) -> None:
        """Claim again: at once when there is room for a stream that was not asked for mail."""
        self._roomy.set()
        if not self._asked.issuperset(streams):
            self._claims.wake()

    def slots(self) -> dict[str, int]:
        """Return how many messages of each stream could be taken now, where it is any."""
        return {} if self.network.octets > OCTETS_IN_HAND else self.network.slots()

    async def run(self) -> None:
        """Claim and relay until `stop`; then finish what is on the wire and give back the rest."""
        self.network.start()
        ticking = asyncio.create_task(self._tick(), name="tick")
        looking = asyncio.create_task(self._look_again(), name="look again")
        expiring = asyncio.create_task(self._expiry.run(), name="expiry")
        try:
            while not self._stopping.is_set():
                try:
                    await self._claim_once()
                except Exception as error:
                    _defect(error)
                    await asyncio.sleep(POLL_S)
        finally:
            ticking.cancel()
            looking.cancel()
            expiring.cancel()
            await self.network.close()
            await self._claims.close()

    async def _claim_once(self) -> None:
        self._roomy.clear()
        slots = self.slots()
        self._asked = frozenset(slots)
        if not slots:
            await self._roomy.wait()
            return
        claims = await self._claims.claim(slots)
        gathered = asyncio.get_running_loop().time() + GATHER_S
        if claims:
            self._offer(claims)
            if self.network.has_room_beyond(self._asked):
                return
        had_to_wait = await self._claims.wait_for_work(POLL_S)
        left = gathered - asyncio.get_running_loop().time()
        if claims and had_to_wait and left > 0:
            await asyncio.sleep(left)

    def _offer(self, claims: Sequence[Claim]) -> None:
        by_channel: defaultdict[Channel | None, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_channel[self.network.channel_of(claim.stream)].append(claim)
        for channel, mine in by_channel.items():
            if channel is not None:
                channel.offer(mine)
                continue
            for claim in mine:  # its stream went while the claim was under way
                self._claims.settle(claim, Settlement("back", dot=claim.dot))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.network.tick(_defect)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            await self.network.look_again(_defect)

    def look(self, host: str) -> View:
        """Return what people should be told of, seen from `host`."""
        seen = {
            troubles.paused(channel.streams, pause, host)
            for channel in self.channels
            for pause in channel.gate.pauses
        }
        # A worker that is new knows nothing of a route before it, or another, has tried it.
        untried = {channel.streams for channel in self.channels if not channel.gate.tried}
        heard = self._claims.board.has_heard
        return View(
            tuple(seen), lambda _, subject: not heard or troubles.streams_of(subject) in untried
        )

    def ready(self) -> tuple[bool, str]:
        """Tell whether mail can leave, and if not why."""
        closed = [
            f"{', '.join(channel.streams)}: {channel.gate.reason}"
            for channel in self.channels
            if channel.gate.reason is not None
        ]
        if not self._claims.store_answers:
            closed.append("the mail store does not answer")
        if self._claims.store_fault:
            closed.append(self._claims.store_fault)
        if self._claims.suspended:
            closed.append("suspended by hand (rq resume ends it)")
        return not closed, "; ".join(closed)


def _defect(error: Exception) -> None:
    log.defect("worker", error=error)
    relaying.DEFECTS.labels("worker").inc()


def http_address(address: str, number: int) -> str:
    """Return where worker `number` (1 and up) of a host listens: the port counts up."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + number - 1}" if port != "0" else address


async def _serve_http(settings: Settings, number: int, relay: Relay) -> HttpServer | None:
    async def ready() -> tuple[bool, str]:
        return relay.ready()

    if not settings.worker.http:
        return None
    address = http_address(settings.worker.http, number)
    try:
        return await serve_http(address, metrics=relaying.REGISTRY, ready=ready)
    except HttpError as error:
        log.notice(f"no metrics and no health check: {error}")
        return None


async def serve(
    settings: Settings,
    source: str,
    notices: Sequence[str],
    *,
    number: int,
    reread: Callable[[], Loaded] | None = None,
) -> None:
    """Run worker `number` of this host until SIGTERM, SIGINT or an RQ shutdown command.

    `reread` returns what is configured at the time of a SIGHUP; None: there is nothing to be read
    again.
    """
    data_dir, notice = usable_data_dir(settings, os.environ)
    for text in (*notices, notice, told_nobody(settings)):
        if text:
            log.notice(text)
    claims = Claims(settings, data_dir, list(settings.streams), number=number)
    relay = Relay(settings, claims)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, relay.stop)
    hung_up = asyncio.Event()
    if reread is not None:
        listen(hung_up)
    http = await _serve_http(settings, number, relay)
    starting = asyncio.create_task(claims.start())
    stopped = asyncio.create_task(relay.stopped())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        starting.result()
        log.started(
            "worker",
            name=claims.name,
            config=source,
            streams=",".join(settings.streams),
            http=http.address if http else "-",
        )
        systemd.tell("READY=1", *([f"X_HTTP={http.address}"] if http else []))
        host = socket.gethostname()
        async with (
            open_office(settings, data_dir, lambda: claims.incarnation) as office,
            open_alerts(
                settings,
                data_dir,
                lambda _: relay.look(host),
                shown=relaying.ALERTS,
                mine=partial(troubles.is_of, host),
            ) as alerts,
            contextlib.AsyncExitStack() as stack,
        ):
            if reread is not None:

                async def take(settings: Settings) -> None:
                    relay.network.check(settings)
                    relay.go_by(settings)
                    office.go_by(settings)
                    alerts.go_by(settings.notify)

                reloading = Reloading(
                    "worker",
                    hung_up,
                    settings,
                    notices,
                    reread,
                    take,
                    fixed=NEEDS_RESTART,
                    shown=relaying.CONFIG,
                )
                await stack.enter_async_context(reloading.at_work())
            await relay.run()
    else:
        starting.cancel()
    if http is not None:
        with contextlib.suppress(Exception):
            await http.close()
    log.stopping("worker", detail="all that was claimed is settled or back in its queue")
