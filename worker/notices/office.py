"""The office that tells owners of their mail's trouble, at most once in 15 minutes each.

Every worker has one; the first of those that live is open. Should two be open for a moment, the
books let only one tell a thing. All times are Redis's: neither a step of this host's clock nor
another host's makes an owner hear too much, or nothing.
"""

import asyncio
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from proxy import log
from proxy.config import Settings
from proxy.mail.address import normal_address
from proxy.mail.ids import new_id
from proxy.metrics import relaying
from proxy.queue.connection import end_if_cancelled, open_redis
from proxy.queue.holds import standing_holds
from proxy.queue.job import JobEnvelope, rq_date
from proxy.queue.refusal import before_running
from worker.notices.books import Books, Notice, Standing
from worker.notices.digest import MOST_SHOWN, Chapter, Letterhead, News, Shown, write
from worker.notices.late import WAITING, LateMail
from worker.notices.retention import FOLDER, Retention

LEAST_BETWEEN_S = 900.0
"""Between two notices to one owner."""

_GATHERED_S = 10.0  # what dies together is told together
_TICK_S = 5.0
_ANSWER_S = 10.0
_LOOK_S = 60.0
_MOST_DEATHS = 5000  # in one notice
_MOST_UNTOLD = 10_000  # deaths remembered while nobody is there to hear of them


class Office:
    """What is told, and what becomes of dead letters.

    `incarnation` returns the one under which this worker is registered. The times, in seconds,
    are for tests.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        redis: redis.asyncio.Redis,
        incarnation: Callable[[], str],
        *,
        tick: float = _TICK_S,
        look: float = _LOOK_S,
        gathered: float = _GATHERED_S,
        least_between: float = LEAST_BETWEEN_S,
    ) -> None:
        self._redis = redis
        self._books = Books(redis)
        self._folder = data_dir / FOLDER
        self._incarnation = incarnation
        self._tick, self._look_every = tick, look
        self._gathered, self._least = gathered, least_between
        self._said: set[str] = set()
        self._others: Settings | None = None
        self._furnish(settings)

    def go_by(self, settings: Settings) -> None:
        """Tell as `settings` say, from the next turn on: a notice is written by one of them."""
        self._others = settings

    def _furnish(self, settings: Settings) -> None:
        self._next_look = 0.0
        self._to = settings.notify.to
        self._stream = settings.notify.stream
        sender = settings.notify.from_ or settings.local.from_
        stream = settings.streams[self._stream]
        self._head = Letterhead(
            sender=normal_address(sender) if sender else "",
            stream_id=stream.id or self._stream,
            host=socket.gethostname(),
            folder=str(self._folder),
            keep=f"for {_days(settings.dead.keep)}, of all dead mail"
            f" the newest {settings.dead.max / 1e6:g} MB",
            delay=_days(settings.notify.delay),
        )
        self._late = LateMail(
            self._redis, self._books, list(settings.streams), delay=settings.notify.delay
        )
        self._retention = Retention(
            self._redis,
            self._books,
            settings.dead,
            self._folder,
            self._is_told,
            disk_floor=settings.journal.disk_floor,
        )

    async def run(self) -> None:
        """Tell what there is to tell, until cancelled."""
        while True:
            try:
                await self.turn()
            except (RedisError, OSError) as error:
                self._unanswered(error)
            except Exception as error:  # nothing here may end a worker
                log.defect("notices", error=error)
                relaying.DEFECTS.labels("notices").inc()
            end_if_cancelled()
            await asyncio.sleep(self._tick)

    async def turn(self) -> None:
        """Look and tell once, if this worker is the first."""
        if self._others is not None:
            self._furnish(self._others)
            self._others = None
        if await self._books.first_worker() != self._incarnation():
            return
        now = await self._books.now()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._look_every
            if self._head.sender:
                await self._late.look(now)
            await self._retention.look(now)
        await self._tell_all(now)

    def _unanswered(self, error: Exception) -> None:
        """Pass over a Redis that is away, full or loading: the claims say it. Nothing else."""
        if not isinstance(error, ResponseError) or before_running(error):
            return
        if str(error) not in self._said:
            self._said.add(str(error))
            log.defect("notices", error=error)
            relaying.DEFECTS.labels("notices").inc()

    def _is_told(self, envelope: JobEnvelope) -> bool:
        somebody = bool(self._head.sender and (envelope.owner or self._to))
        return somebody and envelope.notify and not envelope.notice

    async def _tell_all(self, now: float) -> None:
        last_told = await self._books.last_told()
        readers: defaultdict[str, list[str]] = defaultdict(list)
        for owner in dict.fromkeys((*last_told, *self._late.owners())):
            reader = (owner or self._to) if self._head.sender else ""
            if reader:
                readers[reader].append(owner)
            else:
                await self._books.forget_all_but(owner, _MOST_UNTOLD)
        for reader, owners in readers.items():
            last = last_told.get(reader, b"")
            # What lies in the future was written by a clock that was set back since.
            if not 0 <= now - float(last or 0) < self._least:
                await self._tell(reader, owners, last, now)

    async def _tell(self, reader: str, owners: Sequence[str], last: bytes, now: float) -> None:
        deaths: list[tuple[str, str]] = []
        first = float("inf")
        for owner in owners:
            untold = await self._books.untold(owner, _MOST_DEATHS)
            deaths += [(owner, job_id) for job_id, _ in untold]
            first = min([first, *(since for _, since in untold)])
        late = [job_id for owner in owners for job_id in self._late.of(owner)]
        # A time in the future is one of before a clock was set back, too.
        gathering = not deaths or 0 <= now - first < self._gathered
        if not late and gathering:
            return
        news = await self._news([job_id for _, job_id in deaths], late)
        if news != News():
            message_id = new_id(int(time.time() * 1000))
            body = write(news, self._head, reader, message_id=message_id, now=time.time())
            envelope = JobEnvelope(
                mail_from=self._head.sender,
                recipients=(normal_address(reader),),
                accepted_at=time.time(),
                notify=False,
                notice=True,
            )
            notice = Notice(message_id, self._stream, envelope, body, last, deaths, late)
            if not await self._books.tell(notice, reader, least=self._least, date=rq_date()):
                return
            log.told(
                message_id,
                stream=self._stream,
                owner=reader,
                dead=news.dead.count + news.leaving.count,
                late=news.late.count + news.held.count,
            )
        elif deaths:
            await self._books.forget(deaths)
        for owner in owners:
            self._late.told(owner, late)

    async def _news(self, deaths: Sequence[str], late: Sequence[str]) -> News:
        """Return what is still true of what should be told."""
        gone = [each for each in await self._books.read(deaths) if each.status == "failed"]
        waiting = [
            each
            for each in await self._books.read(late)
            if not each.late and each.status in WAITING
        ]
        holds = await standing_holds(self._redis) if waiting else ()

        def held(each: Standing) -> bool:
            return each.status == "deferred" or any(
                hold.takes_stream(each.stream) for hold in holds
            )

        return News(
            await self._chapter(each for each in gone if not each.leaving),
            await self._chapter(each for each in gone if each.leaving),
            await self._chapter(each for each in waiting if not held(each)),
            await self._chapter(each for each in waiting if held(each)),
        )

    async def _chapter(self, all_of_them: Iterable[Standing]) -> Chapter:
        ids = [each.id for each in all_of_them]
        shown = await self._books.read(ids[:MOST_SHOWN], heads=True)
        return Chapter(
            len(ids),
            tuple(
                Shown(each.id, each.stream, each.envelope, each.head)
                for each in shown
                if each.envelope is not None
            ),
        )


@asynccontextmanager
async def open_office(
    settings: Settings, data_dir: Path, incarnation: Callable[[], str]
) -> AsyncIterator[Office]:
    """Have an office at work, with a connection of its own."""
    redis = open_redis(settings, data_dir, timeout=_ANSWER_S)
    office = Office(settings, data_dir, redis, incarnation)
    running = asyncio.create_task(office.run(), name="notices")
    try:
        yield office
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await redis.aclose()


def _days(seconds: float) -> str:
    """Return a duration as the configuration writes it: "30d", "4h", "90s"."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
