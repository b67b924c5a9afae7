"""`franker check` against a real store and a far end that fails on demand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.queue import keys
from proxy.sandbox.account import TOKEN
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.mail_queue import put
from tests.support.processes import Installation
from tests.support.redis_server import RedisServer


@pytest.fixture
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture
def here(data_dir: Path, far_end: BackgroundFarEnd) -> Installation:
    """An installation whose private Redis runs in the folder that `redis_server` uses."""
    installation = Installation(data_dir, {"data_dir": data_dir, "postmark": far_end.postmark()})
    installation.environ["POSTMARK_SERVER_TOKEN"] = TOKEN
    return installation


def check(installation: Installation) -> tuple[int, list[dict[str, Any]]]:
    done = installation.run("check", "--json")
    assert "Traceback" not in done.stderr
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return done.returncode, findings


def states(findings: list[dict[str, Any]], what: str) -> list[str]:
    return [finding["state"] for finding in findings if finding["what"] == what]


def of(findings: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [finding for finding in findings if finding["what"] == what]


def test_when_all_is_well_every_port_is_ok_and_nothing_was_sent(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    code, findings = check(here)
    assert code == 0
    assert states(findings, "store") == ["ok"]
    assert states(findings, "stream outbound") == ["ok", "ok", "ok"]
    assert all(f["certificate_days"] > 1 for f in findings if f["what"] == "stream outbound")
    assert states(findings, "look-ups outbound") == ["ok"]
    assert len(far_end.logins) == 3
    assert far_end.messages == []


def test_without_redis_it_fails_and_says_what_starts_it(here: Installation) -> None:
    code, findings = check(here)
    assert code == 1
    (store,) = (finding for finding in findings if finding["what"] == "store")
    assert store["state"] == "failed"
    assert "`franker run` or `franker redis` starts it" in store["detail"]


def test_a_store_that_is_not_durable_fails_with_the_remedy(
    here: Installation, redis_server: RedisServer
) -> None:
    redis_server.client().config_set("appendfsync", "everysec")
    code, findings = check(here)
    (store,) = (finding for finding in findings if finding["what"] == "store")
    assert code == 1
    assert "CONFIG SET appendfsync always" in store["detail"]


def test_mail_of_a_stream_that_is_gone_fails_held_or_not_and_dead_letters_are_noted(
    here: Installation, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    client.sadd(keys.QUEUES, *map(keys.queue_key, ("aside", "buried", "elsewhere")))
    client.zadd(keys.held_key("aside"), {"01": 0.0, "02": 0.0})
    client.zadd(keys.failed_key("buried"), {"03-1": 1.0})
    client.rpush(keys.queue_key("elsewhere"), "04")
    client.sadd(keys.workers_key("elsewhere"), "rq:worker:there")
    code, findings = check(here)
    assert code == 1
    (aside,) = of(findings, "stream aside")
    assert aside["state"] == "failed"
    assert "2 messages wait (2 held), and no such stream is configured" in aside["detail"]
    (buried,) = of(findings, "stream buried")
    assert buried["state"] == "note"
    assert "1 dead letter is kept" in buried["detail"]
    assert states(findings, "stream elsewhere") == ["note"]


def test_what_is_held_is_noted_with_its_number_and_does_not_fail(
    here: Installation, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    put(client, 2)
    client.hset(keys.HOLDS, "mine", '{"stream": "outbound", "since": 0, "by": "me"}')
    code, findings = check(here)
    assert code == 0, findings
    [held] = of(findings, "hold mine")
    assert (held["state"], held["where"]) == ("note", "queue")
    assert held["detail"].startswith("mail of stream outbound, since 1970")
    assert held["detail"].endswith("by me; 2 messages")


def test_one_port_that_is_closed_is_noted_and_does_not_fail(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    far_end.fail("connect", do="refuse", port=far_end.ports[0])
    code, findings = check(here)
    assert code == 0
    assert states(findings, "stream outbound") == ["note", "ok", "ok"]
    assert "another port works" in of(findings, "stream outbound")[0]["detail"]


def test_that_nobody_hears_of_trouble_is_noted(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    code, findings = check(here)
    assert (code, states(findings, "alerts")) == (0, ["note"])
    assert "nobody is told" in of(findings, "alerts")[0]["detail"]


def test_an_alert_command_that_is_not_there_fails(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    sections = {"data_dir": here.folder, "postmark": far_end.postmark()}
    here.configure({**sections, "notify": {"command": ["/nonexistent/pager"]}})
    code, findings = check(here)
    assert (code, states(findings, "alerts")) == (1, ["failed"])
    here.configure({**sections, "notify": {"command": ["true"]}})
    code, findings = check(here)
    assert (code, states(findings, "alerts")) == (0, ["ok"])


def test_a_route_that_the_workers_hold_paused_fails_unless_it_is_another_hosts(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    record = {
        "streams": ["outbound"],
        "reason": "refusing",
        "detail": "550 suspended",
        "host": "127.0.0.1",
        "where": "",
        "since": 1.0,
        "probe_at": 2.0,
        "prober": "",
    }
    client.hset(keys.ROUTES, "r", json.dumps(record))
    code, findings = check(here)
    assert (code, states(findings, "route outbound")) == (1, ["failed"])
    assert "550 suspended" in of(findings, "route outbound")[0]["detail"]
    listed = here.run("queue", "list").stdout
    assert listed.startswith("outbound: paused (refusing): 550 suspended; for ")
    assert "its mail waits" in listed
    client.hset(keys.ROUTES, "r", json.dumps({**record, "where": "elsewhere"}))
    code, findings = check(here)
    assert (code, states(findings, "route outbound")) == (0, ["note"])


def test_all_ports_closed_fails(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    far_end.fail("connect", do="refuse")
    code, findings = check(here)
    assert code == 1
    assert states(findings, "stream outbound") == ["failed"] * 3
    last = of(findings, "stream outbound")[-1]
    assert "POSTMARK_SERVER_TOKEN" not in last["detail"]  # not the login's fault


def test_a_missing_token_fails_by_its_name_and_the_ports_are_looked_at_all_the_same(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    del here.environ["POSTMARK_SERVER_TOKEN"]
    code, findings = check(here)
    assert code == 1
    assert states(findings, "stream outbound") == ["ok", "ok", "ok", "failed"]
    assert "env POSTMARK_SERVER_TOKEN is not set" in of(findings, "stream outbound")[-1]["detail"]
    assert far_end.logins == []


def test_a_refused_token_fails_and_is_not_shown(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    here.environ["POSTMARK_SERVER_TOKEN"] = "wr0ng-t0ken"
    done = here.run("check")
    assert done.returncode == 1
    assert "env POSTMARK_SERVER_TOKEN: AUTH: 535" in done.stdout
    assert "wr0ng-t0ken" not in done.stdout + done.stderr


def test_a_certificate_of_a_stranger_fails_before_any_login(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    here.configure({"data_dir": here.folder, "postmark": {**far_end.postmark(), "ca_file": ""}})
    code, findings = check(here)
    assert code == 1
    assert states(findings, "stream outbound") == ["failed"] * 3
    assert "certificate" in of(findings, "stream outbound")[-1]["detail"]
    assert far_end.logins == []


def test_a_second_token_that_is_accepted_is_enough_and_the_first_is_noted(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    tokens = [{"env": "OLD_TOKEN"}, {"env": "POSTMARK_SERVER_TOKEN"}]
    here.environ["OLD_TOKEN"] = "revoked"
    here.configure(
        {
            "data_dir": here.folder,
            "postmark": far_end.postmark(),
            "streams": {"outbound": {"token": tokens}},
        }
    )
    code, findings = check(here)
    assert code == 0
    assert states(findings, "stream outbound") == ["note"] * 3
    assert (
        "login by env POSTMARK_SERVER_TOKEN accepted"
        in of(findings, "stream outbound")[-1]["detail"]
    )
    assert "env OLD_TOKEN: AUTH: 535" in of(findings, "stream outbound")[-1]["detail"]


def test_what_is_said_at_start_is_said_here_too(
    here: Installation, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    here.configure(
        {
            "data_dir": here.folder,
            "postmark": far_end.postmark(),
            "listen": {"allow": ["127.0.0.0/8", "10.0.0.0/8"]},
        }
    )
    code, findings = check(here)
    assert code == 0
    assert any("10.0.0.0/8" in f["detail"] for f in findings if f["what"] == "configuration")


@pytest.mark.parametrize(
    ("stream", "state", "words"),
    [
        ({"api_token": {"env": "WRONG"}}, "failed", "env WRONG: "),
        ({"api_token": {"env": "NONE"}}, "failed", "env NONE is not set"),
        (
            {"access_key": {"env": "WRONG"}, "secret_key": {"env": "WRONG"}},
            "note",
            'unknown_outcome = "resend"',
        ),
    ],
)
def test_whether_postmark_can_be_asked_after_a_lost_reply_is_said(
    here: Installation,
    far_end: BackgroundFarEnd,
    redis_server: RedisServer,
    stream: dict[str, Any],
    state: str,
    words: str,
) -> None:
    here.environ["WRONG"] = "wr0ng-t0ken"
    if "access_key" not in stream:
        stream = {"token": {"env": "POSTMARK_SERVER_TOKEN"}, **stream}
    sections = {"postmark": far_end.postmark(), "streams": {"outbound": stream}}
    here.configure({"data_dir": here.folder, **sections})
    code, findings = check(here)
    [finding] = of(findings, "look-ups outbound")
    assert finding["state"] == state
    assert words in finding["detail"]
    assert "wr0ng" not in str(findings)
    assert code == 1


def test_a_full_store_fails_with_its_limit_its_use_and_the_key(
    data_dir: Path, far_end: BackgroundFarEnd, redis_server: RedisServer
) -> None:
    redis_server.client().set("franker:ballast", b"." * 2_000_000)
    tables = {"data_dir": data_dir, "postmark": far_end.postmark()}
    full = Installation(data_dir, {**tables, "redis": {"max_memory": "2MB"}})
    code, findings = check(full)
    assert code == 1
    (store,) = (finding for finding in findings if finding["what"] == "store")
    assert store["state"] == "failed"
    detail = r"full, no mail is taken: 2\.\d of 2\.0 MB are used \(redis\.max_memory\)"
    assert re.fullmatch(detail, store["detail"])


def test_a_store_that_hangs_is_told_from_one_that_is_not_there(
    here: Installation, redis_server: RedisServer
) -> None:
    redis_server.pause()
    try:
        code, findings = check(here)
        listed = here.run("queue", "list")
    finally:
        redis_server.resume()
    (store,) = (finding for finding in findings if finding["what"] == "store")
    assert code == listed.returncode == 1
    for words in (store["detail"], listed.stderr):
        assert "nothing came within 5 s; its process is there and must be looked at" in words
        assert "starts it" not in words
