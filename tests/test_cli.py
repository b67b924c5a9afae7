"""The command line: help, exit codes, speed of start, what it says when something is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from proxy.cli import main
from proxy.cli.entries import duration_text, size_text
from proxy.cli.options import printable
from tests.support.processes import ROOT, Installation, clean_environ, franker_command, run_franker
from tests.support.redis_server import RedisServer


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
        found.append((*path, name))
    return found


COMMANDS = commands(main)


@pytest.mark.parametrize("path", COMMANDS, ids=[" ".join(path) for path in COMMANDS])
def test_help_shows_an_example(path: tuple[str, ...]) -> None:
    done = run_franker(*path, "--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout
    assert f"franker {' '.join(path)}".rstrip() in done.stdout
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    if not isinstance(command, click.Group) and path != ("completion",):
        assert "--config" in done.stdout


def test_help_loads_nothing_that_is_slow() -> None:
    script = "import sys, proxy.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    slow = {"pydantic", "aiohttp", "redis", "rq", "aiosmtpd", "aiosmtplib", "asyncio.events"}
    assert slow & set(loaded) <= {"asyncio.events"}


def test_version() -> None:
    described = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    done = run_franker("--version")
    if "is not installed" in done.stderr:
        pytest.skip("franker itself is not installed beside this interpreter")
    assert done.stdout.split()[-1] in described


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("run", "--nothing"),
        ("explain",),
        ("worker", "--number", "0"),
        ("queue", "retry"),
        ("queue", "retry", "--dead", "01abc"),
        ("queue", "delete", "--stream", "outbound"),
        ("queue", "list", "--state", "gone"),
        ("send-test", "--to", "you@example.net"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(data_dir: Path, arguments: tuple[str, ...]) -> None:
    installation = Installation(data_dir)
    at = arguments.index("nothing") if "nothing" in arguments else len(arguments)
    more = ("--config", str(installation.config)) if at == len(arguments) else ()
    assert run_franker(*arguments, *more, environ=installation.environ).returncode == 2


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("run", "--sandbox"),
        ("redis",),
        ("proxy",),
        ("worker",),
        ("sandbox",),
        ("check",),
        ("explain", "--from", "a@example.com"),
        ("queue", "list"),
        ("send-test", "--from", "a@example.com", "--to", "b@example.com"),
    ],
    ids=" ".join,
)
def test_wrong_configuration_is_exit_code_78_with_every_fault(
    data_dir: Path, command: tuple[str, ...]
) -> None:
    installation = Installation(data_dir, {"retry": {"first": "soon", "cap": -1}})
    done = installation.run(*command)
    assert done.returncode == 78
    assert "retry.first" in done.stderr
    assert "retry.cap" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "redis", "proxy", "worker", "sandbox", "check"])
def test_no_folder_to_keep_mail_in_is_exit_code_78_and_both_are_named(
    data_dir: Path, command: str
) -> None:
    installation = Installation(data_dir, {"data_dir": "/dev/null/franker"})
    installation.environ["XDG_STATE_HOME"] = "/dev/null/state"
    done = installation.run(command)
    assert done.returncode == 78
    assert "/dev/null/franker" in done.stderr
    assert "/dev/null/state/franker" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there_is_exit_code_78() -> None:
    done = run_franker("check", "--config", "/nowhere/franker.toml")
    assert done.returncode == 78
    assert "/nowhere/franker.toml" in done.stderr


@pytest.mark.parametrize(
    "command", [("queue", "list"), ("queue", "show", "x"), ("queue", "retry", "x")], ids=" ".join
)
def test_without_a_store_the_answer_says_what_starts_it(
    data_dir: Path, command: tuple[str, ...]
) -> None:
    done = Installation(data_dir).run(*command)
    assert done.returncode == 1
    assert "the store does not answer" in done.stderr
    assert "franker run" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_nobody_reads_to_its_end_is_no_error_of_the_store(
    data_dir: Path, redis_server: RedisServer
) -> None:
    installation = Installation(data_dir, {"data_dir": data_dir})
    command = franker_command("queue", "list", "--config", str(installation.config))
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as nobody:
        done = subprocess.run(
            command, env=clean_environ(), stdout=nobody, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"store" not in done.stderr


def test_send_test_without_a_listener_says_so(data_dir: Path) -> None:
    done = Installation(data_dir).run(
        "send-test", "--from", "a@example.com", "--to", "b@example.com"
    )
    assert done.returncode == 1
    assert "is `franker proxy` running?" in done.stderr


def test_a_password_of_redis_is_never_shown(data_dir: Path) -> None:
    installation = Installation(data_dir, {"redis": {"url": "redis://127.0.0.1:1/0"}})
    installation.environ["FRANKER_REDIS_PASSWORD"] = "p4ssw0rd"
    for command in (("queue", "list"), ("check",)):
        done = installation.run(*command)
        assert done.returncode == 1
        assert "p4ssw0rd" not in done.stdout + done.stderr


def test_explain_says_rule_reason_stream_and_fields(data_dir: Path) -> None:
    rule = {"name": "payroll", "sender": ["payroll@*"], "tag": "pay", "from": "hr@example.com"}
    installation = Installation(data_dir, {"rules": [rule]})
    done = installation.run("explain", "--from", "payroll@example.com", "--to", "you@example.net")
    assert done.returncode == 0
    assert "payroll: sender payroll@example.com matches payroll@*" in done.stdout
    assert "smtp.postmarkapp.com, login: env POSTMARK_SERVER_TOKEN" in done.stdout
    assert "- From: payroll@example.com" in done.stdout
    assert "+ From: hr@example.com" in done.stdout
    assert "+ Reply-To: payroll@example.com" in done.stdout
    assert "+ X-PM-Tag: pay" in done.stdout
    assert "+ X-PM-Message-Stream: outbound" in done.stdout


def test_explain_reads_a_message_from_standard_input_and_answers_in_json(data_dir: Path) -> None:
    message = "From: app@example.com\nTo: b@example.net\nX-PM-Message-Stream: other\n\ntext\n"
    done = Installation(data_dir).run("explain", "--from", "<>", "--json", "-", stdin=message)
    answer = json.loads(done.stdout)
    assert answer["outcome"] == "relayed"
    assert answer["rule"] == ""
    assert "X-PM-Message-Stream: other" in answer["removed"]
    assert answer["from"] == "app@example.com"


def test_explain_shows_a_refusal_and_fails(data_dir: Path) -> None:
    done = Installation(data_dir).run("explain", "--from", "a@example.com", "--to", "root")
    assert done.returncode == 1
    assert "refused at RCPT root: 550 5.1.1" in done.stdout
    assert "local.postmaster" in done.stdout


def test_explain_shows_a_discard(data_dir: Path) -> None:
    rules = [{"name": "nightly", "client": ["10.0.0.0/8"], "action": "discard"}]
    allow = {"allow": ["127.0.0.0/8", "10.0.0.0/8"]}
    installation = Installation(data_dir, {"rules": rules, "listen": allow})
    there = installation.run("explain", "--from", "a@example.com", "--client", "10.1.2.3")
    assert there.stdout == "answered with 250 and thrown away by rule nightly\n"
    here = installation.run("explain", "--from", "a@example.com")
    assert "no rule matches" in here.stdout


@pytest.mark.parametrize(
    ("client", "code"), [("8.8.8.8", 1), ("::ffff:8.8.8.8", 1), ("::ffff:127.0.0.1", 0), ("x", 2)]
)
def test_explain_refuses_a_client_that_the_listener_refuses(
    data_dir: Path, client: str, code: int
) -> None:
    done = Installation(data_dir).run("explain", "--from", "a@example.com", "--client", client)
    assert done.returncode == code
    assert ("refused at connect: 554 5.7.1 This client may not" in done.stdout) == (code == 1)


@pytest.mark.parametrize("command", [("check",), ("queue", "list")], ids=" ".join)
def test_a_command_that_only_looks_makes_no_data_folder(
    data_dir: Path, command: tuple[str, ...]
) -> None:
    folder = data_dir / "not" / "there"
    done = Installation(data_dir, {"data_dir": folder}).run(*command)
    assert done.returncode == 1
    assert str(folder) in done.stdout + done.stderr
    assert not folder.parent.exists()


def test_explain_shows_nothing_that_a_terminal_would_obey(data_dir: Path) -> None:
    message = "From: app@example.com\nX-PM-Tag: \x07\nX-PM-Tag: two\n\ntext\n"
    done = Installation(data_dir).run("explain", "--from", "a@example.com", "-", stdin=message)
    assert "\x07" not in done.stdout
    assert "- X-PM-Tag: ?" in done.stdout
    assert printable("a\x1b[2J\u202eb") == "a?[2J?b"


def test_the_module_can_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy.cli", "--help"],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "relay it to Postmark" in " ".join(done.stdout.split())


def test_times_and_sizes_are_told_in_their_largest_unit() -> None:
    assert [duration_text(s) for s in (0, 59.9, 60, 7200, 90000)] == ["0s", "59s", "1m", "2h", "1d"]
    assert [size_text(n) for n in (0, 812, 5120, 3_000_000)] == ["0 B", "812 B", "5.1 kB", "3.0 MB"]


@pytest.mark.parametrize("command", ["proxy", "redis"])
def test_in_a_json_log_the_reason_why_a_service_cannot_start_is_json(
    data_dir: Path, command: str
) -> None:
    (data_dir / "redis").write_text("a file in the way")
    sections = {
        "data_dir": data_dir,
        "log": {"format": "json"},
        "listen": {"smtp": ["192.0.2.1:25"]},
    }
    installation = Installation(data_dir, sections)
    done = installation.run(command)
    assert done.returncode == 1
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert (said[-1]["event"], said[-1]["process"]) == ("stopping", command)
    assert said[-1]["detail"].startswith({"proxy": "listen.smtp", "redis": "the private"}[command])
