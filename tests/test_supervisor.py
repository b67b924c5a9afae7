"""The parent of `franker run`, with small programs for parts."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.run_file import RunFile
from proxy.supervisor import (
    REDIS_LINE,
    REDIS_ROUTINE,
    Supervisor,
    describe_end,
    restart_delay,
)
from proxy.welcome import curl_line, welcome
from tests.support.processes import ROOT, clean_environ
from tests.support.waiting import wait_for

# A part that says it is ready, writes down its start and its end, and ends with the code asked for.
PART = """
import os, signal, socket, sys, time
name, diary, behaviour = sys.argv[1:4]
def note(text):
    with open(diary, "a") as file:
        file.write(f"{text} {name} {os.getpid()}\\n")
def end(number, frame):
    note("end")
    os._exit(0)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def again(number, frame):
    note("again")
    channel.sendto(b"RELOADING=1\\nMONOTONIC_USEC=1", os.environ["NOTIFY_SOCKET"])
    channel.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else end)
if name in ("proxy", "worker"):
    signal.signal(signal.SIGHUP, again)
note("start")
if behaviour == "late":
    while not os.path.exists(diary + ".go"):
        time.sleep(0.01)
if behaviour.startswith("exit"):
    while "start redis" not in open(diary).read():
        time.sleep(0.01)
    sys.exit(int(behaviour[4:]))
if behaviour == "fall" and open(diary).read().count(f"start {name}") < 3:
    os.kill(os.getpid(), signal.SIGKILL)
ready = b"READY=1\\nX_SMTP=127.0.0.1:2599\\nX_HTTP=127.0.0.1:9599"
channel.sendto(ready, os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
"""

PARENT = """
import sys, json, pathlib
import proxy.supervisor as s
folder = pathlib.Path(sys.argv[1])
parts = []
behaviours = json.loads(sys.argv[2])
if "deaf" in behaviours.values():  # nobody else needs to be killed, however slow the machine is
    s._GRACE_S = 2
for name, behaviour in behaviours.items():
    part = s._part(name, str(folder))
    part.argv = [sys.executable, str(folder / "part.py"), name, str(folder / "diary"), behaviour]
    parts.append(part)
sys.exit(s.Supervisor(parts, s.RunFile(folder / "run.json"), json_log=False).run())
"""

AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Parent:
    def __init__(self, folder: Path, parts: dict[str, str], passed: int | None = None) -> None:
        (folder / "part.py").write_text(PART)
        self.parts = set(parts)
        self.diary = folder / "diary"
        self.diary.touch()
        self.output = folder / "output"
        command = [sys.executable, "-c", PARENT, str(folder), json.dumps(parts)]
        if passed is not None:
            command = [sys.executable, "-c", AS_SYSTEMD, str(passed), *command]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=clean_environ(),
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[] if passed is None else [passed],
            )

    def lines(self, word: str) -> list[str]:
        """The names in the diary's lines about `word`, in order."""
        found = (line.split() for line in self.diary.read_text().splitlines())
        return [words[1] for words in found if words[0] == word]

    def pid(self, name: str) -> int:
        found = [line.split() for line in self.diary.read_text().splitlines()]
        return int([words[2] for words in found if words[:2] == ["start", name]][-1])

    def wait_ready(self) -> None:
        wait_for(lambda: "Franker is ready" in self.output.read_text(), what="ready")
        wait_for(lambda: set(self.lines("start")) == self.parts, what="all started")


@pytest.fixture
def parent(data_dir: Path) -> Iterator[Callable[..., Parent]]:
    started: list[Parent] = []

    def start(passed: int | None = None, **parts: str) -> Parent:
        started.append(Parent(data_dir, parts, passed))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait(30)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def test_redis_ends_last_and_the_stand_in_after_those_that_talk_to_it(
    parent: Callable[..., Parent],
) -> None:
    running = parent(redis="stay", sandbox="stay", proxy="stay", worker="stay")
    running.wait_ready()
    running.process.terminate()
    assert running.process.wait(30) == 0
    ends = running.lines("end")
    assert set(ends[:2]) == {"proxy", "worker"}
    assert ends[2:] == ["sandbox", "redis"]


def test_ctrl_c_is_an_orderly_end(parent: Callable[..., Parent]) -> None:
    running = parent(redis="stay", proxy="stay")
    running.wait_ready()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == 0
    assert running.lines("end") == ["proxy", "redis"]


def test_a_part_that_falls_is_started_again_and_the_others_stay(
    parent: Callable[..., Parent],
) -> None:
    running = parent(redis="stay", worker="fall")
    running.wait_ready()
    assert running.lines("start").count("worker") == 3
    assert running.lines("start").count("redis") == 1
    assert 'part_ended part=worker end="signal SIGKILL" then="restart in 0.1 s"' in (
        running.output.read_text()
    )


def test_wrong_configuration_stops_everything_with_its_own_exit_code(
    parent: Callable[..., Parent],
) -> None:
    running = parent(redis="stay", proxy="exit78")
    assert running.process.wait(30) == 78
    assert running.lines("start").count("proxy") == 1
    assert running.lines("end") == ["redis"]


def test_a_part_that_never_gets_ready_ends_the_whole_with_a_failure(
    parent: Callable[..., Parent],
) -> None:
    running = parent(redis="stay", proxy="exit1")
    assert running.process.wait(60) == 1
    assert running.lines("start").count("proxy") == 6
    assert "it never got ready" in running.output.read_text()


def test_a_part_that_ignores_its_end_is_killed(parent: Callable[..., Parent]) -> None:
    running = parent(redis="stay", worker="deaf")
    running.wait_ready()
    deaf = running.pid("worker")
    running.process.terminate()
    assert running.process.wait(30) == 0
    assert gone(deaf)
    assert running.lines("end") == ["redis"]


def test_no_part_outlives_a_killed_parent(parent: Callable[..., Parent]) -> None:
    running = parent(redis="stay", worker="stay")
    running.wait_ready()
    running.process.kill()
    running.process.wait(30)
    wait_for(lambda: set(running.lines("end")) == {"redis", "worker"}, what="both ended")


def test_it_goes_on_when_nobody_reads_what_it_says(data_dir: Path) -> None:
    (data_dir / "part.py").write_text(PART)
    (data_dir / "diary").touch()
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", PARENT, str(data_dir), json.dumps({"proxy": "fall"})]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environ(), stdout=write_end, stderr=write_end
    ) as running:
        os.close(write_end)
        wait_for(lambda: (data_dir / "diary").read_text().count("start proxy") == 3, what="third")
        wait_for(lambda: "127.0.0.1:2599" in (data_dir / "run.json").read_text(), what="ready")
        assert running.poll() is None
        running.terminate()
        assert running.wait(30) == 0


def test_a_second_one_on_the_same_folder_is_refused(
    parent: Callable[..., Parent], data_dir: Path
) -> None:
    running = parent(redis="stay")
    running.wait_ready()
    second = subprocess.run(
        [sys.executable, "-m", "proxy.supervisor", "--run-file", data_dir / "run.json", "redis"],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "already running" in second.stderr


def test_delays_between_starts_double_up_to_fifteen_seconds() -> None:
    assert [restart_delay(n) for n in (1, 2, 3, 8, 9, 50)] == [0.1, 0.2, 0.4, 12.8, 15.0, 15.0]


def test_an_end_is_told_in_words() -> None:
    assert describe_end(signal.SIGKILL) == "signal SIGKILL"
    assert describe_end(78 << 8) == "exit code 78"


def test_the_welcome_says_when_mail_cannot_leave_for_want_of_a_token() -> None:
    facts = {"SMTP": "127.0.0.1:25", "NO_LOGIN": "POSTMARK_SERVER_TOKEN"}
    text = welcome({"proxy": facts})
    assert "No token: POSTMARK_SERVER_TOKEN is not set; mail is kept and waits." in text
    assert "It goes to Postmark" not in text


def test_a_line_of_redis_that_comes_in_pieces_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parent = Supervisor([], RunFile(tmp_path / "run.json"), json_log=True)
    read_end, write_end = os.pipe()
    parent._wake.register(read_end, selectors.EVENT_READ)
    pieces = ("12", ":signal-handler (", "1795179600", ") ", "Something is wrong", "\n")
    for piece in pieces:
        os.write(write_end, piece.encode())
        parent._hear_redis(read_end)
    os.write(write_end, b"no end")
    os.close(write_end)
    parent._hear_redis(read_end)
    parent._hear_redis(read_end)
    first, last = capfd.readouterr().err.splitlines()
    assert json.loads(first)["text"] == "Something is wrong"
    assert last == "no end"


def test_the_welcome_says_where_to_send_and_where_it_goes() -> None:
    with_token = welcome({"proxy": {"SMTP": "127.0.0.1:25 [::1]:25"}, "worker": {}})
    assert "Send mail to 127.0.0.1:25 or [::1]:25" in with_token
    assert "It goes to Postmark." in with_token
    assert curl_line("127.0.0.1:25") in with_token
    without = welcome({"proxy": {"SMTP": "127.0.0.1:2525"}, "sandbox": {"HTTP": "127.0.0.1:9589"}})
    assert "stand-in for Postmark" in without
    assert "http://127.0.0.1:9589/" in without


def test_sockets_that_systemd_passed_reach_the_proxy_and_no_other_part(
    parent: Callable[..., Parent], data_dir: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        running = parent(redis="stay", proxy="stay", worker="stay", passed=passed.fileno())
        running.wait_ready()

        def sockets(name: str) -> str:
            try:
                return str(Path(f"/proc/{running.pid(name)}/fd/3").readlink())
            except FileNotFoundError:
                return ""

        mine = str(Path(f"/proc/self/fd/{passed.fileno()}").readlink())
        assert sockets("proxy") == mine
        assert sockets("redis") != mine
        assert sockets("worker") != mine
        environ = Path(f"/proc/{running.pid('proxy')}/environ").read_text().split("\0")
        assert f"LISTEN_PID={running.pid('proxy')}" in environ
        assert "LISTEN_FDS=1" in environ
        others = Path(f"/proc/{running.pid('worker')}/environ").read_text()
        assert "LISTEN_" not in others


def test_what_redis_says_is_logged_in_the_form_of_all_lines() -> None:
    said = (
        "7:C 20 Nov 2026 10:14:11.541 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo",
        "7:M 20 Nov 2026 10:14:11.545 # Bad file format reading the append only file",
        "7:signal-handler (1795169662) Received SIGTERM scheduling shutdown...",
    )
    texts = [match[1] for line in said if (match := REDIS_LINE.fullmatch(line))]
    assert len(texts) == 3
    told = [text for text in texts if not REDIS_ROUTINE.search(text)]
    assert told == ["Bad file format reading the append only file"]


def test_it_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import sys; before = set(sys.modules); import proxy.supervisor;"
        "print(*set(sys.modules) - before)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    top = {name.partition(".")[0] for name in loaded}
    foreign = {n for n in top if n not in sys.stdlib_module_names and not n.startswith("_")}
    assert foreign == {"proxy"}
