"""Dead letters that have been kept long enough, or are too many: the oldest become files.

A letter leaves Redis when its file is on disk, and its owner, if there is one, has been told that
it will. What fails in between is begun anew; nothing is ever in neither place.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis.asyncio

from proxy import log
from proxy.config.model import Dead
from proxy.mail.ids import accepted_ms
from proxy.queue import inventory, keys
from proxy.queue.job import DATE_FORM, JobEnvelope
from proxy.queue.letters import LetterFileError, as_eml, write_letter
from worker.notices.books import Books, Standing

FOLDER = "dead"
"""The folder of such files under data_dir."""

_BITE = 100
_MOST = 5000  # letters in one look


@dataclass(frozen=True, slots=True)
class _Letter:
    id: str
    died: str
    died_at: float
    size: int


class Retention:
    """Holds the dead letters in Redis to what `dead` allows.

    `is_told` says whether somebody hears of the death of a message with this envelope. Nothing is
    written when so few octets are free on the disk as `disk_floor`.
    """

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        books: Books,
        dead: Dead,
        folder: Path,
        is_told: Callable[[JobEnvelope], bool],
        *,
        disk_floor: int,
    ) -> None:
        self._redis = redis
        self._plain: Any = redis
        self._books = books
        self._dead = dead
        self._folder = folder
        self._is_told = is_told
        self._disk_floor = disk_floor
        self._known: dict[str, _Letter] = {}
        self._trouble = ""

    async def look(self, now: float) -> None:
        """Announce what must leave at `now` (seconds since 1970), and write what may."""
        leaving = self._beyond(await self._letters(), now)[:_MOST]
        try:
            for start in range(0, len(leaving), _BITE):
                await self._part_with(leaving[start : start + _BITE])
        except LetterFileError as error:
            if str(error) != self._trouble:
                log.notice(f"dead letters stay in Redis, beyond what [dead] allows: {error}")
            self._trouble = str(error)
        else:
            self._trouble = ""

    async def _letters(self) -> list[_Letter]:
        """Return all dead letters, those that died first in front."""
        known, self._known = self._known, {}
        for stream in await inventory.known_streams(self._redis):
            octets: list[bytes] = await self._plain.zrange(keys.failed_key(stream), 0, -1)
            ids = [each.decode() for each in octets]
            self._known.update((job_id, known[job_id]) for job_id in ids if job_id in known)
            await self._read([job_id for job_id in ids if job_id not in known])
        return sorted(self._known.values(), key=lambda letter: (letter.died_at, letter.id))

    async def _read(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _BITE):
            bite = ids[start : start + _BITE]
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in bite:
                pipeline.hget(keys.job_key(job_id), "died")
                pipeline.hstrlen(keys.job_key(job_id), "body")
                pipeline.hstrlen(keys.job_key(job_id), "envelope")
            replies: list[Any] = await pipeline.execute()
            for place, job_id in enumerate(bite):
                died, body, envelope = replies[3 * place : 3 * place + 3]
                text = (died or b"").decode("ascii", "replace")
                self._known[job_id] = _Letter(job_id, text, _died_at(text, job_id), body + envelope)

    def _beyond(self, letters: Sequence[_Letter], now: float) -> list[_Letter]:
        octets = sum(letter.size for letter in letters)
        leaving = []
        for letter in letters:
            if octets <= self._dead.max and letter.died_at > now - self._dead.keep:
                break
            leaving.append(letter)
            octets -= letter.size
        return leaving

    async def _part_with(self, letters: Sequence[_Letter]) -> None:
        by_id = {letter.id: letter for letter in letters}
        found = await self._books.read(list(by_id))
        standing = [each for each in found if each.status == "failed"]
        owners = [each.envelope.owner if each.envelope else "" for each in standing]
        untold = await self._books.are_untold(
            [(owner, each.id) for owner, each in zip(owners, standing, strict=True)]
        )
        announced = []
        for each, owner, waits in zip(standing, owners, untold, strict=True):
            told = each.envelope is not None and self._is_told(each.envelope)
            if told and not each.leaving:
                announced.append((each.id, by_id[each.id].died, owner))
            elif not told or not waits:
                await self._write(each, by_id[each.id].died)
        if announced:
            await self._books.announce(announced)
        for job_id in by_id:  # who knows how they stand at the next look
            self._known.pop(job_id, None)

    async def _write(self, letter: Standing, died: str) -> None:
        body = await inventory.read_body(self._redis, letter.id)
        if body is None:
            return
        eml = as_eml(letter.id, letter.stream, letter.envelope, body)
        path = await asyncio.to_thread(self._on_disk, letter.id, eml)
        if await self._books.leave([(letter.id, died)]) == [True]:
            log.dead_moved(letter.id, stream=letter.stream, file=str(path))

    def _on_disk(self, job_id: str, eml: bytes) -> Path:
        place = self._folder if self._folder.exists() else self._folder.parent
        try:
            free = shutil.disk_usage(place).free
        except OSError as error:
            raise LetterFileError(f"{place}: {error.strerror or error}") from error
        if free - len(eml) < self._disk_floor:
            raise LetterFileError(
                f"{place} has less than {self._disk_floor / 1e6:g} MB free (journal.disk_floor)"
            )
        return write_letter(self._folder, job_id, eml)


def _died_at(text: str, job_id: str) -> float:
    """Return when a letter died, in seconds since 1970; else when it was accepted; else 0."""
    try:
        return datetime.strptime(text, DATE_FORM).replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    try:
        return accepted_ms(job_id) / 1000
    except ValueError:
        return 0.0
