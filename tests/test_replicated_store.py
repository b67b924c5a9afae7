"""Mail kept on more than one server: Sentinel, and replicas that must have it too."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.commit import GroupCommit, NotKept, group_commit
from proxy.queue.connection import open_redis, target
from proxy.queue.watch import Demands
from tests.support.jobs import a_job
from tests.support.processes import free_port
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.waiting import wait_for, wait_until


@pytest.fixture
def master(data_dir: Path) -> Iterator[RedisServer]:
    options = {"min-replicas-to-write": "1", "repl-diskless-sync-delay": "0"}
    server = RedisServer(data_dir, port=free_port(), options=options)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def replica(master: RedisServer) -> Iterator[RedisServer]:
    folder = new_data_dir()
    server = RedisServer(folder, port=free_port())
    server.start()
    server.client().replicaof("127.0.0.1", master.port)
    look = master.client()
    wait_for(lambda: look.info("replication").get("min_slaves_good_slaves") == 1)
    yield server
    server.kill()  # while it writes its first file it does not end when asked to
    remove_data_dir(folder)


@pytest.fixture
async def committer(master: RedisServer, replica: RedisServer) -> AsyncIterator[GroupCommit]:
    store = open_redis(Settings(), master.data_dir, timeout=None)
    made = GroupCommit(store, Demands(replicated=True), patience=3.0)
    await made.start()
    await wait_until(lambda: not made.unready, 60, "the store is ready")
    yield made
    await made.close(grace=0.1)


async def test_what_is_kept_is_on_the_replica_too(committer: GroupCommit, replica: RedisServer):
    job = a_job()
    await committer.commit(job)
    assert replica.client().hget(keys.job_key(job.id), "body") == job.body


async def test_what_the_replica_has_not_confirmed_is_not_kept(
    committer: GroupCommit, master: RedisServer, replica: RedisServer
):
    replica.pause()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "unknown"
    look = master.client()
    await wait_until(lambda: not look.keys("rq:job:*"), what="it is withdrawn")
    assert look.llen(keys.queue_key("outbound")) == 0
    replica.resume()
    await wait_until(lambda: look.set("asked", "1") and look.wait(1, 500), what="it follows again")
    job = a_job()
    await committer.commit(job)
    assert look.lrange(keys.queue_key("outbound"), 0, -1) == [job.id.encode()]


async def test_an_error_from_a_replicated_store_leaves_the_connection_in_step(
    committer: GroupCommit, master: RedisServer
):
    look = master.client()
    look.set(keys.queue_key("outbound"), "not a list")
    with pytest.raises(NotKept):
        await committer.commit(a_job())
    look.delete(keys.queue_key("outbound"))
    await committer.commit(a_job())
    assert look.llen(keys.queue_key("outbound")) == 1


@pytest.fixture
def sentinel_url(master: RedisServer, replica: RedisServer) -> Iterator[str]:
    """A Sentinel that watches the master; its URL."""
    port, folder = free_port(), new_data_dir()
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor mail 127.0.0.1 {master.port} 1\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["redis-server", str(file), "--sentinel"], stdout=log)
    probe = redis.Redis(port=port)
    wait_for(lambda: _answers(probe), what="Sentinel answers")
    yield f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/mail"
    probe.close()
    process.terminate()
    process.wait(30)
    remove_data_dir(folder)


def _answers(probe: redis.Redis) -> bool:
    try:
        return bool(probe.ping())
    except redis.RedisError:
        return False


async def test_behind_sentinel_mail_goes_to_the_master_it_names(
    sentinel_url: str, master: RedisServer, replica: RedisServer
):
    settings = Settings.model_validate({"redis": {"url": sentinel_url}})
    committer = group_commit(settings, master.data_dir)
    await committer.start()
    await wait_until(lambda: committer.durability, 60, "the store is ready")  # not the journal
    job = a_job()
    await committer.commit(job)
    await committer.close()
    assert replica.client().exists(keys.job_key(job.id))


async def test_behind_sentinel_a_master_that_needs_no_replica_is_not_trusted(
    sentinel_url: str, master: RedisServer
):
    master.client().config_set("min-replicas-to-write", 0)
    settings = Settings.model_validate({"redis": {"url": sentinel_url}})
    committer = group_commit(settings, master.data_dir)
    await committer.start()
    await wait_until(lambda: committer.durability, what="the store is judged")
    assert committer.unready == (
        "the mail store is not durable:"
        " behind Sentinel min-replicas-to-write is 0, needed is at least 1"
    )
    await committer.close()


def _target(url: str) -> tuple[str, tuple[tuple[str, int], ...], str, dict[str, object]]:
    found = target(Settings.model_validate({"redis": {"url": url}}), Path("/data"))
    return found.url, found.sentinels, found.service, found.options


def test_each_form_of_url_is_understood(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FRANKER_REDIS_PASSWORD", raising=False)
    assert _target("") == ("unix:///data/redis.sock", (), "", {})
    assert _target("rediss://h:1/2") == ("rediss://h:1/2", (), "", {})
    assert _target("redis+sentinel://us%40er@a:1,[::1]:2,b/mail/3") == (
        "",
        (("a", 1), ("::1", 2), ("b", 26379)),
        "mail",
        {"username": "us@er", "db": 3, "ssl": False},
    )


def test_the_password_of_a_named_server_comes_from_its_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRANKER_REDIS_PASSWORD", "secret")
    assert _target("redis://h")[3] == {"password": "secret"}
    assert _target("redis+sentinel://a/mail")[3] == {"password": "secret", "db": 0, "ssl": False}
    assert _target("")[3] == {}
