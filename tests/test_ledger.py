"""What became of each recipient stands in the log and in the metrics: a line and a count each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from tests.support.far_end import FarEnd
from tests.support.mail_queue import dead, envelope, put, scheduled
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, sample, settings_for
from tests.support.waiting import wait_until

STREAM = "ledger"


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def counted(name: str, **labels: str) -> float:
    return sample(f"franker_{name}", stream=STREAM, **labels)


async def test_every_verdict_has_its_line_and_its_count(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    streams = {STREAM: {"id": "outbound", "token": {"file": str(data_dir / "token")}}}
    settings = settings_for(far_end, data_dir, streams=streams)
    far_end.fail("rcpt", "451 4.2.1 mailbox busy", address="later@*")
    far_end.fail("rcpt", "550 5.1.1 no such person", address="never@*")
    port = str(far_end.ports[0])
    async with relay_at_work(settings, data_dir):
        for verdict in ("sent", "deferred", "dead"):
            assert counted("recipients_total", verdict=verdict) == 0
        names = ("now@example.net", "later@example.net", "never@example.net")
        [message_id] = put(queue, stream=STREAM, mail=envelope(*names))
        await wait_until(lambda: scheduled(queue, STREAM) and dead(queue, STREAM))
    for verdict in ("sent", "deferred", "dead"):
        assert counted("recipients_total", verdict=verdict) == 1
    assert counted("relay_attempts_total", port=port, result="sent") == 1
    assert counted("delivery_duration_seconds_count") == 2
    assert counted("last_success_timestamp_seconds") > 0
    assert sample("franker_upstream_replies_total", code="451") >= 1
    log = capfd.readouterr().err
    lines = {line.split()[1]: line for line in log.splitlines() if f"id={message_id}" in line}
    assert "to=now@example.net" in lines["sent"]
    assert f"port={port}" in lines["sent"]
    assert "to=later@example.net" in lines["deferred"]
    assert 'reply="451 4.2.1 mailbox busy"' in lines["deferred"]
    assert "to=never@example.net" in lines["dead"]
    assert 'reply="550 5.1.1 no such person"' in lines["dead"]


async def test_an_attempt_without_a_verdict_is_told_and_counted(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    streams = {"ledger-broken": {"id": "outbound", "token": {"file": str(data_dir / "token")}}}
    settings = settings_for(far_end, data_dir, streams=streams)
    far_end.fail("data", do="drop", times=1)
    async with relay_at_work(settings, data_dir):
        [message_id] = put(queue, stream="ledger-broken")
        await far_end.until(1)
    attempts = "franker_relay_attempts_total"
    labels = {"stream": "ledger-broken", "port": str(far_end.ports[0])}
    assert sample(attempts, result="broken", **labels) == 1
    log = capfd.readouterr().err
    assert f" attempt id={message_id} " in log


async def test_an_unknown_outcome_is_told_and_counted(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    streams = {"ledger-unknown": {"id": "outbound", "token": {"file": str(data_dir / "token")}}}
    settings = settings_for(far_end, data_dir, streams=streams)
    far_end.fail("taken", do="drop", times=1)
    async with relay_at_work(settings, data_dir):
        [message_id] = put(queue, stream="ledger-unknown")
        await wait_until(lambda: scheduled(queue, "ledger-unknown"))
    labels = {"stream": "ledger-unknown", "port": str(far_end.ports[0])}
    assert sample("franker_relay_attempts_total", result="unknown", **labels) == 1
    assert f" unknown id={message_id} " in capfd.readouterr().err
