"""Mail from the queue to the far end: what is sent, deferred, dead, and whose fault it was."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.queue.job import decode_envelope
from tests.support.far_end import FarEnd
from tests.support.mail_queue import (
    dead,
    envelope,
    job,
    put,
    queued,
    scheduled,
    started,
    unsettled,
)
from tests.support.redis_server import RedisServer
from tests.support.relaying import login_without_api, relay_at_work, sample, settings_for
from tests.support.waiting import wait_until
from worker import daemon, ledger, pauses
from worker.claims.scripts import REAP
from worker.smarthost.connection import Connection


@pytest.fixture(autouse=True)
def by_itself_a_refused_login_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every further one has another reason, however slow the machine is."""
    monkeypatch.setitem(pauses._PAUSES, pauses.Reason.CREDENTIALS, (600.0, 600.0))


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


def reply_to(queue: redis.Redis, job_id: str, address: str) -> str:
    return decode_envelope(job(queue, job_id)["envelope"]).replies[address]


def nothing_left(queue: redis.Redis, stream: str = "outbound") -> bool:
    return not unsettled(queue, stream)


async def test_a_message_is_sent_once_over_tls_and_leaves_nothing_behind(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    [message_id] = put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        [taken] = await far_end.until(1)
        await wait_until(lambda: not queue.exists(f"rq:job:{message_id}"))
    assert taken.recipients == ("you@example.net",)
    assert taken.tls.startswith("TLSv1")
    assert nothing_left(queue)


async def test_what_waits_leaves_with_a_workers_start_and_not_with_its_first_look_at_the_clock(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_TICK_S", 3600.0)
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await far_end.until(1)


async def test_a_thousand_messages_arrive_once_each(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    for number in range(1000):
        put(queue, mail=envelope(f"r{number}@example.net"))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await far_end.until(1000, timeout=60)
        await wait_until(lambda: nothing_left(queue))
    assert far_end.recipients() == sorted(f"r{number}@example.net" for number in range(1000))


async def test_the_next_message_is_handed_on_before_the_last_is_accounted_for(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    submit, step = Connection.submit, ledger.step

    def submitted(*arguments: Any) -> Any:
        events.append("submitted")
        return submit(*arguments)

    def accounted(*arguments: Any) -> None:
        events.append("accounted")
        step(*arguments)

    monkeypatch.setattr(Connection, "submit", submitted)
    monkeypatch.setattr(ledger, "step", accounted)
    for number in range(4):
        put(queue, mail=envelope(f"r{number}@example.net"))
    settings = settings_for(far_end, data_dir, postmark={"connections": 1})
    async with relay_at_work(settings, data_dir):
        await far_end.until(4)
        await wait_until(lambda: nothing_left(queue))
    assert events[:4] == ["submitted", "submitted", "submitted", "accounted"]
    assert sorted(events) == ["accounted"] * 4 + ["submitted"] * 4


async def test_120_recipients_go_as_50_and_50_and_20(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    everybody = [f"r{number}@example.net" for number in range(120)]
    put(queue, mail=envelope(*everybody))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        taken = await far_end.until(3)
        await wait_until(lambda: nothing_left(queue))
    assert [len(one.recipients) for one in taken] == [50, 50, 20]
    assert far_end.recipients() == sorted(everybody)


async def test_of_three_recipients_one_is_sent_one_deferred_one_dead(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("rcpt", "451 4.2.1 mailbox busy", address="later@*", times=1)
    far_end.fail("rcpt", "550 5.1.1 no such person", address="never@*")
    names = ("now@example.net", "later@example.net", "never@example.net")
    [message_id] = put(queue, mail=envelope(*names))
    settings = settings_for(far_end, data_dir, retry={"first": 0.2})
    async with relay_at_work(settings, data_dir):
        taken = await far_end.until(2)
        await wait_until(lambda: not queue.exists(f"rq:job:{message_id}"))
    assert [one.recipients for one in taken] == [("now@example.net",), ("later@example.net",)]
    assert dead(queue) == [f"{message_id}-1"]
    assert reply_to(queue, f"{message_id}-1", names[2]) == "550 5.1.1 no such person"


async def test_a_deferral_counts_one_attempt_and_keeps_the_words(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("dot", "451 4.3.0 not now")
    [message_id] = put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: scheduled(queue) == [message_id])
    kept = decode_envelope(job(queue, message_id)["envelope"])
    assert kept.attempts == 1
    assert 24 <= kept.waited <= 36
    assert kept.replies == {"you@example.net": "451 4.3.0 not now"}


async def test_mail_deferred_for_the_whole_horizon_dies_with_the_last_words(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("dot", "451 4.3.0 not now")
    put(queue)
    settings = settings_for(far_end, data_dir, retry={"first": 0.1, "cap": 0.1, "horizon": 0.25})
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: dead(queue))
    [letter] = dead(queue)
    assert reply_to(queue, letter, "you@example.net").endswith("451 4.3.0 not now")


@pytest.mark.parametrize("fault", ["refuse", "421", "drop"])
async def test_where_587_fails_mail_goes_by_2525_at_once(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, fault: str
) -> None:
    first, second, _ = far_end.ports
    how: dict[str, Any] = {
        "refuse": {"do": "refuse"},
        "421": {"reply": "421 4.3.2 closing"},
        "drop": {"do": "drop"},
    }[fault]
    far_end.fail("connect", port=first, **how)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        for count in (1, 2, 3):
            put(queue)
            await far_end.until(count)
        await wait_until(lambda: nothing_left(queue))
    assert {one.port for one in far_end.messages} == {second}
    assert sample("franker_endpoint_up", host="127.0.0.1", port=str(first)) == 0
    assert sample("franker_endpoint_up", host="127.0.0.1", port=str(second)) == 1


async def test_a_port_that_was_down_is_seen_to_work_again_without_mail_or_login(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.daemon.LOOK_AGAIN_S", 0.2)
    first = far_end.ports[0]
    fault = far_end.fail("connect", port=first, reply="421 4.3.2 closing")
    up = {"host": "127.0.0.1", "port": str(first)}
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await far_end.until(1)
        assert sample("franker_endpoint_up", **up) == 0
        far_end.mend(fault)
        await wait_until(lambda: sample("franker_endpoint_up", **up) == 1)
    assert len(far_end.messages) == 1
    assert {login.port for login in far_end.logins} == {far_end.ports[1]}


async def test_where_587_swallows_packets_only_the_first_message_waits(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    first, second, _ = far_end.ports
    far_end.fail("connect", do="blackhole", port=first)
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await far_end.until(1)
        put(queue)
        await far_end.until(2, timeout=8)  # less than connecting may take
        await wait_until(lambda: nothing_left(queue))
    assert {one.port for one in far_end.messages} == {second}


@pytest.mark.parametrize("flaw", ["expired", "name", "untrusted"])
async def test_an_unverified_certificate_pauses_the_route_before_any_login(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, flaw: str
) -> None:
    fault = far_end.fail("starttls", do="certificate", what=flaw)
    [message_id] = put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="tls") == 1
        )
        assert not far_end.logins
        assert not far_end.messages
        await wait_until(lambda: queued(queue) == [message_id])
        assert decode_envelope(job(queue, message_id)["envelope"]).attempts == 0
        far_end.mend(fault)
        await far_end.until(1)
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="tls") == 0
        )


async def test_without_starttls_nothing_is_sent(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    fault = far_end.fail("ehlo", do="hide", what="STARTTLS")
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="tls") == 1
        )
        assert not far_end.logins
        far_end.mend(fault)
        await far_end.until(1)


async def test_a_wrong_token_pauses_its_stream_only_and_is_mended_in_its_file(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    wrong = data_dir / "wrong"
    wrong.write_text("11111111-2222-3333-4444-555555555555")
    right = data_dir / "token"
    right.write_text(far_end.token)
    settings = settings_for(
        far_end,
        data_dir,
        streams={
            "outbound": {"token": {"file": str(right)}},
            "second": {"token": {"file": str(wrong)}, "id": "outbound"},
        },
    )
    put(queue, stream="second", mail=envelope("second@example.net"))
    async with relay_at_work(settings, data_dir):
        await wait_until(
            lambda: sample("franker_route_paused", stream="second", reason="credentials") == 1
        )
        put(queue, mail=envelope("first@example.net"))
        await far_end.until(1)
        assert far_end.recipients() == ["first@example.net"]
        assert sum(not login.accepted for login in far_end.logins) == 1
        wrong.write_text(far_end.token)
        await far_end.until(2)
    assert dead(queue, "second") == []


async def test_a_missing_token_is_told_before_the_first_mail(
    redis_server: RedisServer, far_end: FarEnd, data_dir: Path
) -> None:
    streams = {"tokenless": {"token": {"file": str(data_dir / "nowhere")}}}
    settings = settings_for(far_end, data_dir, streams=streams)
    async with relay_at_work(settings, data_dir) as relay:
        await wait_until(
            lambda: sample("franker_route_paused", stream="tokenless", reason="credentials") == 1
        )
        ready, why = relay.ready()
        assert not ready
        assert "tokenless: credentials" in why


async def test_a_wrong_certificate_is_told_before_the_first_mail(
    redis_server: RedisServer, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("starttls", do="certificate", what="expired")
    async with relay_at_work(settings_for(far_end, data_dir), data_dir) as relay:
        await wait_until(lambda: relay.ready() == (False, "outbound: tls"))


async def test_a_worker_whose_store_is_away_is_not_ready(
    redis_server: RedisServer, far_end: FarEnd, data_dir: Path
) -> None:
    async with relay_at_work(settings_for(far_end, data_dir), data_dir) as relay:
        await wait_until(lambda: relay.ready()[0])
        redis_server.kill()
        await wait_until(lambda: relay.ready() == (False, "the mail store does not answer"))
        redis_server.start()
        await wait_until(lambda: relay.ready()[0])


async def test_one_recipient_refused_for_policy_neither_stops_the_others_nor_stays_for_ever(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("rcpt", "550 5.7.1 recipient blocks you", address="bad@*")
    settings = settings_for(far_end, data_dir, retry={"first": 0.2, "cap": 0.2})
    async with relay_at_work(settings, data_dir):
        put(queue)
        await far_end.until(1)
        [bad] = put(queue, mail=envelope("bad@example.net"))
        put(queue, 10)
        await far_end.until(11, timeout=10)  # less than a pause takes

        def attempts() -> int:
            return decode_envelope(job(queue, bad)["envelope"]).attempts

        async def counted() -> bool:
            put(queue)
            return attempts() >= 1

        await wait_until(counted)
        assert sample("franker_route_paused", stream="outbound", reason="credentials") == 0


async def test_a_refused_credential_is_followed_by_the_next_of_the_list(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    old, new = data_dir / "old", data_dir / "new"
    old.write_text("11111111-2222-3333-4444-555555555555")
    new.write_text(far_end.token)
    streams = {"outbound": {"token": [{"file": str(old)}, {"file": str(new)}]}}
    put(queue, 20)
    async with relay_at_work(settings_for(far_end, data_dir, streams=streams), data_dir):
        await far_end.until(20)
    assert sum(not login.accepted for login in far_end.logins) == 1


async def test_a_missing_secret_keeps_mail_waiting_until_it_is_there(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    token = data_dir / "later"
    streams = {"outbound": {"token": {"file": str(token)}}}
    put(queue)
    async with relay_at_work(settings_for(far_end, data_dir, streams=streams), data_dir):
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="credentials") == 1
        )
        token.write_text(far_end.token)
        await far_end.until(1)


async def test_a_route_that_refuses_everything_kills_few_and_sends_the_rest_later(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    fault = far_end.fail("mail", "550 5.0.0 account suspended")
    put(queue, 40)
    settings = settings_for(far_end, data_dir, retry={"first": 0.5})
    async with relay_at_work(settings, data_dir) as relay:
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="refusing") == 1
        )
        await wait_until(lambda: not started(queue))
        assert len(dead(queue)) < 5
        far_end.mend(fault)
        for channel in relay.channels:
            channel.gate.probe_now()
        await far_end.until(40 - len(dead(queue)))
    assert len(dead(queue)) < 5


async def test_all_ports_down_holds_mail_without_counting_and_lets_it_go_after(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    fault = far_end.fail("connect", do="refuse")
    ids = put(queue, 10)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(
            lambda: sample("franker_route_paused", stream="outbound", reason="unreachable") == 1
        )
        await wait_until(lambda: queued(queue) == ids)
        assert all(decode_envelope(job(queue, each)["envelope"]).attempts == 0 for each in ids)
        far_end.mend(fault)
        await far_end.until(10)


async def test_a_lost_final_reply_is_sent_again_later_when_so_configured(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    put(queue)
    streams = login_without_api(data_dir)
    settings = settings_for(far_end, data_dir, streams=streams, retry={"first": 0.2})
    async with relay_at_work(settings, data_dir):
        await far_end.until(2)
        await wait_until(lambda: nothing_left(queue))
    assert far_end.recipients() == ["you@example.net"] * 2


async def test_a_lost_final_reply_is_held_as_a_dead_letter_when_so_configured(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("taken", do="drop", times=1)
    [message_id] = put(queue)
    streams = login_without_api(data_dir)
    postmark = {"unknown_outcome": "hold"}
    settings = settings_for(far_end, data_dir, streams=streams, postmark=postmark)
    async with relay_at_work(settings, data_dir):
        await wait_until(lambda: dead(queue))
    assert dead(queue) == [f"{message_id}-1"]
    assert "unknown" in reply_to(queue, f"{message_id}-1", "you@example.net")
    assert len(far_end.messages) == 1


async def test_a_message_that_always_breaks_the_connection_delays_nobody_else(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("data", do="drop", address="poison@*")
    [poison] = put(queue, mail=envelope("poison@example.net"))
    put(queue, 30)

    def attempts() -> int:
        return decode_envelope(job(queue, poison)["envelope"]).attempts

    # Its last octets went out before the connection broke: so it is asked for first.
    settings = settings_for(far_end, data_dir, postmark={"ask_for": 0.2})
    async with relay_at_work(settings, data_dir):
        await far_end.until(30)
        await wait_until(lambda: scheduled(queue) == [poison] and attempts() == 1)
    assert far_end.recipients() == ["you@example.net"] * 30


async def test_mail_past_its_expiry_dies_unsent(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    [message_id] = put(queue, mail=envelope(expires_at=1.0))
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await wait_until(lambda: dead(queue))
    assert dead(queue) == [f"{message_id}-1"]
    assert not far_end.messages


async def test_a_worker_that_stops_hands_a_transaction_without_reply_on_as_unknown(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.channel._STOP_S", 0.2)
    far_end.fail("taken", do="hang", times=1)
    [message_id] = put(queue)
    settings = settings_for(far_end, data_dir, streams=login_without_api(data_dir))
    async with relay_at_work(settings, data_dir):
        await far_end.until(1)
    assert queued(queue) == [message_id]
    assert job(queue, message_id)["dot"] == b'["you@example.net"]'


async def test_a_worker_that_stops_gives_back_what_it_has_not_begun(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("mail", do="delay", seconds=0.3)
    ids = put(queue, 60)
    async with relay_at_work(settings_for(far_end, data_dir), data_dir):
        await far_end.until(1)
    left = queued(queue)
    assert left == ids[len(ids) - len(left) :]
    assert len(left) + len(far_end.messages) == 60
    assert not started(queue)


async def test_a_message_that_comes_back_while_it_is_still_on_the_wire_is_settled(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    far_end.fail("mail", do="delay", seconds=5, times=1)
    put(queue)
    settings = settings_for(far_end, data_dir, streams=login_without_api(data_dir))
    async with relay_at_work(settings, data_dir) as relay:
        await wait_until(lambda: relay.channels[0]._in_flight)
        claims = relay._claims
        await claims._living.ask(REAP, claims.incarnation, "")  # it is taken for dead
        await wait_until(lambda: len(relay.channels[0]._in_flight) == 2)
        await wait_until(lambda: not relay.channels[0]._in_flight and nothing_left(queue))
    assert relay.channels[0].octets == 0
