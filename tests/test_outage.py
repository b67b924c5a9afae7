"""How long clients are kept waiting while Redis is away, on both kinds of loop."""

import asyncio

import pytest
import uvloop

from proxy.queue.outage import Outage


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_absence_that_has_lasted_long_enough_ends_the_patience_and_may_be_reconsidered(
    run: object,
) -> None:
    async def away() -> int:
        given_up = asyncio.Event()
        outage = Outage(60.0, lambda: 0.5, given_up.set)
        outage.goes_on("gone", since=asyncio.get_running_loop().time() - 1)
        outage.reconsider()
        async with asyncio.timeout(5):
            await given_up.wait()
        outage.forget()
        return 1

    assert run(away()) == 1  # type: ignore[operator]  # asyncio.run and uvloop.run differ in their signatures


def test_an_exchange_that_takes_too_long_is_an_absence_since_it_began_and_ends() -> None:
    async def away() -> None:
        given_up = asyncio.Event()
        outage = Outage(0.5, lambda: 0.1, given_up.set)
        assert await outage.in_time(asyncio.sleep(0, "answer")) == "answer"
        lasted = [outage.lasts]
        exchange = asyncio.create_task(outage.in_time(asyncio.Event().wait()))
        async with asyncio.timeout(5):
            await given_up.wait()
        lasted.append(outage.lasts)
        assert not exchange.done()
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                await exchange
        lasted.append(outage.lasts)
        assert await outage.in_time(asyncio.sleep(0, "answer")) == "answer"
        lasted.append(outage.lasts)
        assert lasted == [False, True, True, False]

    uvloop.run(away())


def test_patience_that_shrinks_ends_the_wait_at_once() -> None:
    patience = 60.0

    async def away() -> None:
        nonlocal patience
        given_up = asyncio.Event()
        outage = Outage(60.0, lambda: patience, given_up.set)
        outage.goes_on("gone")
        patience = 0.0
        outage.reconsider()
        async with asyncio.timeout(5):
            await given_up.wait()

    uvloop.run(away())
