"""`franker queue hold|holds|release|flush` as an operator gives them, with everything at work."""

import json
from collections.abc import Iterator

import pytest
import redis

from proxy.queue.connection import SOCKET_NAME
from tests.support.clients import new_recipient
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.mail_queue import put
from tests.support.office import Office
from tests.support.processes import http_get
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_for
from tests.test_cli_queue import SENDER, entry_for, hand_in


@pytest.fixture(scope="module")
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture(scope="module")
def desk(far_end: BackgroundFarEnd) -> Iterator[Office]:
    folder = new_data_dir()
    rules = [{"name": "payroll", "recipient": ["wages*"], "tag": "p"}]
    # What was deferred does not go by itself before a command of these tests is done.
    office = Office(folder, far_end, {"rules": rules, "retry": {"first": "10m"}})
    yield office
    office.close()
    remove_data_dir(folder)


def store_of(desk: Office) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(desk.installation.data_dir / SOCKET_NAME))


def say(desk: Office, *words: str, code: int = 0) -> str:
    done = desk.installation.run("queue", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_held_mail_waits_is_shown_and_goes_when_it_is_released(desk: Office) -> None:
    said = say(desk, "hold", "--sender", "APP@*", "--reason", "wrong figures", "--name", "figures")
    assert said == (
        "figures: all mail from APP@* is held: 0 messages.\n"
        "What comes later waits, too, until `franker queue release figures`.\n"
    )
    to = new_recipient()
    message_id = hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "list", "--state", "held"), what="held")
    assert "held by figures: all mail from app@*, since 2" in say(desk, "list")
    assert ": wrong figures; 1 message\n" in say(desk, "holds")
    assert "held by figures" in say(desk, "show", message_id)
    assert say(desk, "hold", "--sender", "app@*").startswith("figures: all mail from app@* is held")
    wait_for(
        lambda: (
            'queue_messages{state="held",stream="outbound"} 1.0'
            in http_get(f"127.0.0.1:{desk.installation.http_port}", "/metrics")[1]
        ),
        what="counted",
    )
    refused = desk.installation.run("queue", "retry", message_id)
    assert refused.returncode == 1
    assert "it is held; `franker queue release` lets it go" in refused.stderr
    assert desk.taken_for(to) == []
    assert "Released from figures: 1 message put back, before all others.\n" in say(
        desk, "release", "figures"
    )
    wait_for(lambda: desk.taken_for(to), what="sent")
    assert say(desk, "holds") == "Nothing is held.\n"
    assert say(desk, "release", "--all") == "Nothing of that is held.\n"


def test_a_rules_mail_is_held_while_other_mail_goes_and_programs_can_read_it(
    desk: Office,
) -> None:
    made = json.loads(say(desk, "hold", "--rule", "payroll", "--json"))
    assert (made["name"], made["rule"], made["held"], made["not_heard"]) == (
        "hold1",
        "payroll",
        0,
        [],
    )
    held, free = f"wages{new_recipient()}", new_recipient()
    hand_in(desk, held)
    hand_in(desk, free)
    wait_for(lambda: desk.taken_for(free), what="other mail goes")
    entry = entry_for(desk, held, "list", "--state", "held")
    assert entry is not None
    assert entry["hold"] == "hold1"
    [listed] = json.loads(say(desk, "holds", "--json"))
    assert (listed["name"], listed["held"], listed["released"]) == ("hold1", 1, [])
    assert json.loads(say(desk, "release", "--sender", SENDER, "--json")) == {
        "holds": ["hold1"],
        "messages": 1,
        "queued": 0,
        "still_held_by": [],
    }
    wait_for(lambda: desk.taken_for(held), what="sent")
    assert f", except mail from {SENDER}" in say(desk, "holds")
    say(desk, "release", "--rule", "payroll")
    assert say(desk, "holds") == "Nothing is held.\n"


def test_deferred_mail_is_sent_now(desk: Office, far_end: BackgroundFarEnd) -> None:
    to = new_recipient()
    far_end.fail("rcpt", "450 4.2.1 Mailbox busy", address=to, times=1)
    hand_in(desk, to)
    wait_for(lambda: entry_for(desk, to, "list", "--state", "deferred"), what="deferred")
    assert say(desk, "flush", "--older-than", "1h") == "0 messages due now\n"
    assert say(desk, "flush", "--stream", "outbound") == "1 message due now\n"
    wait_for(lambda: desk.taken_for(to), what="sent")


@pytest.mark.parametrize("command", ["hold", "release", "flush"])
def test_which_mail_must_be_said(desk: Office, command: str) -> None:
    for words in ((), ("--all", "--stream", "outbound")):
        said = say(desk, command, *words, code=2)
        assert "--stream, --sender, --rule, --older-than, or --all alone" in said


def test_a_slip_of_the_pen_holds_nothing_silently(desk: Office) -> None:
    assert "there is no stream 'outbuond'" in say(desk, "hold", "--stream", "outbuond", code=1)
    assert "there is no rule 'pay'; there are payroll" in say(desk, "hold", "--rule", "pay", code=1)
    assert "there is no hold 'hold9'" in say(desk, "release", "hold9", code=1)
    assert "a time is text like" in say(desk, "hold", "--older-than", "soon", code=2)
    assert '--sender is empty; the null sender is written "<>"' in say(
        desk, "hold", "--sender", "", code=2
    )


@pytest.mark.parametrize(
    "words",
    [
        ("hold", "--stream", "outbuond"),
        ("release", "--stream", "outbuond"),
        ("flush", "--stream", "outbuond"),
        ("list", "--stream", "outbuond"),
        ("dead", "--stream", "outbuond"),
        ("delete", "--held", "--yes", "--stream", "outbuond"),
        ("retry", "--dead", "--stream", "outbuond"),
    ],
)
def test_every_command_refuses_a_stream_that_is_nowhere(
    desk: Office, words: tuple[str, ...]
) -> None:
    assert "there is no stream 'outbuond'; there are outbound" in say(desk, *words, code=1)


def test_a_stream_that_is_not_configured_and_has_mail_is_known_to_every_command(
    desk: Office,
) -> None:
    [message_id] = put(store_of(desk), stream="gone")
    say(desk, "hold", "--stream", "gone", "--name", "left")
    assert "1 message" in say(desk, "list", "--stream", "gone")
    say(desk, "flush", "--stream", "gone")
    assert "1 message that waited in the queue all the while goes on." in say(
        desk, "release", "--stream", "gone"
    )
    say(desk, "delete", "--dead", "--yes", "--stream", "gone")
    say(desk, "delete", message_id)


def test_a_hold_by_age_does_not_speak_of_what_comes_later(desk: Office) -> None:
    said = say(desk, "hold", "--older-than", "2h", "--name", "batch")
    assert said.endswith("\nIt waits until `franker queue release batch`.\n")
    say(desk, "release", "batch")


def test_each_hold_counts_what_it_takes_and_the_list_says_when_it_is_cut(desk: Office) -> None:
    say(desk, "hold", "--sender", "app@*", "--name", "one")
    say(desk, "hold", "--rule", "payroll", "--name", "two")
    recipients = [f"wages{new_recipient()}" for _ in range(2)]
    for to in recipients:
        hand_in(desk, to)
    wait_for(lambda: entry_for(desk, recipients[-1], "list", "--state", "held"), what="held")
    assert [each["held"] for each in json.loads(say(desk, "holds", "--json"))] == [2, 2]
    assert json.loads(say(desk, "hold", "--rule", "payroll", "--json"))["held"] == 2
    done = desk.installation.run("queue", "list", "--state", "held", "--most", "1")
    assert "\n1 message, " in done.stdout
    assert "there are more than 1 of a kind" in done.stderr
    assert "Some of it is still held, by two.\n" in say(desk, "release", "one")
    wait_for(
        lambda: (
            "held by=hand hold=one" in desk.program.log
            and "released by=hand hold=one" in desk.program.log
        ),
        what="logged",
    )
    say(desk, "release", "--all")
    wait_for(lambda: all(desk.taken_for(to) for to in recipients), what="sent")
