"""The ways out of one worker: its hosts, the channels to them, and who shares what.

Goes by other settings while mail is under way. A channel whose login, host, ports and authorities
stay the same goes on with its connections. Any other takes no more mail, gives back what is not on
the wire, finishes what is, and is gone; its successor works beside it within the same budget.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from proxy.config import Settings
from proxy.config.model import Postmark
from proxy.reloading import Unusable
from worker import ledger
from worker.channel import Channel
from worker.claims import Claims
from worker.outcomes import Outcomes
from worker.smarthost.host import Budget, Smarthost, Way, way_of
from worker.smarthost.tls import TrustStore, TrustStoreUnusable


class Network:
    """All channels of a worker. `roomy` is called with streams for which mail could be claimed."""

    def __init__(
        self, settings: Settings, claims: Claims, roomy: Callable[[frozenset[str]], None]
    ) -> None:
        self.channels: list[Channel] = []
        """Those that take mail."""
        self._claims = claims
        self._roomy = roomy
        self._postmark = settings.postmark
        self._trust = TrustStore(settings.postmark.ca_file)
        self._local_name = socket.gethostname()
        self._smarthosts: dict[str, Smarthost] = {}
        self._budgets: dict[str, Budget] = {}
        self._by_stream: Mapping[str, Channel] = {}
        self._leaving: dict[Channel, asyncio.Task[None]] = {}
        self._turn = 0
        self.outcomes = Outcomes(settings, claims, self._trust)
        self._arrange(settings)

    @property
    def _present(self) -> tuple[Channel, ...]:
        """All channels, those on their way out last."""
        return (*self.channels, *self._leaving)

    @property
    def connections_in_use(self) -> int:
        """Connections open to the host that has most."""
        return max((budget.in_use for budget in self._budgets.values()), default=0)

    def check(self, settings: Settings) -> None:
        """See whether the network could go by `settings`.

        Raises:
            Unusable: no connection could ever be verified.
        """
        if settings.postmark.ca_file == self._postmark.ca_file:
            return  # where it breaks later the route waits, and goes on when it is mended
        try:
            TrustStore(settings.postmark.ca_file).context()
        except TrustStoreUnusable as error:
            raise Unusable([str(error)]) from error

    def go_by(self, settings: Settings) -> None:
        """Use `settings` from now on: for mail claimed from here, and mail that waits here."""
        if settings.postmark.ca_file != self._postmark.ca_file:
            self._trust = TrustStore(settings.postmark.ca_file)
        self.outcomes.go_by(settings, self._trust)
        fresh = self._arrange(settings)
        for channel in fresh:
            channel.start()

    def _arrange(self, settings: Settings) -> list[Channel]:
        """Have one channel for each way of `settings`; return those that are new."""
        postmark = settings.postmark
        ways: defaultdict[Way, list[str]] = defaultdict(list)
        for name, stream in settings.streams.items():
            ways[way_of(stream, postmark)].append(name)
        keeps = _how(postmark) == _how(self._postmark)
        if not keeps:
            self._smarthosts = {}
        self._postmark = postmark
        kept = {channel.way: channel for channel in self.channels if keeps and channel.way in ways}
        # First those that lose a stream, so that its new channel has the last word on it.
        for channel in self.channels:
            if kept.get(channel.way) is not channel:
                self._let_go(channel)
        for way, channel in kept.items():
            channel.go_by(settings, ways[way], self._room_for(ways[way]))
        made = {way: self._channel(settings, way, ways[way]) for way in ways if way not in kept}
        self.channels = [kept.get(way) or made[way] for way in ways]
        self._by_stream = {one: channel for channel in self.channels for one in channel.streams}
        ledger.open_accounts(settings.streams, postmark.ports)
        return list(made.values())

    def _channel(self, settings: Settings, way: Way, streams: Sequence[str]) -> Channel:
        host = way.host
        if host not in self._smarthosts:
            self._smarthosts[host] = Smarthost(
                host, settings.postmark, self._trust, self._local_name
            )
        if host not in self._budgets:
            self._budgets[host] = Budget(lambda: self._claims.share)
        return Channel(
            settings,
            streams,
            way,
            self._smarthosts[host],
            self._budgets[host],
            self._claims,
            self.outcomes,
            roomy=self._room_for(streams),
            where=self._local_name,
        )

    def _room_for(self, streams: Sequence[str]) -> Callable[[], None]:
        return partial(self._roomy, frozenset(streams))

    def _let_go(self, channel: Channel) -> None:
        task = asyncio.create_task(channel.leave(), name="old login")
        self._leaving[channel] = task
        task.add_done_callback(lambda _task: self._leaving.pop(channel, None))

    # -- what the claiming loop asks -------------------------------------------------------------

    def channel_of(self, stream: str) -> Channel | None:
        """Return the channel for `stream`; None: it is no longer configured."""
        return self._by_stream.get(stream)

    @property
    def octets(self) -> int:
        """Octets of all messages in hand."""
        return sum(channel.octets for channel in self._present)

    def slots(self) -> dict[str, int]:
        """Return how many messages of each stream could be taken now, where it is any.

        A channel's room is divided among its streams; what is left over goes round.
        """
        self._turn += 1
        slots = {}
        for channel in self.channels:
            count = len(channel.streams)
            part, rest = divmod(channel.room(), count)
            for place, stream in enumerate(channel.streams):
                slots[stream] = part + ((place + self._turn) % count < rest)
        return {stream: count for stream, count in slots.items() if count}

    def has_room_beyond(self, streams: frozenset[str]) -> bool:
        """Tell whether mail of any other stream could be taken now."""
        return any(not streams.issuperset(one.streams) and one.room() for one in self.channels)

    # -- its life --------------------------------------------------------------------------------

    def start(self) -> None:
        """See whether mail can leave, and Postmark can be asked."""
        self.outcomes.start()
        for channel in self.channels:
            channel.start()

    def tick(self, defect: Callable[[Exception], None]) -> None:
        """Do what time alone makes due."""
        for channel in self._present:
            try:
                channel.tick()
            except Exception as error:
                defect(error)

    async def look_again(self, defect: Callable[[Exception], None]) -> None:
        """Try the ports known as down."""
        for smarthost in list(self._smarthosts.values()):
            try:
                await smarthost.look_again()
            except Exception as error:
                defect(error)

    def stop_job(self, job_id: str) -> None:
        """Make a message a dead letter, unless its final dot is out: a person stopped it."""
        for channel in self._present:
            channel.stop(job_id)
        self.outcomes.stop(job_id)

    async def close(self) -> None:
        """Finish what is on the wire, and give back the rest."""
        await asyncio.gather(*(channel.close() for channel in self._present))
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await self.outcomes.close()


def _how(postmark: Postmark) -> tuple[object, ...]:
    """Return what an open connection depends on beside host and login."""
    return postmark.ports, postmark.auth, postmark.ca_file
