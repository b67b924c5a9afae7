"""What one worker finds out about a route, all workers of its Redis know."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.config.secrets import Secret
from proxy.queue import keys
from tests.support.far_end import FarEnd
from tests.support.mail_queue import dead, put, queued, started
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, sample, settings_for
from tests.support.waiting import wait_until
from worker import pauses
from worker.board import Board
from worker.daemon import Relay
from worker.gate import Gate
from worker.pauses import Reason, Scope
from worker.smarthost.host import Way

WRONG = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(autouse=True)
def by_itself_a_refused_login_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every further one has another reason, however slow the machine is."""
    monkeypatch.setitem(pauses._PAUSES, Reason.CREDENTIALS, (600.0, 600.0))


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def reasons(*relays: Relay) -> list[Reason | None]:
    return [relay.channels[0].gate.reason for relay in relays]


def probers(*relays: Relay) -> int:
    return sum(relay.channels[0].gate.probe_due for relay in relays)


def records(queue: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(one) if one[:1] == b"{" else {} for one in queue.hvals(keys.ROUTES)]


def refused_logins(far_end: FarEnd) -> int:
    return sum(not login.accepted for login in far_end.logins)


async def test_a_login_that_was_refused_is_tried_by_no_worker_while_the_route_is_paused(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(WRONG)
    settings = settings_for(far_end, data_dir)
    async with relay_at_work(settings, data_dir) as first, relay_at_work(settings, data_dir) as two:
        await wait_until(lambda: reasons(first, two) == [Reason.CREDENTIALS] * 2)
        await wait_until(lambda: probers(first, two) == 0)
        at_start = refused_logins(far_end)
        assert at_start <= 2  # each sees once, as it comes, whether mail can leave
        put(queue, 6)
        await wait_until(lambda: len(queued(queue)) == 6 and not started(queue))
        assert probers(first, two) == 0
        assert refused_logins(far_end) == at_start


async def test_a_token_that_was_mended_is_tried_by_one_and_opens_the_route_for_all(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(WRONG)
    settings = settings_for(far_end, data_dir)
    async with relay_at_work(settings, data_dir) as first, relay_at_work(settings, data_dir) as two:
        put(queue, 5)
        await wait_until(lambda: reasons(first, two) == [Reason.CREDENTIALS] * 2)
        (data_dir / "token").write_text(far_end.token)
        await far_end.until(5)
        await wait_until(lambda: reasons(first, two) == [None, None] and not records(queue))
        assert refused_logins(far_end) <= 2  # one a worker, as it came
    assert not dead(queue)


async def test_no_secret_stands_in_what_the_workers_share(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(WRONG)
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: records(queue))
        kept = str(queue.hgetall(keys.ROUTES))
        [record] = records(queue)
    assert WRONG not in kept
    assert str(data_dir / "token") in record["detail"]


async def test_a_host_out_of_reach_pauses_its_own_workers_only(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(far_end, data_dir)
    async with relay_at_work(settings, data_dir) as here:
        fault = far_end.fail("connect", do="refuse")
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        async with relay_at_work(settings, data_dir) as there:
            put(queue)
            await wait_until(lambda: any(reasons(here, there)))
            [record] = records(queue)
            assert record["reason"] == "unreachable"
            assert record["where"]
            far_end.mend(fault)
            await far_end.until(1)


async def test_workers_of_one_host_probe_one_at_a_time(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(far_end, data_dir)
    far_end.fail("connect", do="refuse")
    async with (
        relay_at_work(settings, data_dir) as one,
        relay_at_work(settings, data_dir) as two,
        relay_at_work(settings, data_dir) as three,
    ):
        put(queue)
        await wait_until(lambda: reasons(one, two, three) == [Reason.UNREACHABLE] * 3)
        await wait_until(lambda: any(each["failures"] >= 3 for each in records(queue)))
    said = [line for line in capfd.readouterr().err.splitlines() if " route_paused " in line]
    tried = [line for line in said if "another worker" not in line]
    assert len(said) >= 5  # two heard of it
    assert len(tried) in (3, 4)  # a fourth may have been under way


async def test_the_word_to_probe_passes_on_when_its_holder_dies(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    settings = settings_for(far_end, data_dir)
    far_end.fail("mail", "550 5.0.0 account suspended")
    async with relay_at_work(settings, data_dir) as heir:
        async with relay_at_work(settings, data_dir) as holder:
            put(queue, 10)
            await wait_until(lambda: reasons(heir, holder) == [Reason.REFUSING] * 2)
            await wait_until(lambda: not started(queue))
            queue.delete(keys.queue_key("outbound"))  # a route that refuses is probed by mail only
            holder.channels[0].gate.probe_now()
            await wait_until(lambda: probers(heir, holder) == 1)
            first = heir if probers(heir) else holder
        if first is holder:
            await wait_until(lambda: probers(heir) == 1)


async def test_with_the_last_worker_its_pauses_go_and_the_next_tries_at_once(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(WRONG)
    settings = settings_for(far_end, data_dir)
    put(queue)
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: records(queue))
    assert not records(queue)
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: refused_logins(far_end) == 2)


async def test_a_worker_that_comes_finds_the_pause_and_tries_once(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(WRONG)
    settings = settings_for(far_end, data_dir)
    put(queue)
    async with relay_at_work(settings, data_dir) as first:
        await wait_until(lambda: records(queue))
        async with relay_at_work(settings, data_dir) as second:
            await wait_until(lambda: refused_logins(far_end) == 2)
            await wait_until(lambda: reasons(first, second) == [Reason.CREDENTIALS] * 2)
            await wait_until(lambda: probers(first, second) == 0)


async def test_an_account_that_refuses_everything_is_left_alone_by_all(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    fault = far_end.fail("mail", "550 5.0.0 account suspended")
    settings = settings_for(far_end, data_dir, retry={"first": 0.5})
    async with relay_at_work(settings, data_dir) as first:
        put(queue, 5)
        await wait_until(lambda: reasons(first) == [Reason.REFUSING])
        async with relay_at_work(settings, data_dir) as second:
            await wait_until(lambda: reasons(second) == [Reason.REFUSING])
            put(queue, 40)
            before = len(dead(queue))
            assert before < 5
            far_end.mend(fault)
            first.channels[0].gate.probe_now()
            await far_end.until(45 - before)
            await wait_until(lambda: reasons(first, second) == [None, None])
    assert len(dead(queue)) == before


async def test_a_pause_that_redis_never_heard_of_is_said_again(
    queue: redis.Redis, redis_server: RedisServer, far_end: FarEnd, data_dir: Path
) -> None:
    settings = settings_for(far_end, data_dir)
    async with relay_at_work(settings, data_dir) as relay:
        redis_server.pause()
        relay.channels[0].gate.close(Reason.TLS, "expired")
        redis_server.resume()
        await wait_until(lambda: not relay.channels[0].gate.pauses)  # probed, and fine
    assert not records(queue)


async def test_a_record_that_cannot_be_read_stops_no_heart(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        queue.hset(keys.ROUTES, "x", "not JSON")
        await wait_until(lambda: not records(queue))
        put(queue)
        await far_end.until(1)


async def test_a_worker_without_a_connection_of_its_own_does_not_keep_the_word_to_probe(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text(WRONG)
    settings = settings_for(far_end, data_dir, postmark={"connections": 1})
    put(queue)
    async with relay_at_work(settings, data_dir) as first, relay_at_work(settings, data_dir) as two:
        await wait_until(lambda: reasons(first, two) == [Reason.CREDENTIALS] * 2)
        (data_dir / "token").write_text(far_end.token)
        await far_end.until(1)


async def test_the_credential_in_use_is_shown_by_its_name(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    old, new = data_dir / "old", data_dir / "new"
    old.write_text(WRONG)
    new.write_text(far_end.token)
    streams = {"outbound": {"token": [{"file": str(old)}, {"file": str(new)}]}}
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir, streams=streams), data_dir):
        await far_end.until(1)
        used = {
            name: sample("franker_credential_used", stream="outbound", credential=f"file {name}")
            for name in (old, new)
        }
    assert used == {old: 0, new: 1}


# -- the board alone ------------------------------------------------------------------------------


def _told(gate: Gate, board: Board) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(board.words())
    return told


async def test_a_changed_secret_of_one_stream_pauses_and_renames_no_other_with_an_equal_one(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {name: data_dir / f"token-{name}" for name in ("outbound", "second")}
    for file in files.values():
        file.write_text(far_end.token)
    streams = {
        name: {"id": "outbound", "token": {"file": str(file)}} for name, file in files.items()
    }
    async with relay_at_work(settings_for(far_end, data_dir, streams=streams), data_dir) as relay:
        outbound, second = (channel.gate for channel in relay.channels)
        for name in files:
            put(queue, stream=name)
        await far_end.until(2)
        assert outbound.name == second.name
        files["second"].write_text(WRONG)
        relay.channels[1]._pool.open_one()  # before anybody has seen that the file changed
        await wait_until(lambda: second.reason is Reason.CREDENTIALS and records(queue))
        assert outbound.name != second.name
        with pytest.raises(AssertionError, match="still not"):  # nor by the heartbeats that follow
            await wait_until(lambda: refused_logins(far_end) > 1, 1.5)
        files["second"].write_text(far_end.token)
        await wait_until(lambda: second.reason is None and not records(queue))
        put(queue, stream="second")
        await far_end.until(3)
        assert outbound.name == second.name
    said = [line for line in capfd.readouterr().err.splitlines() if " route_" in line]
    assert [line for line in said if "stream=outbound" in line] == []
    events = [line.split(" route_")[1].split()[0] for line in said]
    assert events == ["paused", "released"], said


def test_a_pause_from_before_a_secret_changed_is_told_to_nobody_and_stands_until_it_was_tried() -> (
    None
):
    now = 0.0
    board = Board()
    gate = Gate(("board-test",), lambda: now, board, name="old", where="h")
    gate.close(Reason.CREDENTIALS, "535")
    board.words()
    board.heard("{}")
    gate.close(Reason.CREDENTIALS, "535")
    board.words()
    gate.rename("new")
    board.heard("{}")
    assert gate.reason is Reason.CREDENTIALS
    assert gate.probe_due
    assert not [act for act in _told(gate, board)["acts"] if act[1].startswith("new")]
    now = 31.0
    board.heard("{}")  # nobody says so for long: it was the old one's
    assert gate.reason is None


def test_of_a_pause_that_another_stream_found_the_log_says_so(
    capfd: pytest.CaptureFixture[str],
) -> None:
    gate = Gate(("board-test",), lambda: 0.0, Board(), name="r", where="h")
    told = {"reason": "credentials", "detail": "535", "failures": 1, "age": 1, "wait": 5}
    gate.hear(Scope.ACCOUNT, {**told, "mine": False, "streams": ["other"]})
    gate.hear(Scope.ACCOUNT, None)
    gate.hear(Scope.ACCOUNT, {**told, "mine": False, "streams": ["board-test"]})
    said = [line for line in capfd.readouterr().err.splitlines() if " route_paused " in line]
    assert "found by mail of other, which has the same login: 535" in said[0]
    assert "another worker: 535" in said[1]


def test_streams_that_lack_a_login_are_not_one_route() -> None:
    ways = [Way("h", ((Secret(file=name), Secret(file=name)),)) for name in ("/no/1", "/no/2")]
    assert ways[0].route() != ways[1].route()


def test_what_was_said_is_said_again_until_it_was_heard() -> None:
    board = Board()
    gate = Gate(("board-test",), lambda: 0.0, board, name="r", where="h")
    gate.close(Reason.TLS, "expired")
    assert [act[:2] for act in _told(gate, board)["acts"]] == [["closed", "r@h"]]
    gate.open()
    acts = [["closed", "r@h"], ["opened", "r@h"]]
    assert [act[:2] for act in _told(gate, board)["acts"]] == acts
    board.heard("{}")
    assert _told(gate, board)["acts"] == []


def test_an_answer_older_than_what_happened_since_changes_nothing() -> None:
    board = Board()
    gate = Gate(("board-test",), lambda: 0.0, board, name="r", where="h")
    board.words()
    gate.close(Reason.TLS, "expired")
    board.heard("{}")
    assert gate.reason is Reason.TLS
    board.words()
    board.heard("{}")
    assert gate.reason is None


def test_two_reasons_hold_the_gate_until_both_are_gone() -> None:
    board = Board()
    gate = Gate(("board-test",), lambda: 0.0, board, name="r", where="h")
    gate.close(Reason.REFUSING, "550")
    gate.close(Reason.UNREACHABLE, "down")
    assert [one.reason for one in gate.pauses] == [Reason.UNREACHABLE, Reason.REFUSING]
    gate.reached()
    assert [one.reason for one in gate.pauses] == [Reason.REFUSING]
    assert gate.accepted(gate.proof)
    assert not gate.pauses
