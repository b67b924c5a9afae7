"""The proof harness: its account of a round finds what it must, and two short rounds pass.

The long form is `make crash ROUNDS=n`.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.account import Account, Happening, Told, make_account, read_log
from tests.crash.far_end import Record, Taking
from tests.crash.load import Message, make_message
from tests.crash.plan import Blow, Plan, make_plan
from tests.crash.site import Demands, Site
from tests.crash.stored import Job
from tests.crash.table import details, line, sums
from tests.support.redis_server import new_data_dir, remove_data_dir

KEPT = replace(make_message("s", 1), recipients=("a@x", "b@x"), fate="kept", id="i1", checksum=7)
SENT = Taking(10.0, "i1", ("a@x", "b@x"), 7)
AGAIN = Taking(15.0, "i1", ("b@x",), 7)
SAID = {("i1", "b@x"): [(10.1, "the connection was lost")]}
KILL = Happening(10.0, 10.1, "kill far_end")


def account(
    *taken: Taking,
    message: Message = KEPT,
    jobs: tuple[Job, ...] = (),
    told: Told | None = None,
    happenings: tuple[Happening, ...] = (),
) -> Account:
    return make_account([message], taken, jobs, told or Told(), happenings)


def test_a_message_that_arrived_once_is_accounted_for() -> None:
    one = account(SENT)
    assert (one.kept, one.sent, one.lost, one.duplicates, one.findings) == (2, 2, (), 0, ())


def test_a_recipient_that_is_nowhere_is_lost() -> None:
    assert account(replace(SENT, recipients=("a@x",))).lost == ("i1 b@x",)


@pytest.mark.parametrize(
    ("job", "end"),
    [
        (Job("i1-1", ("b@x",), ("dead",)), "dead"),
        (Job("i1", ("b@x",), ("deferred",)), "queued"),
        (Job("i1", ("b@x",), ("queued",)), "queued"),
        (Job("i1", ("b@x",), ("journal",)), "queued"),
    ],
)
def test_what_waits_or_is_dead_is_not_lost(job: Job, end: str) -> None:
    one = account(replace(SENT, recipients=("a@x",)), jobs=(job,))
    assert one.lost == ()
    assert getattr(one, end) == 1


def test_what_a_rule_discarded_is_not_lost() -> None:
    told = Told(discarded=frozenset({("i1", "a@x"), ("i1", "b@x")}))
    assert account(told=told).discarded == 2


@pytest.mark.parametrize("places", [(), ("queued", "started")])
def test_a_job_in_no_list_or_in_two_is_a_finding(places: tuple[str, ...]) -> None:
    found = account(SENT, jobs=(Job("i9", (), places),)).findings
    assert found == (f"job i9 stands in {len(places)} lists: {places}",)


def test_what_is_sent_and_still_waits_is_a_finding() -> None:
    found = account(SENT, jobs=(Job("i1", ("b@x",), ("queued",)),)).findings
    assert found == ("i1 b@x is sent and queued",)


def test_what_left_the_journal_but_stands_there_still_is_no_finding() -> None:
    one = account(SENT, jobs=(Job("i1", ("a@x", "b@x"), ("journal",)),))
    assert (one.sent, one.queued, one.findings) == (2, 0, ())


def test_what_came_twice_is_counted_by_recipient_and_named_by_transaction() -> None:
    one = account(SENT, AGAIN)
    assert one.duplicates == 1
    assert [repeat.recipients for repeat in one.unexplained] == [("b@x",)]


def test_a_reply_that_was_lost_explains_a_second_copy() -> None:
    told = Told(unknown=SAID)
    [repeat] = account(SENT, AGAIN, told=told, happenings=(KILL,)).repeats
    assert repeat.why == "the reply was lost (the connection was lost) after: kill far_end"


def test_the_programs_word_alone_explains_no_second_copy() -> None:
    assert account(SENT, AGAIN, told=Told(unknown=SAID)).unexplained


def test_a_disturbance_alone_explains_no_second_copy() -> None:
    assert account(SENT, AGAIN, happenings=(KILL,)).unexplained


def test_a_reply_that_came_is_forgotten_only_with_a_worker_or_redis() -> None:
    told = Told(unknown=SAID, sent={("i1", "b@x"): [10.2]})
    assert account(SENT, AGAIN, told=told, happenings=(KILL,)).unexplained
    worker = replace(KILL, what="kill worker1")
    assert not account(SENT, AGAIN, told=told, happenings=(KILL, worker)).unexplained


def test_a_third_copy_needs_a_reason_of_its_own() -> None:
    third = replace(AGAIN, at=40.0)
    told = Told(unknown=SAID)
    one = account(SENT, AGAIN, third, told=told, happenings=(KILL,))
    assert [repeat.again_at for repeat in one.unexplained] == [40.0]


@pytest.mark.parametrize("fate", ["refused", "cut"])
def test_what_no_client_was_promised_must_not_arrive(fate: str) -> None:
    message = replace(KEPT, fate=fate, id="", reply="451 4.3.0 the mail store does not answer")
    assert len(account(SENT, message=message).findings) == 2


def test_what_was_refused_as_not_confirmed_may_arrive() -> None:
    reply = "451 4.3.0 the mail store did not confirm in time; try again later"
    message = replace(KEPT, fate="refused", id="", reply=reply)
    assert account(SENT, message=message).findings == ()


def test_another_body_another_id_or_a_stranger_is_a_finding() -> None:
    assert "another body" in account(replace(SENT, checksum=8)).findings[0]
    assert "was told i1" in account(replace(SENT, id="i2")).findings[0]
    assert "nobody wrote to" in account(SENT, replace(SENT, recipients=("c@x",))).findings[0]


def test_a_log_torn_by_a_kill_is_read_up_to_there() -> None:
    said = '{"time":"2026-11-20T09:43:01.500Z","event":"unknown","id":"i1","stream":"o",'
    whole = f'{said}"to":["b@x"],"detail":"lost"}}'
    told = read_log([whole, "Traceback (most recent call last):", said])
    assert told.unknown == {("i1", "b@x"): [(1795167781.5, "lost")]}
    assert told.defects == ("Traceback (most recent call last):",)


def test_a_record_torn_by_a_kill_is_read_up_to_there(tmp_path: Path) -> None:
    record = Record(tmp_path)
    assert list(record.more()) == []
    file = tmp_path / "taken.jsonl"
    file.write_text('{"at": 1.0, "id": "i1", "to": ["a@x"], "checksum": 7}\n{"at": 2')
    assert list(record.more()) == [Taking(1.0, "i1", ("a@x",), 7)]
    assert list(record.more()) == []


def test_a_seed_gives_the_same_round_again() -> None:
    assert make_plan("s", 7) == make_plan("s", 7)
    assert make_plan("s", 7) != make_plan("s", 8)
    assert (
        make_message("s", 3).content.partition(b"\r\n\r\n")[2]
        == (make_message("s", 3).content.partition(b"\r\n\r\n")[2])
    )


def test_plans_reach_every_process_and_every_failure() -> None:
    plans = [make_plan("s", number) for number in range(300)]
    hit = {(blow.kind, blow.victim) for plan in plans for blow in plan.blows}
    for victim in ("proxy", "worker1", "worker2", "redis", "far_end"):
        assert {("kill", victim), ("stop", victim)} <= hit
    names = {victim for kind, victim in hit if kind == "network"}
    assert {"refused", "blackholed", "reset in DATA", "reset after the dot, taken"} <= names
    assert any(plan.small_disk for plan in plans)


def network(start: float, name: str, seconds: float, **fault: object) -> Blow:
    return Blow(start, "network", name, seconds, fault)


SHORT = (
    Plan(
        "short",
        1,
        1,
        small_disk=False,
        load_s=4.0,
        blows=(
            network(0.3, "reset after the dot", 3.5, at="taken", do="reset", skip=20, times=3),
            Blow(0.8, "stop", "redis", 1.0),
            Blow(1.3, "kill", "proxy", 0.2),
            Blow(2.6, "kill", "worker1", 0.2),
            Blow(3.2, "kill", "redis", 0.2),
        ),
    ),
    Plan(
        "short",
        2,
        2,
        small_disk=False,
        load_s=4.0,
        blows=(
            network(0.3, "reset in DATA", 2.0, at="content", do="reset", skip=20, times=5),
            network(0.8, "refused", 0.7, at="connect", do="refuse"),
            Blow(1.0, "kill", "worker2", 0.5),
            Blow(1.8, "kill", "far_end", 0.3),
            Blow(2.4, "term", "worker1", 0.1),
            Blow(3.0, "stop", "proxy", 0.5),
            Blow(3.3, "kill", "redis", 0.3),
        ),
    ),
)


@pytest.mark.parametrize(
    ("plan", "api"), [(SHORT[0], True), (SHORT[1], False)], ids=["one_worker", "two_workers"]
)
async def test_nothing_is_lost_in_a_round_of_kills_and_cuts(plan: Plan, api: bool) -> None:
    folder = new_data_dir()
    result = await Site(folder, plan, Demands(api=api, journal=True, rate=200.0)).run()
    report = "\n".join([line(result), *details(result), sums([result]), f"logs: {folder}"])
    assert result.faults == (), report
    one = result.account
    assert one.kept == one.sent + one.queued + one.dead + one.discarded, report
    assert one.kept_messages > 200, report
    remove_data_dir(folder)
