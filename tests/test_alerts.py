"""People are told what is wrong: when it begins, while it lasts, when it is over; once each."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import redis
import redis.asyncio
import uvloop
from prometheus_client import CollectorRegistry, Gauge

from proxy import troubles as of_proxy
from proxy.alerts import Alerts, Command, Kind, Said, Trouble, View, open_alerts
from proxy.alerts.standing import QUIET_S, Alert, Phase, Standing, decide
from proxy.config import Settings, told_nobody
from proxy.config.model import Notify
from proxy.metrics import relaying
from proxy.metrics.depths import Depth
from proxy.queue import keys
from proxy.queue.connection import open_redis
from proxy.queue.holds import Hold
from proxy.queue.scripts import load
from proxy.queue.selection import Selection
from tests.support.far_end import FarEnd
from tests.support.listening import MESSAGE
from tests.support.mail_queue import put
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, settings_for
from tests.support.waiting import wait_for, wait_until
from tests.test_proxy_daemon import running
from worker import troubles as of_worker
from worker.daemon import Relay
from worker.pauses import Reason, pause

LATE = Trouble(Kind.ROUTE, "outbound", "mail of outbound does not leave", "Look at the token.")
DEAD = Trouble(Kind.DEAD_LETTERS, "outbound", "3 messages could not be sent")
REPEAT = 4 * 3600.0


class Story:
    """Looks, one after the other, and what was said at each."""

    def __init__(self, repeat: float = REPEAT) -> None:
        self.known: dict[str, Standing] = {}
        self.repeat = repeat

    def look(self, now: float, *troubles: Trouble, unseen: Kind | None = None) -> list[Phase]:
        self.known, alerts = decide(
            self.known,
            troubles,
            unseen=lambda kind, _: kind is unseen,
            now=now,
            repeat=self.repeat,
        )
        return [alert.phase for alert in alerts]


def test_a_trouble_is_told_once_then_each_repeat_then_that_it_is_over() -> None:
    story = Story()
    assert story.look(0, LATE) == [Phase.BEGINS]
    assert story.look(1, LATE) == []
    assert story.look(REPEAT - 1, LATE) == []
    assert story.look(REPEAT, LATE) == [Phase.LASTS]
    assert story.look(REPEAT + 1, LATE) == []
    assert story.look(2 * REPEAT, LATE) == [Phase.LASTS]
    assert story.look(2 * REPEAT + 1) == [Phase.OVER]
    assert story.look(2 * REPEAT + 2) == []


def test_what_comes_and_goes_is_not_told_each_time() -> None:
    story = Story()
    said = [
        phase
        for second in range(int(QUIET_S))
        for phase in story.look(second, *([LATE] if second % 2 else []))
    ]
    assert said == [Phase.BEGINS, Phase.OVER]
    assert story.look(QUIET_S + 5, LATE) == [Phase.BEGINS]


def test_what_is_over_for_long_is_told_anew_at_once() -> None:
    story = Story()
    story.look(0, LATE)
    story.look(1)
    assert story.look(QUIET_S + 1) == []
    assert not story.known
    assert story.look(QUIET_S + 2, LATE) == [Phase.BEGINS]


def test_nothing_is_over_because_nobody_could_look() -> None:
    story = Story()
    story.look(0, DEAD)
    assert story.look(1, unseen=Kind.DEAD_LETTERS) == []
    assert story.look(2, DEAD) == []
    assert story.look(3) == [Phase.OVER]


def test_two_troubles_have_each_their_own_story() -> None:
    story = Story()
    assert story.look(0, LATE) == [Phase.BEGINS]
    assert story.look(1, LATE, DEAD) == [Phase.BEGINS]
    assert story.look(2, DEAD) == [Phase.OVER]


def test_the_first_line_says_where_and_what() -> None:
    first = Alert(Phase.BEGINS, LATE, 0).text("mail1").splitlines()
    assert first[0] == "Franker on mail1: mail of outbound does not leave"
    assert first[-1] == "Look at the token."
    assert "This has lasted 4 hours." in Alert(Phase.LASTS, LATE, REPEAT).text("mail1")
    over = Alert(Phase.OVER, LATE, 150).text("mail1")
    assert (
        over == "Franker on mail1: over after 2 minutes; it was: mail of outbound does not leave\n"
    )


def test_a_pause_of_the_account_is_one_trouble_for_all_hosts_and_of_the_network_one_each() -> None:
    def subject(reason: Reason, host: str) -> str:
        return of_worker.paused(("a", "b"), pause(None, reason, "x", now=0, chance=0), host).subject

    assert subject(Reason.CREDENTIALS, "one") == subject(Reason.REFUSING, "two") == "a,b"
    assert subject(Reason.TLS, "one") == "a,b on one"
    assert of_worker.is_of("one", Kind.ROUTE, "a,b on one")
    assert not of_worker.is_of("two", Kind.ROUTE, "a,b on one")


def test_dead_letters_are_counted_for_each_stream_that_has_some() -> None:
    depths = [Depth("a", {"dead": 1}, 0.0), Depth("b", {"queued": 4}, 0.0)]
    [only] = of_proxy.dead_letters(depths)
    assert only.subject == "a"
    assert only.headline == "1 message of stream a could not be sent for good"


def test_of_the_journal_the_words_follow_what_is_wrong() -> None:
    away = of_proxy.journal("h", 1, "the mail store does not answer", refused=False)
    assert away.headline == (
        "the mail store does not answer: 1 message is in the journal on this host's disk"
    )
    assert "Mail is taken as always" in away.advice
    disk = "the mail store is full: the disk of data_dir has 50 MB free"
    full = of_proxy.journal("h", 3, disk, refused=True)
    assert full.headline == f"{disk}: 3 messages are in the journal on this host's disk"
    assert "New mail is refused for now" in full.advice
    assert "taken as always" not in full.advice
    none = of_proxy.journal("h", 0, "the mail store does not answer", refused=False)
    assert "0 messages" not in none.headline
    assert "on the way into the queue" in of_proxy.journal("h", 2, "", refused=False).headline


def test_mail_that_waits_for_a_stream_nobody_configured_is_told_and_dead_letters_are_not() -> None:
    depths = (
        Depth("outbound", {"queued": 3}, 1.0),
        Depth("gone", {"queued": 1, "held": 2, "dead": 4}, 1.0, unserved=True),
        Depth("dead", {"dead": 4}, 0.0, unserved=True),
    )
    [trouble] = of_proxy.unserved(depths)
    assert (trouble.kind, trouble.subject) == (Kind.UNSERVED, "gone")
    assert trouble.headline == "3 messages wait for stream gone, which is not configured"
    assert "[streams.gone]" in trouble.advice


def test_the_proxy_tells_of_mail_of_a_removed_stream_and_that_it_is_over(
    redis_server: RedisServer,
) -> None:
    heard, client = Heard(redis_server.data_dir), redis_server.client()
    put(client, stream="second")
    with running(redis_server.data_dir, notify={"command": heard.argv}) as proxy:
        wait_for(lambda: len(heard.lines) == 1, 60)
        assert "1 message waits for stream second, which is not configured" in heard.lines[0]
        shown = 'franker_queue_messages{state="queued",stream="second"} 1.0'
        assert shown in proxy.get("/metrics")
        assert 'franker_alerts{kind="unserved"} 1.0' in proxy.get("/metrics")
        client.delete(keys.queue_key("second"))
        wait_for(lambda: len(heard.lines) == 2, 60)
        assert "over after" in heard.lines[1]
        assert 'stream="second"' not in proxy.get("/metrics")


def test_a_hold_is_told_when_it_has_stood_for_long_and_a_restored_store_at_once() -> None:
    fresh = Hold("fresh", Selection(stream="a"), 900.0, "me@here", "why")
    old = Hold("old", Selection(rule="pay"), 700.0, "me@here", "wrong figures")
    restored = Hold("restored", Selection(before=800.0), 999.0)
    found = of_proxy.held([fresh, old, restored], now=1000.0, after=200.0)
    assert [each.subject for each in found] == ["old", "restored"]
    assert found[0].headline.startswith("all mail by rule pay, since 1970-01-01 00:11:40 UTC")
    assert "wrong figures" in found[0].headline
    assert found[1].headline == (
        "Redis was restored from a backup: all mail taken before 1970-01-01 00:13:20 UTC is held"
    )
    assert "franker queue release NAME" in found[1].advice
    assert (
        "New mail goes out as always, except what holds take that came back with the backup: fresh,"
        " mail of stream a; old, all mail by rule pay. "
    ) in found[1].advice
    [alone] = of_proxy.held([restored], now=1000.0, after=200.0)
    assert "New mail goes out as always. " in alone.advice


# -- the command ---------------------------------------------------------------------------------


def test_a_command_that_ends_closes_nothing_of_others() -> None:
    async def open_and_close() -> None:
        while True:
            opened = os.pipe()
            for _turn in range(3):
                await asyncio.sleep(0)
            for end in opened:
                os.close(end)  # an OSError: somebody else has closed it

    async def run() -> None:
        others = asyncio.create_task(open_and_close())
        for _time in range(3):
            assert (
                await Command(["sh", "-c", "echo no >&2; exit 3"]).run("") == "sh ended with 3: no"
            )
        assert not others.done()
        others.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_the_command_gets_the_text_on_its_standard_input(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    command = Command(["sh", "-c", 'cat > "$0"', str(heard)])
    assert await command.run("Grüße: all is lost\n") == ""
    assert heard.read_text() == "Grüße: all is lost\n"


async def test_a_command_that_reads_nothing_is_no_fault() -> None:
    assert await Command(["true"]).run("x" * 1_000_000) == ""


async def test_a_command_that_fails_is_quoted() -> None:
    fault = await Command(["sh", "-c", "echo no such room >&2; exit 3"]).run("")
    assert fault == "sh ended with 3: no such room"


async def test_a_command_that_is_not_there_is_said() -> None:
    assert "cannot be run" in await Command(["/nonexistent/pager"]).run("")


async def test_a_command_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    alive = tmp_path / "pid"
    command = Command(["sh", "-c", 'sleep 600 & echo $! > "$0"; wait', str(alive)], patience=2)
    assert await command.run("") == "sh did not end within 2 s"
    child = Path("/proc") / alive.read_text().strip() / "stat"
    await wait_until(lambda: not child.exists() or ") Z" in child.read_text())


async def test_what_a_command_leaves_to_finish_the_work_is_let_live(tmp_path: Path) -> None:
    done = tmp_path / "done"
    go = tmp_path / "go"
    script = f'while [ ! -e "{go}" ]; do sleep 0.05; done; touch "{done}"'
    assert await Command(["sh", "-c", f"({script}) & exit 0"]).run("") == ""
    go.touch()
    await wait_until(done.exists)


async def test_of_a_chatterers_words_only_the_beginning_is_kept() -> None:
    script = "import sys; sys.stderr.write('x' * 5_000_000); sys.exit(1)"
    assert len(await Command([sys.executable, "-c", script]).run("")) < 2000


# -- several processes ---------------------------------------------------------------------------


@pytest.fixture
def queue(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


class Heard:
    """A command that writes down what it hears, one line a word."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "heard"
        self.argv = ["sh", "-c", 'head -1 >> "$0"', str(self.path)]

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


Maker = Callable[..., Alerts]


@pytest.fixture
async def alerts(data_dir: Path) -> AsyncIterator[Maker]:
    """Make the alerts of one process, which see `view[0]` at the time `now[0]`."""
    made: list[tuple[Alerts, redis.asyncio.Redis]] = []

    def make(view: list[View], now: list[float], heard: Heard, repeat: float = REPEAT) -> Alerts:
        client = open_redis(Settings(), data_dir, timeout=0.5)
        one = Alerts(
            lambda _: view[0],
            Said(client),
            Notify(command=tuple(heard.argv), repeat=repeat),
            host="h",
            shown=Gauge("shown", "x", ("kind",), registry=CollectorRegistry()),
            mine=lambda _kind, _subject: True,
            clock=lambda: now[0],
        )
        made.append((one, client))
        return one

    yield make
    for one, client in made:
        await one.close()
        await client.aclose()


async def test_of_many_processes_that_see_a_trouble_one_says_it(
    queue: redis.Redis, data_dir: Path, alerts: Maker
) -> None:
    heard, view, now = Heard(data_dir), [View((LATE,))], [0.0]
    everybody = [alerts(view, now, heard) for _ in range(4)]
    for one in everybody:
        await one.look_once()
    view[0] = View(())
    for one in everybody:
        await one.look_once()
    await wait_until(lambda: len(heard.lines) >= 2)
    for one in everybody:
        await one.look_once()
    assert heard.lines == [
        "Franker on h: mail of outbound does not leave",
        "Franker on h: over after 0 s; it was: mail of outbound does not leave",
    ]


async def test_a_process_that_is_started_anew_says_nothing_twice_and_that_it_is_over(
    queue: redis.Redis, data_dir: Path, alerts: Maker
) -> None:
    heard, view, now = Heard(data_dir), [View((DEAD,))], [0.0]
    await alerts(view, now, heard).look_once()
    await wait_until(lambda: len(heard.lines) == 1)
    second = alerts(view, now, heard)
    await second.look_once()
    third = alerts([View(())], now, heard)
    await third.look_once()
    await wait_until(lambda: len(heard.lines) == 2)
    assert heard.lines[1].startswith("Franker on h: over after")
    assert not queue.exists(keys.ALERTS)


async def test_a_step_of_redis_clock_does_not_silence_an_alert(
    queue: redis.Redis, data_dir: Path, alerts: Maker
) -> None:
    heard, view, now = Heard(data_dir), [View((DEAD,))], [0.0]
    later = {"until": time.time() + 365 * 86400, "headline": "x"}
    queue.hset(keys.ALERTS, DEAD.key, json.dumps(later))
    await alerts(view, now, heard).look_once()
    await wait_until(lambda: len(heard.lines) == 1)


async def test_two_that_see_it_in_the_same_instant_say_it_once(queue: redis.Redis) -> None:
    script = load("said", "proxy.alerts")
    with queue.pipeline(transaction=True) as both:  # a transaction stands at one time
        for number in range(50):
            for _process in range(2):
                both.eval(script.text, 0, "say", f"route {number}", "it waits", "14256.0")
        answers = both.execute()
    assert answers[::2] == [b""] * 50
    assert b"" not in answers[1::2]


async def test_without_redis_people_are_told_all_the_same(data_dir: Path, alerts: Maker) -> None:
    heard, view, now = Heard(data_dir), [View((LATE,))], [0.0]
    one = alerts(view, now, heard, repeat=100.0)
    for second in (0.0, 50.0, 100.0):
        now[0] = second
        await one.look_once()
    await wait_until(lambda: len(heard.lines) == 2)


async def test_a_slow_command_delays_no_look(
    queue: redis.Redis, data_dir: Path, alerts: Maker
) -> None:
    heard, view, now = Heard(data_dir), [View((LATE,))], [0.0]
    heard.argv = ["sh", "-c", 'sleep 600; head -1 >> "$0"', str(heard.path)]
    one = alerts(view, now, heard)
    async with asyncio.timeout(20):
        await one.look_once()
        view[0] = View((LATE, DEAD))
        await one.look_once()
    assert queue.hlen(keys.ALERTS) == 2


# -- where it comes from -------------------------------------------------------------------------


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    async with FarEnd() as one:
        yield one


async def test_two_workers_with_a_wrong_token_are_one_alert_and_one_end(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    (data_dir / "token").write_text("11111111-2222-3333-4444-555555555555")
    heard = Heard(data_dir)
    settings = settings_for(far_end, data_dir, notify={"command": heard.argv})
    put(queue)

    async with relay_at_work(settings, data_dir) as first, relay_at_work(settings, data_dir) as two:

        def alerts(relay: Relay) -> AbstractAsyncContextManager[None]:
            return open_alerts(
                settings,
                data_dir,
                lambda _: relay.look("h"),
                shown=relaying.ALERTS,
                mine=lambda kind, _: kind is Kind.ROUTE,
            )

        async with alerts(first), alerts(two):
            await wait_until(lambda: heard.lines)
            assert "mail of outbound does not leave (credentials)" in heard.lines[0]
            (data_dir / "token").write_text(far_end.token)
            await wait_until(lambda: len(heard.lines) == 2)
    assert "over after" in heard.lines[1]
    assert len(heard.lines) == 2


def test_that_nobody_is_told_is_said_unless_somebody_is() -> None:
    def said(**notify: object) -> str:
        return told_nobody(Settings.model_validate({"notify": notify}))

    assert "nobody is told" in said()
    assert not said(command=["true"])
    assert not said(to="ops@example.com")


async def test_a_worker_that_was_started_anew_does_not_say_over_before_it_has_tried(
    queue: redis.Redis, far_end: FarEnd, data_dir: Path
) -> None:
    heard = Heard(data_dir)
    settings = settings_for(far_end, data_dir, notify={"command": heard.argv})
    queue.hset(keys.ALERTS, "route outbound", json.dumps({"until": 1.0, "headline": "it waits"}))
    far_end.fail("auth", do="delay", seconds=3.0, times=1)  # so long it has not tried

    async with (
        relay_at_work(settings, data_dir) as relay,
        open_alerts(
            settings,
            data_dir,
            lambda _: relay.look("h"),
            shown=relaying.ALERTS,
            mine=lambda kind, _: kind is Kind.ROUTE,
        ),
    ):
        await wait_until(lambda: relay.look("h").unseen(Kind.ROUTE, "outbound"))
        assert not heard.lines
        put(queue)
        await wait_until(lambda: heard.lines)
    [line] = heard.lines
    assert line.startswith(f"Franker on {socket.gethostname()}: over after ")


def test_the_proxy_tells_of_dead_letters_and_of_a_store_that_is_not_durable(
    redis_server: RedisServer,
) -> None:
    heard, client = Heard(redis_server.data_dir), redis_server.client()
    with running(redis_server.data_dir, notify={"command": heard.argv}) as proxy:
        client.config_set("appendfsync", "everysec")
        wait_for(lambda: len(heard.lines) == 1, 60)
        assert "no mail can be kept" in heard.lines[0]
        assert "appendfsync" in heard.lines[0]
        assert 'franker_alerts{kind="store"} 1.0' in proxy.get("/metrics")
        client.config_set("appendfsync", "always")
        wait_for(lambda: len(heard.lines) == 2, 60)
        assert "over after" in heard.lines[1]
        client.zadd(keys.failed_key("outbound"), {"01": 1.0})
        wait_for(lambda: len(heard.lines) == 3, 60)
        assert "1 message of stream outbound" in heard.lines[2]
        assert " alert kind=dead_letters subject=outbound phase=begins " in proxy.log
        assert "nobody is told" not in proxy.log


def test_the_proxy_tells_of_mail_in_the_journal_while_redis_is_away(
    redis_server: RedisServer,
) -> None:
    heard = Heard(redis_server.data_dir)
    with running(redis_server.data_dir, notify={"command": heard.argv}) as proxy:
        redis_server.kill()
        with proxy.client() as client:
            client.sendmail("app@example.com", ["you@example.net"], MESSAGE)
        wait_for(lambda: len(heard.lines) == 1, 60)
        assert "the mail store does not answer" in heard.lines[0]
        assert "the journal on this host's disk" in heard.lines[0]
        redis_server.start()
        wait_for(lambda: len(heard.lines) == 2, 60)
        assert "over after" in heard.lines[1]


def test_a_proxy_that_tells_nobody_says_so_at_its_start(redis_server: RedisServer) -> None:
    with running(redis_server.data_dir) as proxy:
        assert "nobody is told" in proxy.log
