"""The proxy beside a drop folder where everybody may write: hostile users, killed processes."""

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.drop.letters import a_letter_to, leave
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.office import Office
from tests.support.sendmail import NOBODY, Sendmail, python_for_everybody
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not python_for_everybody(),
    reason="mail of several users needs root, and a Python that all of them can start",
)

_SEED = 20261120
_KILLS = 6


@pytest.fixture(scope="module")
def far_end() -> Iterator[BackgroundFarEnd]:
    with background_far_end() as there:
        yield there


@pytest.fixture
def host(far_end: BackgroundFarEnd, place: Path) -> Iterator[Office]:
    office = Office(place, far_end, {"drop": {"folder": str(place / "drop")}})
    yield office
    office.close()


def test_hostile_files_are_named_once_left_alone_and_keep_no_mail_waiting(
    host: Office, place: Path
) -> None:
    drop = place / "drop"
    (place / "secret").write_bytes(a_letter_to("leaked@example.net"))
    names = iter(f"{number:032x}" for number in range(100))
    (drop / next(names)).symlink_to(place / "secret")
    os.link(place / "secret", drop / next(names))
    os.mkfifo(drop / next(names))
    (drop / next(names)).mkdir()
    with (drop / next(names)).open("wb") as huge:
        huge.truncate(1 << 40)
    (drop / next(names)).write_bytes(b"rubbish\n" * 1000)
    (drop / "\x1b[31mred\n2026 forged").touch()
    hostile = {one.name for one in drop.iterdir()} - {".listening"}
    leave(drop, 1000, "among@example.net", NOBODY)
    host.the_one_for("among@example.net")
    leave(drop, 1001, "after@example.net")
    host.the_one_for("after@example.net")
    assert {one.name for one in drop.iterdir()} - {".listening"} == hostile
    assert (place / "secret").exists()
    assert host.taken_for("leaked@example.net") == []
    said = [line for line in host.program.log.splitlines() if "left alone" in line]
    assert len(said) == len(hostile)
    assert "\x1b" not in host.program.log
    assert not any(line.startswith("2026 forged") for line in host.program.log.splitlines())


def test_the_thousands_of_one_user_do_not_hold_up_another(host: Office, place: Path) -> None:
    drop = place / "drop"
    for number in range(1500):
        leave(drop, number, f"flood{number}@example.net", NOBODY)
    leave(drop, 5000, "patient@example.net")
    host.the_one_for("patient@example.net")
    wait_for(lambda: host.taken_for("flood1499@example.net"), 60, "the flood arrives, too")
    wait_for(lambda: len(list(drop.iterdir())) == 1, 30, "all letters are taken")


def test_what_is_no_letter_keeps_none_waiting_however_much_there_is(
    host: Office, place: Path
) -> None:
    drop = place / "drop"
    for number in range(150):
        path = leave(drop, number, "never@example.net", NOBODY)
        path.write_bytes(path.read_bytes()[:-1])
    leave(drop, 5000, "behind@example.net", NOBODY)
    host.the_one_for("behind@example.net")
    # Nor does it fill the log: so many lines a minute.
    assert host.program.log.count("left alone") < 100


def test_letters_are_taken_at_start_and_dated_when_they_were_handed_in(
    far_end: BackgroundFarEnd, place: Path
) -> None:
    drop = place / "drop"
    drop.mkdir()
    came = leave(drop, 1, "before@example.net", NOBODY).stat().st_ctime
    office = Office(place, far_end, {"drop": {"folder": str(drop)}})
    try:
        arrived = office.the_one_for("before@example.net")
        assert f"Date: {formatdate(int(came))[:-5]}".encode() in arrived.content
    finally:
        office.close()


def test_while_no_mail_can_be_kept_letters_stay(far_end: BackgroundFarEnd, place: Path) -> None:
    settings = {"drop": {"folder": str(place / "drop")}, "redis": {"max_memory": "20MB"}}
    office = Office(place, far_end, settings)
    path = str(office.installation.data_dir / "redis.sock")
    try:
        with contextlib.closing(redis.Redis(unix_socket_path=path)) as store:
            store.set("foreign", b"x" * 30_000_000)
            office.program.wait_for(" store_full ")
            letter = leave(place / "drop", 1, "stays@example.net")
            office.program.wait_for("452 4.3.1")
            assert letter.exists()
            store.delete("foreign")
            os.kill(office.pid_of("proxy"), signal.SIGHUP)
        office.the_one_for("stays@example.net")
        wait_for(lambda: not letter.exists(), what="the letter is taken")
    finally:
        office.close()


def _has(those: list[str], number: int) -> bool:
    return len(those) >= number


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mail_handed_in_by_many_while_the_proxy_is_killed_again_and_again_arrives_once_each(
    host: Office, place: Path
) -> None:
    program = Sendmail(place, place / "drop")
    chance = random.Random(_SEED)
    handed_in: list[str] = []
    ending = threading.Event()
    failed: list[object] = []

    def user(number: int) -> None:
        count = 0
        while not ending.is_set():
            count += 1
            to = f"u{number}-{count}@example.net"
            message = f"From: app@example.com\nTo: {to}\n\ntext\n".encode()
            done = program.run(to, stdin=message, user=NOBODY if number % 2 else None)
            if done.returncode:
                failed.append(done)
            else:
                handed_in.append(to)

    users = [threading.Thread(target=user, args=(number,)) for number in range(4)]
    for each in users:
        each.start()
    try:
        for _ in range(_KILLS):
            enough = len(handed_in) + chance.randrange(5, 13)
            wait_for(partial(_has, handed_in, enough), 60, "mail is handed in")
            os.kill(host.pid_of("proxy"), signal.SIGKILL)
    finally:
        ending.set()
        for each in users:
            each.join(60)
    assert failed == []
    wait_for(lambda: len(list((place / "drop").iterdir())) == 1, 60, "all letters are taken")
    wait_for(lambda: all(host.taken_for(to) for to in handed_in), 60, "everything arrived")
    assert [to for to in handed_in if len(host.taken_for(to)) != 1] == []
