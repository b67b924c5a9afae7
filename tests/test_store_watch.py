"""What is said of a store that is full, has room, and is full again."""

import pytest

from proxy.queue.watch import Demands, StoreWatch

FULL, ROOMY = 9_900_000, 5_000_000


class Store:
    """A server that uses as much memory as it is told."""

    used = ROOMY
    own = 0

    async def settings(self) -> dict[str, str]:
        return {}

    async def info(self) -> dict[str, str]:
        return {"used_memory": str(self.used), "maxmemory": str(self.own)}


class Watched:
    """A watch over it, and what that says."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.store = Store()
        self.watch = StoreWatch(Demands(require_durable=False, max_memory=10_000_000))
        self._capfd = capfd

    async def see(self, now: float, used: int) -> list[str]:
        """Look at `now`; return the events of which that is worth a line."""
        self.store.used = used
        await self.watch.inspect(self.store, now, batches=0)  # type: ignore[arg-type]  # a stand-in
        lines = self._capfd.readouterr().err.splitlines()
        return [word for line in lines if (word := line.split()[1]).startswith("store_")]


@pytest.fixture
def watched(capfd: pytest.CaptureFixture[str]) -> Watched:
    return Watched(capfd)


async def test_that_a_store_is_full_and_has_room_again_is_said_at_once(watched: Watched) -> None:
    await watched.see(0, ROOMY)
    assert await watched.see(1, FULL) == ["store_full"]
    assert await watched.see(2, FULL) == []
    assert await watched.see(3, ROOMY) == ["store_has_room"]
    assert await watched.see(60, FULL) == ["store_full"]
    assert await watched.see(61, ROOMY) == ["store_has_room"]


async def test_room_that_comes_and_goes_is_one_story_and_mail_is_taken_meanwhile(
    watched: Watched,
) -> None:
    await watched.see(0, ROOMY)
    assert await watched.see(1, FULL) == ["store_full"]
    assert await watched.see(2, ROOMY) == ["store_has_room"]
    assert await watched.see(3, FULL) == ["store_full"]
    for now in range(4, 40, 2):
        assert await watched.see(now, ROOMY) == []
        assert watched.watch.full == ""
        assert watched.watch.has_room(1000)
        assert await watched.see(now + 1, FULL) == []
        assert "9.9 of 10.0 MB" in watched.watch.full
    assert await watched.see(40, ROOMY) == []
    assert await watched.see(49, ROOMY) == []
    assert await watched.see(50, ROOMY) == ["store_has_room"]
    assert await watched.see(51, ROOMY) == []


def fitting(watch: StoreWatch, octets: int) -> int:
    """Return how many messages of so many octets have room until the next look."""
    count = 0
    while watch.has_room(octets):
        count += 1
    return count


async def test_what_comes_between_two_looks_counts_twice_against_the_servers_own_limit(
    watched: Watched,
) -> None:
    await watched.see(0, ROOMY)
    assert fitting(watched.watch, 99_000) == 49  # 5 MB are left of redis.max_memory
    watched.store.own = 10_000_000
    await watched.see(1, ROOMY)
    assert fitting(watched.watch, 99_000) == 20  # 4 MB of the server's
    await watched.see(2, ROOMY)
    assert watched.watch.has_room(3_900_000)  # the first always, if there is room for it
    assert not watched.watch.has_room(100)
