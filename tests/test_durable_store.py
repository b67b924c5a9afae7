"""A store that stops being durable while the proxy runs takes no mail until it is again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.queue import watch
from proxy.queue.commit import NotKept
from tests.support.dialog import Dialog
from tests.support.jobs import a_job
from tests.support.journaling import Committers, keep, moved, queued, ready, refusal
from tests.support.processes import Installation, Program, http_get
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.waiting import wait_until

MESSAGE = b"From: app@shop.example\r\nTo: you@example.net\r\nSubject: x\r\n\r\nHello\r\n"
HIDDEN = "the server does not show its settings (CONFIG is forbidden)"


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Committers]:
    """A maker of committers with a journal in `data_dir`, all closed at the end."""
    committers = Committers(data_dir)
    yield committers
    await committers.close()


@pytest.mark.parametrize(
    ("setting", "wrong", "reason"),
    [
        ("appendonly", "no", "appendonly is no, needed is yes: CONFIG SET appendonly yes"),
        ("appendfsync", "everysec", "appendfsync is everysec, needed is always: CONFIG SET"),
        ("appendfsync", "no", "appendfsync is no, needed is always: CONFIG SET"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is yes, needed is no"),
        ("maxmemory-policy", "allkeys-random", "maxmemory-policy is allkeys-random, needed is"),
    ],
)
async def test_what_is_set_wrong_while_mail_flows_is_found_refused_and_forgotten_when_it_is_right(
    redis_server: RedisServer,
    build: Committers,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    setting: str,
    wrong: str,
    reason: str,
) -> None:
    monkeypatch.setattr(watch, "VERIFY_EVERY_S", 0.0)
    committer = await ready(build())
    client = redis_server.client()

    right = str(client.config_get(setting)[setting])
    client.config_set(setting, wrong)
    told = await refusal(committer)
    assert told.kind == "not_durable"
    assert told.text.startswith(f"the mail store is not durable: {reason}")
    assert reason in committer.unready
    client.config_set(setting, right)
    await wait_until(lambda: not committer.unready)
    job = a_job()
    await committer.commit(job)
    assert queued(redis_server)[-1] == job.id
    log = capfd.readouterr().err
    assert log.count("store_not_durable ") == 1
    assert log.count("store_durable") == 2


async def test_the_settings_are_read_anew_at_least_once_a_minute(
    redis_server: RedisServer, build: Committers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.VERIFY_EVERY_S + watch.INSPECT_EVERY_S <= 60
    monkeypatch.setattr(watch, "VERIFY_EVERY_S", 1.0)
    await ready(build())
    client = redis_server.client()

    def read() -> int:
        return int(client.info("commandstats")["cmdstat_config|get"]["calls"])

    at_first = read()
    await wait_until(lambda: read() > at_first, what="they are read again")


async def test_a_server_whose_config_command_is_renamed_away_is_not_trusted(
    data_dir: Path, build: Committers, capfd: pytest.CaptureFixture[str]
) -> None:
    server = RedisServer(data_dir, options={"rename-command": ["CONFIG", "b840fc02d5"]})
    server.start()
    committer = await ready(build())
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert (told.value.kind, told.value.text) == (
        "not_durable",
        f"the mail store is not durable: {HIDDEN}; try again later",
    )
    assert HIDDEN in capfd.readouterr().err
    trusting = await ready(build(require_durable=False))
    await trusting.commit(a_job())
    assert len(queued(server)) == 1
    server.stop()


async def test_mail_waits_in_the_journal_while_the_server_has_been_made_a_replica(
    redis_server: RedisServer, build: Committers
) -> None:
    committer = await ready(build())
    client = redis_server.client()
    client.replicaof("127.0.0.1", "1")
    ids = await keep(committer, 3)
    assert queued(redis_server) == []
    client.replicaof("NO", "ONE")
    await wait_until(lambda: moved(committer))
    assert queued(redis_server) == ids


class Place:
    """A proxy process and its Redis."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation(folder, {})
        self.installation.data_dir.mkdir()
        self.redis = RedisServer(self.installation.data_dir)
        self.redis.start()
        self.proxy: Program = self.installation.start("proxy")

    def get(self, path: str) -> tuple[int, str]:
        return http_get(f"127.0.0.1:{self.installation.http_port}", path)

    def durable(self) -> float:
        lines = self.get("/metrics")[1].splitlines()
        return float(next(one for one in lines if one.startswith("franker_store_d")).split()[1])

    async def hand_in(self) -> str:
        async with await Dialog.open("127.0.0.1", self.installation.smtp_port) as dialog:
            await dialog.reply()
            for line in ("EHLO a", "MAIL FROM:<app@shop.example>", "RCPT TO:<you@example.net>"):
                assert (await dialog.say(line)).startswith("250")
            assert (await dialog.say("DATA")).startswith("354")
            dialog.send(MESSAGE + b".\r\n")
            return await dialog.reply(20)


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    folder = new_data_dir()
    place = Place(folder)
    await asyncio.to_thread(place.proxy.wait_for, "started process=proxy")
    yield place
    await asyncio.to_thread(place.installation.close)
    place.redis.stop()
    remove_data_dir(folder)


def set_wrong(server: RedisServer) -> None:
    server.client().config_set("appendfsync", "everysec")


def come_back_wrong(server: RedisServer) -> None:
    server.kill()
    server.options["appendfsync"] = "everysec"
    server.start()


@pytest.mark.parametrize("become_wrong", [set_wrong, come_back_wrong])
async def test_a_proxy_whose_store_is_not_durable_any_more_stays_up_and_says_why_until_it_is(
    place: Place, become_wrong: Callable[[RedisServer], None]
) -> None:
    async def answer_is(begin: str) -> bool:
        return (await place.hand_in()).startswith(begin)

    await wait_until(lambda: answer_is("250 "), 60)
    assert await asyncio.to_thread(place.durable) == 1
    await asyncio.to_thread(become_wrong, place.redis)
    reason = "the mail store is not durable: appendfsync is everysec, needed is always: "
    await wait_until(lambda: answer_is(f"451 4.3.0 {reason}"), 60, "mail is refused")
    assert await asyncio.to_thread(place.durable) == 0
    status, said = await asyncio.to_thread(place.get, "/readyz")
    assert status == 503
    assert reason in said
    assert place.proxy.exit_code is None
    assert 'store_not_durable reason="appendfsync is everysec' in place.proxy.log
    place.redis.client().config_set("appendfsync", "always")
    await wait_until(lambda: answer_is("250 "), 60, "mail is kept again")
    assert await asyncio.to_thread(place.durable) == 1
    assert (await asyncio.to_thread(place.get, "/readyz"))[0] == 200
