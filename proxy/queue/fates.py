"""What became of messages whose commit was not answered, and how it is set right."""

import asyncio
from collections import deque
from collections.abc import Sequence

from proxy.log import events
from proxy.queue import keys, refusal
from proxy.queue.batch import Batch, Waiting
from proxy.queue.fence import Fence
from proxy.queue.refusal import NotKept
from proxy.queue.scripts import load
from proxy.queue.store import StoreConnection

WITHDRAW = load("withdraw")
_WITHDRAWN_AT_ONCE = 500


class Fates:
    """The batch on its way, and those whose fate `fence` must tell.

    `flying` was sent and not answered yet. A diverted batch was, too, but its messages are in the
    journal meanwhile. Regretted messages may be in Redis though their clients heard that they are
    not: they are withdrawn.
    """

    def __init__(self, fence: Fence) -> None:
        self.fence = fence
        self.number = 0
        """The last that was given to a batch, or to a message in the journal."""
        self.flying: Batch | None = None
        self._diverted: Batch | None = None
        self._regretted: deque[Waiting] = deque()

    def next_number(self) -> int:
        """Return a number above all that were given."""
        self.number += 1
        return self.number

    def landed(self, batch: Batch) -> bool:
        """Note that `batch` was answered; False when it was diverted before."""
        if self.flying is not batch:
            return False
        self.flying = None
        return True

    def divert(self) -> Batch:
        """Return the batch that flies; from now on its messages are the journal's."""
        batch = self.flying
        assert batch is not None
        assert self._diverted is None
        self.flying, self._diverted = None, batch
        return batch

    @property
    def regretted(self) -> int:
        """Messages that are to be withdrawn."""
        return len(self._regretted)

    def kept(self, batch: Batch) -> None:
        """Tell the clients of a batch that it is kept; regret those that were told no meanwhile."""
        settle(batch.messages, None)
        for each in batch.messages:
            if each.told_no and not each.done.cancelled():
                self._regretted.append(each)

    def regret(self, batch: Batch) -> None:
        """Tell the clients of a batch no, and note that it may be there all the same."""
        settle(batch.messages, refusal.unknown())
        self._regretted.extend(each for each in batch.messages if not each.apart)

    async def take_up(
        self, store: StoreConnection, replicas: int, within: float, *, sure: bool
    ) -> list[Waiting]:
        """Raise the fence, learn what was applied, set right what should not have been.

        So many `replicas` must have what was, `within` seconds; `sure`: raise if they have not.
        Return the messages that must be sent again.

        Raises:
            TimeoutError: the replicas have not confirmed what was applied.
        """
        await self.fence.raise_on(store)
        safe = await store.replicated(replicas, within)
        if not safe and (sure or self._diverted is not None):
            raise TimeoutError("the replicas have not confirmed what was kept")
        await self._judge_diverted()
        again = self._judge_flying(safe=safe)
        await self.withdraw(store)
        return again

    async def _judge_diverted(self) -> None:
        batch = self._diverted
        if batch is None:
            return
        if waits := [each.done for each in batch.messages if not each.done.done()]:
            await asyncio.wait(waits)  # until the journal has them, or has failed
        if self.fence.last >= batch.number:
            self._regretted.extend(each for each in batch.messages if each.told_no)
        self._diverted = None

    def _judge_flying(self, *, safe: bool) -> list[Waiting]:
        batch, self.flying = self.flying, None
        if batch is None:
            return []
        if self.fence.last < batch.number:
            return [each for each in batch.messages if not each.done.done()]
        if not safe:
            settle(batch.messages, refusal.unknown())
        # Whoever was told no, or has gone, will bring it again.
        self._regretted.extend(each for each in batch.messages if each.told_no)
        settle(batch.messages, None)
        return []

    async def withdraw(self, store: StoreConnection) -> None:
        """Take back what is regretted; what a worker has taken meanwhile goes out, and is named."""
        while self._regretted:
            count = min(len(self._regretted), _WITHDRAWN_AT_ONCE)
            jobs = [self._regretted[place] for place in range(count)]
            words = [word for job in jobs for word in (keys.queue_name(job.stream), job.id)]
            said = await store.script(WITHDRAW, (), *words)
            found = [word.decode() if isinstance(word, bytes) else word for word in said]
            for message_id, what in zip(found[::2], found[1::2], strict=True):
                verb = "goes out" if what == "taken" else "may have gone out"
                events.notice(f"{message_id} {verb} though its client was told 451")
            for _ in range(count):
                self._regretted.popleft()


def settle(messages: Sequence[Waiting], trouble: NotKept | None) -> None:
    """Tell the clients that still wait that their messages are kept, or why not."""
    for waiting in messages:
        if waiting.done.done():
            continue
        if trouble is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(trouble.again())
