"""Marks and settles of all connections, gathered: what came during one call goes in the next."""

import asyncio
import json
import zlib
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.log import events
from proxy.mail.ids import accepted_ms
from proxy.queue.job import JobEnvelope, encode_envelope, rq_date
from worker.board import Board
from worker.claim import Claim, Leave, Settlement
from worker.claims.identity import Registration
from worker.claims.link import Link
from worker.claims.scripts import SETTLE
from worker.pauses import REFUSALS_TO_PAUSE

_MOST = 500
"""Operations in one call: about a millisecond of Redis."""

_DIED = 5  # words about a dead letter


class _RefusedByRedisError(Exception):
    """An operation that Redis could not do: keys of a wrong type, tampered with."""


@dataclass(slots=True)
class _Operation:
    claim: Claim
    words: list[str | float]
    done: "asyncio.Future[Any]"
    meaning: Callable[[str], object]
    """What is told when the script has answered with a letter; "" for none."""


# Made once: json.dumps would build an encoder for every mark.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _recipients(addresses: tuple[str, ...]) -> str:
    return _to_json(addresses) if addresses else ""


def _age(message_id: str) -> int:
    try:
        return accepted_ms(message_id)
    except ValueError:
        return 0


def _died(claim: Claim, dead: JobEnvelope, split: int, *, whole: bool) -> list[str | float]:
    """Return the words about a dead letter: its id, its envelope, why, why in RQ's form, whose.

    The last is "=" and its owner; "" when nobody is to be told.
    """
    # One that was put back by hand and dies again, whole, keeps its name.
    again = whole and "-" in claim.id and claim.envelope.dead == split - 1
    why = "\n".join(
        f"{address}: {dead.replies.get(address, 'no reply noted')}" for address in dead.recipients
    )
    return [
        claim.id if again else f"{claim.id}-{split}",
        encode_envelope(replace(dead, dead=0)).decode(),
        why,
        b64encode(zlib.compress(why.encode("utf-8", "replace"))).decode(),
        f"={dead.owner}" if dead.notify else "",
    ]


def _asked(claim: Claim, asked: JobEnvelope, split: int) -> list[str | float]:
    """Return the words about recipients that become a job of their own, to be asked for."""
    return [
        f"{claim.id}-{split}",
        encode_envelope(replace(asked, dead=0)).decode(),
        _recipients(asked.recipients),
        asked.asked,
    ]


class Flusher:
    """The one writer of this worker's marks and settles.

    `lost` is called when Redis no longer knows the worker; it returns when it is known anew.
    `board` hears of the rows of refusals, which come with each answer.
    """

    def __init__(
        self,
        link: Link,
        registration: Callable[[], Registration],
        lost: Callable[[Registration], Awaitable[None]],
        board: Board,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._board = board
        self._registration = registration
        self._lost = lost
        self._waiting: deque[_Operation] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self._splits: dict[tuple[str, str], int] = {}

    def mark(self, claim: Claim, recipients: tuple[str, ...]) -> "asyncio.Future[bool]":
        """See `Claims.mark`."""
        dot = _recipients(recipients)
        return self._add(claim, ["mark", claim.stream, claim.id, claim.execution, dot])

    def settle(self, claim: Claim, settlement: Settlement) -> "asyncio.Future[bool]":
        """See `Claims.settle`."""
        left, dead, key = settlement.left, settlement.dead, (claim.id, claim.execution)
        if dead is not None and dead.notice:
            dead = None  # the log has it; a letter about a letter would never end
        split = self._splits.pop(key, claim.envelope.dead)
        words: list[str | float] = [settlement.then, claim.stream, claim.id, claim.execution]
        died: list[str | float] = []
        if dead is not None:
            split += 1
            died = _died(claim, dead, split, whole=settlement.then == "gone")
        if settlement.asked is not None:
            split += 1
            died = [*(died or [""] * _DIED), *_asked(claim, settlement.asked, split)]
        if settlement.then == "keep" and split != claim.envelope.dead:
            self._splits[key] = split
        if settlement.then != "gone" or died:
            new = "" if left is None else encode_envelope(replace(left, dead=split)).decode()
            words += (new, _recipients(settlement.dot), settlement.delay, _age(claim.id), *died)
        return self._add(claim, words)

    def refused(self, claim: Claim, route: str, reply: str) -> "asyncio.Future[Leave]":
        """See `Claims.refused`."""
        words: list[str | float] = ["refused", claim.stream, claim.id, claim.execution]
        return self._add(claim, [*words, route, reply, REFUSALS_TO_PAUSE], _leave)

    def passed(self, claim: Claim, route: str, row: str) -> None:
        """See `Claims.passed`."""
        self._add(claim, ["passed", route, row])

    def _add(
        self,
        claim: Claim,
        words: list[str | float],
        meaning: Callable[[str], object] = "1".__eq__,
    ) -> "asyncio.Future[Any]":
        done: asyncio.Future[Any] = self._loop.create_future()
        if self._ended:
            done.set_result(meaning(""))
            return done
        self._waiting.append(_Operation(claim, words, done, meaning))
        self._idle.clear()
        self._more.set()
        return done

    async def drained(self) -> None:
        """Return when nothing waits to be written."""
        while not self._idle.is_set():  # an answer may lead to more
            await self._idle.wait()

    async def run(self) -> None:
        """Write what is given, until cancelled; what is not written by then is False."""
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._waiting:
                    await self._flush()
                self._idle.set()
        finally:
            self._ended = True
            for operation in self._waiting:
                _resolve(operation, "")

    async def _flush(self) -> None:
        me = self._registration()
        batch: list[_Operation] = []
        while self._waiting and len(batch) < _MOST:
            batch.append(self._waiting.popleft())
        try:
            words = json.dumps([operation.words for operation in batch])
            answer = await self._link.insist(SETTLE, me.incarnation, me.flush, rq_date(), words)
            me.flush += 1
            self._answer(batch, *answer)
        finally:
            for operation in batch:
                _resolve(operation, "")
        if answer[0] == b"gone":
            await self._lost(me)

    def _answer(
        self, batch: list[_Operation], word: bytes, results: bytes, rows: Sequence[bytes] = ()
    ) -> None:
        if word == b"done":
            self._board.heard_rows(rows)
            for operation, result in zip(batch, results.decode(), strict=True):
                if result == "!":
                    error = _RefusedByRedisError(f"Redis refused: {operation.words[0]!r}")
                    events.defect("claims", error=error, message_id=operation.claim.id)
                _resolve(operation, result)
        elif word != b"gone":
            events.defect("claims", error=_RefusedByRedisError(f"a flush came {word!r}"))


def _resolve(operation: _Operation, result: str) -> None:
    if not operation.done.done():
        operation.done.set_result(operation.meaning(result))


def _leave(result: str) -> Leave:
    # What Redis could not tell is nobody's death.
    leaves = {"1": Leave.DIES, "p": Leave.WAITS, "!": Leave.WAITS}
    return leaves.get(result, Leave.LOST)
