"""RQ's own tools and workers on our queue: they see us, and do no harm."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.job import Job
from rq.registry import (
    DeferredJobRegistry,
    FailedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.connection import open_redis
from proxy.queue.job import decode_envelope
from proxy.queue.releases import release
from tests.support.mail_queue import (
    claim_all,
    claims_on,
    dead,
    envelope,
    job,
    put,
    queued,
    scheduled,
    started,
)
from tests.support.processes import ROOT, clean_environ, free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for, wait_until
from worker.claims import Settlement

QUEUE = keys.queue_name("outbound")


def _rq(server: RedisServer, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of rq as an operator would."""
    program = str(Path(sys.executable).with_name("rq"))
    words = [sys.executable, program, command, "-u", server.url, *arguments]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=60, env=clean_environ(), cwd=ROOT, check=True
    )


@contextmanager
def _stock_worker(server: RedisServer, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a stock worker beside ours."""
    program = str(Path(sys.executable).with_name("rq"))
    words = [sys.executable, program, "worker", "-u", server.url, "-S", "json", *arguments]
    with (server.data_dir / "stock.log").open("ab") as log:
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=log,
            env=clean_environ(),
            cwd=ROOT,
            start_new_session=True,  # its scheduler is a process of its own
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _stock_simple_worker(client: redis.Redis, *queues: str) -> SimpleWorker:
    return SimpleWorker(list(queues), connection=client, serializer=JSONSerializer)


async def test_rq_info_shows_the_worker_its_state_and_its_counts(
    redis_server: RedisServer,
) -> None:
    put(redis_server.client(), 4)
    async with claims_on(redis_server.data_dir) as claims:
        first, second, *_ = await claim_all(claims, 3)
        await claims.settle(first, Settlement("gone"))
        await claims.settle(second, Settlement("gone", dead=second.envelope))

        def shown() -> str:
            return _rq(redis_server, "info", "-S", "json", "--raw").stdout

        await wait_until(lambda: "jobs: 1 finished, 1 failed" in shown())
        info = shown()
        assert f"queue {QUEUE} 1, 1 executing, 0 finished, 1 failed" in info
        assert f"worker {claims.name} (" in info
        assert f"{os.getpid()}) busy {QUEUE}." in info


async def test_a_worker_that_a_tool_struck_off_shows_itself_again(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    async with claims_on(redis_server.data_dir) as claims:
        # Redis stood still for longer than the key lives; then rq info was quicker than we.
        client.delete(f"rq:worker:{claims.name}", "rq:workers", f"rq:workers:{QUEUE}")
        await wait_until(lambda: [each.name for each in BaseWorker.all(connection=client)])
        [worker] = BaseWorker.all(connection=client)
        assert (worker.name, worker.queue_names()) == (claims.name, [QUEUE])
        assert worker.birth_date is not None


async def test_a_deferred_message_deleted_with_rq_does_not_age_the_queue(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        await claims.settle(claim, Settlement("defer", delay=60))
        Job.fetch(claim.id, connection=client, serializer=JSONSerializer).delete()
        claims._pulse._next_sweep = 0.0
        await wait_until(lambda: client.zcard(keys.deferred_key("outbound")) == 0)


async def test_rq_info_in_a_loop_changes_nothing_of_what_is_claimed(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 3)
    async with claims_on(redis_server.data_dir) as claims:
        held = await claim_all(claims, 3)
        before = {message_id: job(client, message_id) for message_id in ids}
        queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
        for ahead in (0, 100, 10_000_000_000):
            # What rq info and a stock worker's maintenance run, at any time to come.
            StartedJobRegistry(queue=queue).cleanup(time.time() + ahead)
            FailedJobRegistry(queue=queue).cleanup(time.time() + ahead)
        for _ in range(3):
            _rq(redis_server, "info", "-S", "json")
            _rq(redis_server, "info")
        assert {message_id: job(client, message_id) for message_id in ids} == before
        assert started(client) == ids
        assert [await claims.settle(claim, Settlement("gone")) for claim in held] == [True] * 3


async def test_a_held_message_survives_what_stock_tools_do(redis_server: RedisServer) -> None:
    client = redis_server.client()
    ids = put(client, 2)
    record = json.dumps({"before": time.time() + 60, "since": time.time()})
    client.hset(keys.HOLDS, "mine", record)
    queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
    async with claims_on(redis_server.data_dir) as claims:
        assert await claims.claim({"outbound": 5}) == []
        before = {message_id: job(client, message_id) for message_id in ids}
        for ahead in (0, 10_000_000_000):
            for registry in (DeferredJobRegistry, StartedJobRegistry, FailedJobRegistry):
                registry(queue=queue).cleanup(time.time() + ahead)
        _rq(redis_server, "requeue", "-S", "json", "--queue", QUEUE, "--all")
        _rq(redis_server, "info", "-S", "json")
        shown = DeferredJobRegistry(queue=queue).get_job_ids()
        assert sorted(map(str, shown)) == sorted(ids)
        worker = _stock_simple_worker(client, QUEUE)
        worker.clean_registries()
        assert not worker.work(burst=True)
        claims._pulse._next_sweep = 0.0
        await claims._pulse._sweep()
        assert {message_id: job(client, message_id) for message_id in ids} == before
        fetched = Job.fetch(ids[0], connection=client, serializer=JSONSerializer)
        assert fetched.get_status() == "deferred"
        fetched.delete()  # as rq-dashboard does
        client.delete(keys.HOLDS)
        store = open_redis(Settings(), redis_server.data_dir, timeout=5)
        assert (await release(store, time.time())).back == 1
        await store.aclose()
        assert [each.id for each in await claim_all(claims, 1)] == ids[1:]


async def test_rq_requeue_puts_dead_letters_back_whole_and_with_a_new_clock(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    body = bytes(range(256)) * 20
    put(client, 2, body=body, mail=envelope(attempts=7, waited=172_800.0))
    async with claims_on(redis_server.data_dir) as claims:
        for claim in await claim_all(claims, 2):
            await claims.settle(claim, Settlement("gone", dead=claim.envelope))
        letters = dead(client)
        _rq(redis_server, "requeue", "--queue", QUEUE, "-S", "json", "--all")
        assert dead(client) == []
        again = await claim_all(claims, 2)
        assert sorted(claim.id for claim in again) == letters
        assert {claim.body for claim in again} == {body}
        assert {(claim.envelope.attempts, claim.envelope.waited) for claim in again} == {(0, 0.0)}
        assert [await claims.settle(claim, Settlement("gone")) for claim in again] == [True] * 2
        assert not client.keys("rq:results:*")


async def test_rq_suspend_holds_the_worker_and_rq_resume_lets_it_go_on(
    redis_server: RedisServer,
) -> None:
    put(redis_server.client())
    async with claims_on(redis_server.data_dir) as claims:
        _rq(redis_server, "suspend")
        assert await claims.claim({"outbound": 1}) == []
        await wait_until(lambda: " suspended " in _rq(redis_server, "info", "--raw").stdout)
        _rq(redis_server, "resume")
        assert len(await claim_all(claims, 1)) == 1


async def test_commands_of_rq_reach_the_worker(redis_server: RedisServer) -> None:
    client = redis_server.client()
    first, second = put(client, 2)
    async with claims_on(redis_server.data_dir) as claims:
        calls: list[str] = []
        claims.on_shutdown = lambda: calls.append("shutdown")
        claims.on_stop_job = calls.append
        await claim_all(claims, 2)
        channel = f"rq:pubsub:{claims.name}"
        await wait_until(lambda: client.pubsub_numsub(channel)[0][1] == 1)
        send_stop_job_command(client, second, serializer=JSONSerializer)
        await wait_until(lambda: calls == [second])
        send_kill_horse_command(client, claims.name)
        await wait_until(lambda: calls == [second, first, second])
        client.publish(channel, "no json")
        send_shutdown_command(client, claims.name)
        await wait_until(lambda: calls[3:] == ["shutdown"])


async def test_rq_dashboard_shows_queues_workers_and_why_a_letter_died(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client, 3)
    port = free_port()
    program = str(Path(sys.executable).with_name("rq-dashboard"))
    async with claims_on(redis_server.data_dir) as claims:
        first, second = await claim_all(claims, 2)
        lost = first.envelope.left(first.envelope.recipients, {"you@example.net": "550 5.1.1 none"})
        await claims.settle(first, Settlement("gone", dead=lost))
        with (redis_server.data_dir / "dashboard.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    program,
                    *f"-j -b 127.0.0.1 -p {port} -u {redis_server.url}".split(),
                ],
                stdout=log,
                stderr=log,
                env=clean_environ(),
            )
        try:

            def fetch(path: str) -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/0/{path}") as page:
                    answer: str = page.read().decode()
                return answer

            def answers() -> bool:
                try:
                    return bool(fetch("data/queues.json"))
                except OSError:
                    return False

            await wait_until(answers, 30)
            [queue] = json.loads(fetch("data/queues.json"))["queues"]
            assert (queue["name"], queue["count"]) == (QUEUE, 1)
            [worker] = json.loads(fetch("data/workers.json"))["workers"]
            assert (worker["name"], worker["queues"]) == (claims.name, [QUEUE])
            failed = fetch(f"data/jobs/{QUEUE}/failed/10/asc/1.json")
            assert "you@example.net: 550 5.1.1 none" in failed
            assert second.id in fetch(f"data/jobs/{QUEUE}/started/10/asc/1.json")
            details = json.loads(fetch(f"data/job/{second.id}.json"))
            assert details["description"] == f"mail {second.id}"
        finally:
            process.terminate()
            process.wait(30)
        assert await claims.settle(second, Settlement("gone"))


def test_a_stock_worker_relays_nothing_and_loses_nothing(redis_server: RedisServer) -> None:
    client = redis_server.client()
    ids = put(client, 3, body=b"octets \xff\x00")
    before = job(client, ids[0])
    _stock_simple_worker(client, QUEUE).work(burst=True, logging_level="ERROR")
    assert scheduled(client) == ids
    assert queued(client) == dead(client) == started(client) == []
    for message_id in ids:
        after = job(client, message_id)
        assert after["status"] == b"scheduled"
        assert (after["body"], after["envelope"]) == (before["body"], before["envelope"])
        due = client.zscore(keys.scheduled_key("outbound"), message_id)
        assert due == pytest.approx(time.time() + 30, abs=10)


async def test_what_a_stock_worker_refused_is_relayed_by_ours_when_it_is_due(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    mail = envelope("a@example.net", attempts=2, waited=90.0)
    [message_id] = put(client, mail=mail)
    _stock_simple_worker(client, QUEUE).work(burst=True, logging_level="ERROR")
    async with claims_on(redis_server.data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
        client.zadd(keys.scheduled_key("outbound"), {message_id: time.time()})
        [claim] = await claim_all(claims, 1)
        assert claim.envelope == mail
        assert await claims.settle(claim, Settlement("gone"))
    assert not client.keys(f"rq:*{message_id}*")


async def test_a_stock_worker_beside_ours_takes_no_message_from_it(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    client = redis_server.client()
    ids = put(client, 200)
    seen: list[str] = []
    with _stock_worker(redis_server, "-w", "rq.SimpleWorker", QUEUE):
        wait_for(lambda: client.scard("rq:workers") == 1, 30)
        async with claims_on(redis_server.data_dir) as claims:
            due = False
            while len(seen) < len(ids):
                for claim in await claims.claim({"outbound": 20}):
                    assert await claims.mark(claim, claim.envelope.recipients)
                    assert await claims.settle(claim, Settlement("gone"))
                    seen.append(claim.id)
                if not queued(client) and len(seen) + len(scheduled(client)) == len(ids):
                    due = True
                if due:  # what the stock worker took is due at once, instead of in 30 s
                    for message_id in scheduled(client):
                        client.zadd(keys.scheduled_key("outbound"), {message_id: 0})
                await claims.wait_for_work(0.05)
    assert sorted(seen) == ids
    assert dead(client) == []
    assert capfd.readouterr().err.count("serves a queue of mail") == 1


@pytest.mark.parametrize("queues", [[QUEUE], [QUEUE, "franker-broadcasts"]], ids=["one", "two"])
async def test_what_a_killed_stock_worker_held_comes_back(
    redis_server: RedisServer, queues: list[str]
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    stock = _stock_simple_worker(client, *queues)
    stock.bootstrap("ERROR")
    taken = stock.queues[0].fetch_job(message_id)
    assert taken is not None
    # The stock worker's own steps, up to the moment in which it is killed.
    client.lpop(keys.queue_key("outbound"))
    stock.prepare_execution(taken)
    stock.prepare_job_execution(taken)
    stock.unsubscribe()
    client.delete(stock.key)
    async with claims_on(redis_server.data_dir) as claims:
        assert await claims.claim({"outbound": 1}) == []
        [(member, _)] = client.zrange(keys.started_key("outbound"), 0, -1, withscores=True)
        client.zadd(keys.started_key("outbound"), {member: time.time() - 1})
        claims._pulse._next_sweep = 0.0
        [claim] = await claim_all(claims, 1)
        assert claim.id == message_id
        assert await claims.settle(claim, Settlement("gone"))


async def test_a_stock_scheduler_that_is_late_makes_nothing_go_out_twice(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        await claims.settle(claim, Settlement("defer", delay=0.1))
        # The stock scheduler reads the job as due; before it writes, ours has been quicker.
        stale = Job.fetch(message_id, connection=client, serializer=JSONSerializer)
        [claim] = await claim_all(claims, 1)
        queue.enqueue_job(stale)
        assert queued(client) == [message_id]
        assert await claims.claim({"outbound": 5}) == []
        assert await claims.mark(claim, claim.envelope.recipients)
        assert await claims.settle(claim, Settlement("gone"))
        queue.enqueue_job(stale)
        assert queued(client) == [message_id]
        assert await claims.claim({"outbound": 5}) == []
        assert not client.keys("rq:job:*")


async def test_an_expired_claim_of_a_stock_worker_takes_no_message_from_who_holds_it(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    [message_id] = put(client)
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        stale = f"{message_id}:0123456789abcdef"
        client.zadd(keys.started_key("outbound"), {stale: time.time() - 60})
        claims._pulse._next_sweep = 0.0
        await wait_until(lambda: client.zscore(keys.started_key("outbound"), stale) is None)
        assert queued(client) == []
        assert await claims.mark(claim, claim.envelope.recipients)
        assert await claims.settle(claim, Settlement("gone"))


async def test_what_stands_in_a_stock_workers_intermediate_list_comes_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.claims.pulse._SWEEP_EVERY_S", 0.1)
    monkeypatch.setattr("worker.claims.pulse._STRANDED_AFTER_S", 1.0)
    client = redis_server.client()
    [message_id] = put(client)
    queue = keys.queue_key("outbound")
    assert client.lmove(queue, f"{queue}:intermediate", "LEFT", "RIGHT") == message_id.encode()
    async with claims_on(redis_server.data_dir) as claims:
        [claim] = await claim_all(claims, 1)
        assert claim.id == message_id
        assert client.llen(f"{queue}:intermediate") == 0


async def test_our_keys_and_fields_are_a_stock_workers_or_documented_as_ours(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    queue = Queue("stock", connection=client, serializer=JSONSerializer)
    seen: dict[str, set[str]] = {}

    def note(owner: str, *names: str) -> None:
        """Note every key with our ids and names made general, and the fields of hashes."""
        for key in client.keys("*"):
            general = key.decode()
            for place, name in enumerate(names):
                general = general.replace(name, f"<{place}>")
            if general.startswith(("rq:execution", "franker:", "test:")):
                continue
            fields = seen.setdefault(f"{owner} {general}", set())
            if client.type(key) == b"hash":
                fields.update(each.decode() for each in client.hkeys(key))

    # A stock worker with one job in its hands.
    stock = _stock_simple_worker(client, "stock")
    stock.bootstrap("ERROR")
    work = queue.enqueue("worker.tasks.relay", "x", job_id="stockjob", failure_ttl=-1)
    client.lpop("rq:queue:stock")
    stock.prepare_execution(work)
    stock.prepare_job_execution(work)
    stock.set_state("busy")
    note("stock", "stockjob", "stock:x", stock.name)
    stock.unsubscribe()
    client.flushall()

    [message_id] = put(client)
    async with claims_on(redis_server.data_dir) as claims:
        await claim_all(claims, 1)
        client.delete("test:batches")
        note("ours", message_id, "franker-outbound", claims.name)

    def keys_of(owner: str) -> set[str]:
        names = (key.partition(" ")[2] for key in seen if key.startswith(owner))
        return {name.replace(":stock", ":<1>") for name in names}

    # rq:clean_registries is a lock of stock maintenance; executions are not written by us.
    assert keys_of("ours") == keys_of("stock") - {"rq:clean_registries:<1>"}
    ours, theirs = seen["ours rq:job:<0>"], seen["stock rq:job:<0>"]
    assert ours - theirs == {"body", "claim", "envelope", "retries_left", "retry_intervals"}
    ours, theirs = seen["ours rq:worker:<2>"], seen["stock rq:worker:<2>"]
    assert ours - theirs == {"successful_job_count", "failed_job_count", "franker"}
    assert theirs - ours <= {"current_job", "current_job_working_time"}


async def test_rq_reads_what_we_write(redis_server: RedisServer) -> None:
    client = redis_server.client()
    put(client, 3)
    queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
    async with claims_on(redis_server.data_dir) as claims:
        held, deferred, lost = await claim_all(claims, 3)
        await claims.settle(deferred, Settlement("defer", delay=60))
        await claims.settle(lost, Settlement("gone", dead=lost.envelope))

        def fetch(job_id: str) -> Job:
            return Job.fetch(job_id, connection=client, serializer=JSONSerializer)

        assert fetch(held.id).get_status() == "started"
        assert fetch(held.id).worker_name == claims.name
        assert fetch(held.id).started_at is not None
        assert fetch(deferred.id).get_status() == "scheduled"
        letter = fetch(f"{lost.id}-1")
        assert letter.get_status() == "failed"
        assert letter.args == [letter.id]
        assert letter.func_name == "worker.tasks.relay"
        assert letter.ended_at is not None
        result = letter.latest_result()
        assert result is not None
        assert result.exc_string == "you@example.net: no reply noted"
        assert StartedJobRegistry(queue=queue).get_job_ids() == [held.id]
        assert ScheduledJobRegistry(queue=queue).get_job_ids() == [deferred.id]
        assert FailedJobRegistry(queue=queue).get_job_ids() == [letter.id]
        [worker] = BaseWorker.all(connection=client)
        assert (worker.name, worker.pid) == (claims.name, os.getpid())
        assert worker.queue_names() == [QUEUE]


async def test_a_message_deleted_with_rq_leaves_no_trace_of_a_claim(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    put(client, 2)
    async with claims_on(redis_server.data_dir) as claims:
        first, second = await claim_all(claims, 2)
        Job.fetch(first.id, connection=client, serializer=JSONSerializer).delete()
        assert not await claims.mark(first, ("you@example.net",))
        await claims.settle(first, Settlement("back"))
        await claims.settle(second, Settlement("gone", dead=second.envelope))
        letter = f"{second.id}-1"
        Job.fetch(letter, connection=client, serializer=JSONSerializer).delete()
    assert not client.keys("rq:job:*")
    assert queued(client) == dead(client) == started(client) == []
    assert client.ttl(keys.results_key(letter)) > 0


@pytest.mark.slow
async def test_a_stock_worker_started_while_ours_is_stopped_sends_and_loses_nothing(
    redis_server: RedisServer,
) -> None:
    client = redis_server.client()
    ids = put(client, 5)
    settings = Settings.model_validate({"retry": {"cap": "1s"}})
    async with claims_on(redis_server.data_dir, settings=settings) as claims:
        held = await claim_all(claims, 2)
        await claims.mark(held[0], ("you@example.net",))
    assert queued(client) == ids
    with _stock_worker(redis_server, "-w", "rq.SimpleWorker", "--with-scheduler", QUEUE):
        await wait_until(lambda: scheduled(client) == ids, 60)
        _rq(redis_server, "info")
    assert dead(client) == []
    for message_id in ids:
        client.zadd(keys.scheduled_key("outbound"), {message_id: 0})
    async with claims_on(redis_server.data_dir) as claims:
        got = await claim_all(claims, 5)
        assert sorted(claim.id for claim in got) == ids
        assert [claim.id for claim in got if claim.dot] == [ids[0]]
        assert {decode_envelope(job(client, each)["envelope"]).attempts for each in ids} == {0}
