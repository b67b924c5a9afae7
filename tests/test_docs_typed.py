"""Each command that README and docs show is typed where all is at work, and does what it says.

Only the commands for root are typed elsewhere: tests/boot/test_documents.py.
"""

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from proxy.cli import main
from proxy.queue import keys
from proxy.queue.connection import SOCKET_NAME
from proxy.queue.job import JobEnvelope
from tests.support.far_end import background_far_end
from tests.support.mail_queue import dead, put, queued, scheduled, started, unsettled
from tests.support.office import Office
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_for
from tests.test_cli_queue import hand_in
from tests.test_docs import PAGES, shown_commands

NAMED = {
    "completion": "as the subject of a sentence",
    "completion SHELL": "likewise",
    "explain": "likewise",
    "queue hold": "likewise",
    "queue retry --reroute": "likewise",
    "send-test": "as the subject of a sentence",
    "queue release NAME": "any name",
    "queue release restored": "typed by tests/test_restored_processes.py, after a restore",
    "check --config /etc/franker/franker.toml": "typed without the path",
}
"""Command lines that are on a page and not typed here, and why."""

OTHERS = {"run", "redis", "proxy", "worker", "sandbox"}
"""Those that do not end are run by other tests."""

ANSWERS = {
    "--version": r"franker, version \d",
    "check": r"(?m)^ok +stream outbound ",
    "completion": r"_franker_completion",
    "explain": r"(?m)^rule +\S.*\n(.*\n)*stream ",
    "send-test": r"(?m)^kept as \w+\nsent$",
    "queue list": r"(?m)^\d+ messages?, |^Nothing ",
    "queue dead": r"(?m)^\d+ messages?, |^\[$|^[1-9]\d* written",
    "queue show": r"(?m)^ *X-PM-Message-Stream: ",
    "queue retry": r"^[1-9]\d* retried",
    "queue delete": r"[1-9]\d* deleted",
    "queue hold": r"is held: \d+ messages?[.;]",
    "queue holds": r"^held by ",
    "queue release": r"^Released from ",
    "queue flush": r"^[1-9]\d* messages? due now",
}
"""What a command says that has done its work on what is there (see `typed`)."""


def typed_commands() -> list[str]:
    """Return each command line that a page shows, once."""
    shown = {shlex.join(words) for page in PAGES for words in shown_commands(page)}
    assert set(NAMED) <= shown
    return sorted(line for line in shown - set(NAMED) if line.split()[0] not in OTHERS)


COMMANDS = typed_commands()


@pytest.fixture(scope="module")
def desk() -> Iterator[Office]:
    folder = new_data_dir()
    with background_far_end() as far_end:
        far_end.fail("rcpt", "550 5.1.1 nobody", address="dead@*")
        far_end.fail("rcpt", "451 4.2.1 later", address="late@*")
        token = {"env": "POSTMARK_SERVER_TOKEN"}
        office = Office(
            folder,
            far_end,
            {
                "listen": {"allow": ["127.0.0.0/8", "::1", "10.20.0.17"]},
                "retry": {"first": "10m"},  # what is deferred stays so
                "local": {"from": "servers@example.com", "postmaster": "ops@example.com"},
                "streams": {
                    "outbound": {"token": token},
                    "broadcasts": {"token": token, "kind": "broadcast"},
                },
                "rules": [{"name": "payroll", "sender": ["payroll@*"], "tag": "payroll"}],
            },
        )
        yield office
        office.close()
    remove_data_dir(folder)


@pytest.fixture
def store(desk: Office) -> Iterator[redis.Redis]:
    """The queue, in which mail is dead and deferred; nothing is held any more in the end."""
    client = redis.Redis(unix_socket_path=str(desk.installation.data_dir / SOCKET_NAME))
    for to, there in (("dead", dead), ("late", scheduled)):
        if not unsettled(client) + dead(client) or not there(client):
            hand_in(desk, f"{to}@example.net")
    wait_for(lambda: dead(client) and scheduled(client), 20, "mail is dead, and mail is late")
    wait_for(lambda: not queued(client) and not started(client), 20, "no other mail is there")
    yield client
    if client.hlen(keys.HOLDS):
        typed(desk, ["queue", "release", "--all"])
    client.close()


def typed(desk: Office, words: list[str]) -> str:
    """Run `franker WORDS` in this process and return what it says: a start takes long."""
    if words[0] not in ("--version", "completion"):
        words = [*words, "--config", str(desk.installation.config)]
    done = CliRunner().invoke(main, words, input="y\n", env=desk.installation.environ)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_does_what_it_says(
    desk: Office, store: redis.Redis, tmp_path: Path, line: str
) -> None:
    words = shlex.split(line)
    name = " ".join(words[:2]) if words[0] == "queue" else words[0]
    if name in ("queue holds", "queue release") or "--held" in words or "held" in words:
        named = len(words) == 3 and name == "queue release" and words[2] != "--all"
        typed(desk, ["queue", "hold", "--all", "--name", words[2] if named else "batch"])
        put(store, stream="broadcasts")
        put(store, mail=JobEnvelope("payroll@example.com", ("you@example.net",), time.time()))
    letter = tmp_path / "letter.eml"
    letter.write_text("From: root\nSubject: Cron <root@legacy> report\n\nx\n")
    given = {
        "ID": (scheduled if name == "queue show" else dead)(store)[0],
        "A": "app@example.com",
        "B": "you@example.net",
        "letter.eml": str(letter),
        "message.eml": str(letter),
        "letters/": str(tmp_path),
        "FOLDER": str(tmp_path),
    }
    said = typed(desk, [given.get(word, word) for word in words])
    assert re.search(ANSWERS[name], said), said
