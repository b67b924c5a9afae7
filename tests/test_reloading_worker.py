"""SIGHUP to a worker process: new settings for mail that waits, and none is lost over it."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.sandbox.account import Account, SmtpToken
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.mail_queue import dead, envelope, put, queued
from tests.support.processes import Installation, Program, http_get
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for

OLD = SmtpToken("PM-T-outbound-old", "the-old-secret", "outbound")
NEW = SmtpToken("PM-T-outbound-new", "the-new-secret", "outbound")


class Worker:
    """`franker worker` on a Redis of its own, relaying to `far_end`."""

    def __init__(self, folder: Path, far_end: BackgroundFarEnd) -> None:
        self.far_end = far_end
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text(far_end.token)
        self.access, self.secret = folder / "access", folder / "secret"
        self.log_in_by(OLD)
        self.installation = Installation(folder)
        self.installation.data_dir.mkdir(mode=0o700)
        self.redis = RedisServer(self.installation.data_dir)
        self.redis.start()
        self.client = self.redis.client()
        self.configure()
        self.program: Program = self.installation.start("worker")
        self.program.wait_for(" started process=worker ")

    def log_in_by(self, login: SmtpToken) -> None:
        self.access.write_text(login.access_key)
        self.secret.write_text(login.secret_key)

    @property
    def server_token(self) -> dict[str, Any]:
        return {"token": {"file": str(self.token)}}

    @property
    def smtp_token(self) -> dict[str, Any]:
        return {"access_key": {"file": str(self.access)}, "secret_key": {"file": str(self.secret)}}

    def configure(self, **sections: Any) -> None:
        postmark = self.far_end.postmark(**sections.pop("postmark", {}))
        streams = sections.pop("streams", {"outbound": self.smtp_token})
        self.installation.configure({"postmark": postmark, "streams": streams, **sections})

    def reread(self, word: str = " reloaded ", **sections: Any) -> str:
        """Write `sections` as the configuration, hang up, and return the line that follows."""
        self.configure(**sections)
        return self.hang_up(word)

    def hang_up(self, word: str = " reloaded ") -> str:
        count = self.program.log.count(word)
        self.program.signal(signal.SIGHUP)
        wait_for(lambda: self.program.log.count(word) > count, what=word)
        return [line for line in self.program.log.splitlines() if word in line][-1]

    def taken(self) -> list[tuple[str, str]]:
        """Who logged in for each message that the far end has, and for which recipient."""
        return [(one.login, one.recipients[0]) for one in self.far_end.messages]

    def put(self, recipient: str, **more: Any) -> None:
        put(self.client, mail=envelope(recipient), **more)

    def sent(self, recipient: str) -> None:
        """Return when the far end has `recipient`'s message and the queue has settled it."""
        self.until(lambda: recipient in [to for _, to in self.taken()], recipient)
        self.until(lambda: f"to={recipient}" in self.program.log, recipient)

    def until(self, condition: Any, what: str) -> None:
        wait_for(condition, 60, what)

    def met(self) -> int:
        """How often the first of the far end's faults was met."""
        met: int = self.far_end.call(self.far_end.far_end.faults.listed)[0]["met"]
        return met

    def logins(self) -> list[str]:
        return [one.user for one in self.far_end.logins if one.accepted]

    def metrics(self) -> str:
        return http_get(f"127.0.0.1:{self.installation.worker_port}", "/metrics")[1]

    def close(self) -> None:
        self.installation.close()
        self.redis.stop()


@pytest.fixture
def worker(data_dir: Path) -> Iterator[Worker]:
    with (
        background_far_end(Account(smtp_tokens=(OLD, NEW))) as far_end,
        contextlib.closing(Worker(data_dir, far_end)) as running,
    ):
        yield running


def test_mail_of_a_new_stream_that_waits_already_goes(worker: Worker) -> None:
    worker.put("early@example.net", stream="billing")
    worker.put("usual@example.net")
    worker.sent("usual@example.net")
    line = worker.reread(
        streams={
            "outbound": worker.smtp_token,
            "billing": {**worker.server_token, "id": "outbound"},
        }
    )
    assert "changed=streams.billing" in line
    worker.sent("early@example.net")
    assert 'franker_recipients_total{stream="billing",verdict="sent"} 1.0' in worker.metrics()


def test_an_open_connection_stays_when_nothing_about_it_has_changed(worker: Worker) -> None:
    worker.put("one@example.net")
    worker.sent("one@example.net")
    before = worker.logins()
    worker.reread(
        postmark={"unknown_outcome": "hold", "ask_for": "10s"},
        retry={"first": "1s"},
        streams={"outbound": worker.smtp_token, "same": {**worker.smtp_token, "id": "outbound"}},
    )
    worker.put("two@example.net")
    worker.put("same@example.net", stream="same")
    worker.sent("two@example.net")
    worker.sent("same@example.net")
    assert worker.logins() == before


def test_mail_of_a_stream_that_is_gone_waits_and_is_told_of_and_goes_when_it_is_back(
    worker: Worker,
) -> None:
    both = {"outbound": worker.smtp_token, "billing": {**worker.server_token, "id": "outbound"}}
    worker.reread(streams=both)
    worker.put("before@example.net", stream="billing")
    worker.sent("before@example.net")
    worker.reread(streams={"outbound": worker.smtp_token})
    worker.put("late@example.net", stream="billing")
    worker.until(lambda: "1 messages wait for the stream 'billing'" in worker.program.log, "said")
    checked = worker.installation.run("check")
    assert checked.returncode == 1
    assert "failed  stream billing" in checked.stdout
    assert "1 message waits, and no such stream is configured" in checked.stdout
    assert len(queued(worker.client, "billing")) == 1
    assert 'stream="billing"' not in "".join(
        line for line in worker.metrics().splitlines() if "route_paused" in line
    )
    worker.reread(streams=both)
    worker.sent("late@example.net")
    assert not dead(worker.client, "billing")


def test_a_mended_secret_is_used_at_once_and_what_is_on_the_wire_ends_by_the_old_one(
    worker: Worker,
) -> None:
    worker.far_end.fail("dot", do="delay", seconds=2.0, times=1)
    worker.put("old@example.net")
    worker.until(worker.met, "on the wire")
    worker.log_in_by(NEW)
    worker.hang_up()
    worker.put("new@example.net")
    worker.sent("new@example.net")
    worker.sent("old@example.net")
    assert sorted(worker.taken()) == [
        (NEW.access_key, "new@example.net"),
        (OLD.access_key, "old@example.net"),
    ]


def test_another_login_in_the_file_takes_over_and_what_is_on_the_wire_ends_by_the_old_one(
    worker: Worker,
) -> None:
    worker.far_end.fail("dot", do="delay", seconds=2.0, times=1)
    worker.put("old@example.net")
    worker.until(worker.met, "on the wire")
    worker.reread(streams={"outbound": worker.server_token})
    worker.put("new@example.net")
    worker.sent("new@example.net")
    worker.sent("old@example.net")
    assert sorted(worker.taken()) == [
        (worker.far_end.token, "new@example.net"),
        (OLD.access_key, "old@example.net"),
    ]


def test_other_ports_mean_other_connections(worker: Worker) -> None:
    worker.put("one@example.net")
    worker.sent("one@example.net")
    first, second = worker.far_end.messages[0].port, worker.far_end.ports[1]
    assert first != second
    worker.reread(postmark={"ports": [second]})
    worker.put("two@example.net")
    worker.sent("two@example.net")
    assert [one.port for one in worker.far_end.messages] == [first, second]


def test_a_paused_route_is_left_behind_by_another_login(worker: Worker) -> None:
    worker.log_in_by(SmtpToken("PM-T-nobody", "wrong", "outbound"))
    worker.hang_up()
    worker.put("you@example.net")
    paused = 'franker_route_paused{reason="credentials",stream="outbound"} '
    worker.until(lambda: f"{paused}1.0" in worker.metrics(), "paused")
    worker.reread(streams={"outbound": worker.server_token})
    worker.sent("you@example.net")
    assert f"{paused}0.0" in worker.metrics()
    credentials = [one for one in worker.metrics().splitlines() if "credential_used{" in one]
    name = f"file {worker.token}"
    assert credentials == [f'franker_credential_used{{credential="{name}",stream="outbound"}} 1.0']


def test_authorities_that_cannot_be_read_are_refused_and_mail_goes_on_by_the_old(
    worker: Worker,
) -> None:
    line = worker.reread(
        " reload_refused ", postmark={"ca_file": "/nonexistent.pem"}, retry={"first": "1s"}
    )
    assert "postmark.ca_file /nonexistent.pem" in line
    assert "franker_config_reload_success 0.0" in worker.metrics()
    worker.put("you@example.net")
    worker.sent("you@example.net")


def test_owners_are_told_where_the_file_says_now(worker: Worker) -> None:
    worker.far_end.fail("rcpt", "550 5.1.1 no such person", address="nobody@*")
    worker.put("nobody@example.net")
    worker.until(lambda: dead(worker.client), "dead")
    worker.reread(notify={"to": "owner@example.com", "from": "franker@example.com"})
    worker.sent("owner@example.com")


def test_what_needs_a_restart_is_named(worker: Worker) -> None:
    line = worker.reread(worker={"http": "127.0.0.1:1"}, redis={"max_memory": "1MB"})
    assert "needs_restart=redis.max_memory,worker.http" in line
