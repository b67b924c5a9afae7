"""SIGHUP to a proxy process: what it reads again, what it refuses, and who notices."""

import contextlib
import json
import signal
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.queue import keys
from proxy.queue.expiry import read_clocks
from proxy.queue.holds import Hold
from proxy.queue.job import JobEnvelope, decode_envelope
from proxy.queue.selection import Selection
from proxy.sendmail.letter import Letter, pack
from tests.support.processes import Installation, Program, http_get
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for

MESSAGE = b"From: app@example.com\r\nTo: you@example.net\r\nSubject: s\r\n\r\ntext\r\n"
POSTMASTER = {"postmaster": "postmaster@example.com"}


class Proxy:
    """`franker proxy` on a Redis of its own, and a file that it reads again."""

    def __init__(self, folder: Path) -> None:
        self.installation = Installation(folder, {"local": POSTMASTER})
        self.installation.data_dir.mkdir(mode=0o700)
        self.redis = RedisServer(self.installation.data_dir)
        self.redis.start()
        self.program: Program = self.installation.start("proxy")
        self.program.wait_for(" started process=proxy ")

    def reread(self, word: str = " reloaded ", **sections: Any) -> str:
        """Write `sections` as the configuration, hang up, and return the line that follows."""
        self.installation.configure(sections)
        return self.hang_up(word)

    def hang_up(self, word: str = " reloaded ") -> str:
        count = self.program.log.count(word)
        self.program.signal(signal.SIGHUP)
        wait_for(lambda: self.program.log.count(word) > count, what=word)
        return [line for line in self.program.log.splitlines() if word in line][-1]

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.installation.smtp_port, timeout=20)

    def queued(self, stream: str = "outbound") -> list[JobEnvelope]:
        client: Any = self.redis.client()
        ids = client.lrange(f"rq:queue:franker-{stream}", 0, -1)
        jobs = [f"rq:job:{one.decode()}" for one in ids]
        return [decode_envelope(client.hget(job, "envelope")) for job in jobs]

    def drop(self, number: int, *recipients: str) -> None:
        """Leave a letter in the drop folder, as sendmail does."""
        folder = self.installation.data_dir / "drop"
        new = folder / f"new-{number}"
        new.write_bytes(pack(Letter("app@example.com", list(recipients), MESSAGE)))
        new.rename(folder / f"{number:032x}")

    def metrics(self) -> list[str]:
        return http_get(f"127.0.0.1:{self.installation.http_port}", "/metrics")[1].splitlines()

    def close(self) -> None:
        self.installation.close()
        self.redis.stop()


@pytest.fixture
def proxy(data_dir: Path) -> Iterator[Proxy]:
    running = Proxy(data_dir)
    with contextlib.closing(running):
        yield running


def test_an_open_connection_goes_on_and_its_next_mail_follows_the_new_rule(proxy: Proxy) -> None:
    with proxy.client() as client:
        client.sendmail("app@example.com", ["you@example.net"], MESSAGE)
        rules = [{"name": "new", "sender": ["app@*"], "stream": "billing"}]
        line = proxy.reread(rules=rules, streams={"billing": {}})
        assert "changed=local.postmaster,streams.billing,rules" in line
        client.sendmail("app@example.com", ["you@example.net"], MESSAGE)
    assert [one.rule for one in proxy.queued()] == [""]
    assert [one.rule for one in proxy.queued("billing")] == ["new"]
    wanted = 'franker_messages_accepted_total{stream="billing"} 1.0'
    assert wanted in proxy.metrics()
    shown = 'franker_queue_messages{state="queued",stream="billing"} 1.0'
    wait_for(lambda: shown in proxy.metrics(), what=shown)


def test_what_lies_in_the_drop_folder_is_taken_by_the_new_rules_and_limits(proxy: Proxy) -> None:
    # A letter that comes while the old rules hold is refused: nobody on this host may hand in.
    proxy.reread(listen={"allow": ["192.0.2.1"]})
    proxy.drop(1, "a@example.net")
    wait_for(lambda: " dead " in proxy.program.log, 20, "the letter is refused")
    rules = [{"name": "new", "sender": ["app@*"], "expires": "1h"}]
    proxy.reread(rules=rules, listen={"max_recipients": 2})
    proxy.drop(2, "a@example.net", "b@example.net", "c@example.net")
    wait_for(lambda: len(proxy.queued()) == 2, 20, "the letter is taken, in two")
    assert [(one.rule, len(one.recipients)) for one in proxy.queued()] == [("new", 2), ("new", 1)]
    assert proxy.program.log.count(" dead ") == 1


def test_the_time_of_a_letter_in_the_drop_folder_begins_when_it_was_left(proxy: Proxy) -> None:
    proxy.reread(rules=[{"name": "code", "sender": ["app@*"], "expires": "1h"}])
    proxy.program.signal(signal.SIGSTOP)
    left = read_clocks()
    proxy.drop(1, "a@example.net")
    wait_for(lambda: read_clocks().uptime > left.uptime + 3, 20, "it has lain there for a while")
    proxy.program.signal(signal.SIGCONT)
    wait_for(lambda: len(proxy.queued()) == 1, 20, "it is taken")
    [taken] = proxy.queued()
    assert taken.boot == left.boot
    assert taken.expires_at == pytest.approx(left.wall + 3600, abs=1)
    assert taken.expires_up == pytest.approx(left.uptime + 3600, abs=1)


def test_a_mail_that_was_begun_before_ends_as_it_began(proxy: Proxy) -> None:
    with proxy.client() as client:
        client.ehlo()
        client.mail("app@example.com")
        assert client.rcpt("root")[0] == 250
        proxy.reread()  # nobody gets local mail any more
        assert client.data(MESSAGE)[0] == 250
        client.mail("app@example.com")
        assert client.rcpt("root")[0] == 550
    assert proxy.queued()[0].recipients == ("postmaster@example.com",)


def test_a_wrong_file_is_refused_whole_with_every_fault_and_the_old_rules_stay(
    proxy: Proxy,
) -> None:
    before = proxy.reread(rules=[{"name": "old", "tag": "t"}])
    assert "franker_config_reload_success 1.0" in proxy.metrics()
    line = proxy.reread(
        " reload_refused ",
        rules=[{"name": "new", "stream": "nowhere"}],
        retry={"first": "soon"},
        local={"aliases_file": "/nonexistent/aliases"},
    )
    assert "rules.new.stream" in line
    assert "retry.first" in line
    assert "the old configuration stays" in line
    assert "franker_config_reload_success 0.0" in proxy.metrics()
    with proxy.client() as client:
        client.sendmail("app@example.com", ["you@example.net"], MESSAGE)
    assert [one.rule for one in proxy.queued()] == ["old"]
    assert proxy.program.log.count(" reloaded ") == 1, before
    assert "franker_config_reload_success 1.0" not in proxy.metrics()
    proxy.reread(rules=[{"name": "old", "tag": "t"}])
    assert "franker_config_reload_success 1.0" in proxy.metrics()


def test_what_a_file_names_and_cannot_be_read_is_a_fault_too(proxy: Proxy) -> None:
    tls = {"cert": "/nonexistent/cert.pem", "key": "/nonexistent/key.pem"}
    address = {"address": f"127.0.0.1:{proxy.installation.smtp_port}", "tls": tls}
    line = proxy.reread(
        " reload_refused ",
        local={"aliases_file": "/nonexistent/aliases"},
        listen={"smtp": [address, f"[::1]:{proxy.installation.smtp_port}"], "max_recipients": 1},
    )
    assert "local.aliases_file: /nonexistent/aliases" in line
    assert "/nonexistent/cert.pem" in line
    with proxy.client() as client:
        client.ehlo()
        client.mail("app@example.com")
        assert [client.rcpt(name)[0] for name in ("a@example.net", "root")] == [250, 250]


def test_a_file_that_is_gone_is_a_fault_and_not_the_defaults(proxy: Proxy) -> None:
    proxy.installation.config.unlink()
    assert "is not there any more" in proxy.hang_up(" reload_refused ")


def test_limits_and_the_allow_list_change_for_those_who_come_and_nobody_is_cut_off(
    proxy: Proxy,
) -> None:
    with proxy.client() as old:
        old.ehlo()
        proxy.reread(listen={"allow": ["127.9.9.9"], "max_recipients": 1})
        with pytest.raises(smtplib.SMTPConnectError, match="554"):
            proxy.client()
        old.mail("app@example.com")
        assert [old.rcpt(name)[0] for name in ("a@example.net", "b@example.net")] == [250, 452]


def test_what_needs_a_restart_is_named_each_time_and_the_rest_takes_effect(proxy: Proxy) -> None:
    for _ in range(2):
        line = proxy.reread(
            redis={"max_memory": "100MB"},
            listen={"smtp": "127.0.0.1:1", "http": "127.0.0.1:1", "max_recipients": 1},
        )
        assert "needs_restart=listen.smtp,listen.http,redis.max_memory" in line
    with proxy.client() as client:
        client.ehlo()
        client.mail("app@example.com")
        assert [client.rcpt(name)[0] for name in ("a@example.net", "b@example.net")] == [250, 452]


def test_people_hear_of_a_hold_by_the_delay_that_was_read_last(proxy: Proxy) -> None:
    hold = Hold("old", Selection(stream="a"), time.time() - 3600, "me@here", "why")
    proxy.redis.client().hset(keys.HOLDS, hold.name, json.dumps(hold.record()))
    proxy.reread(notify={"delay": "2h"})
    assert " alert kind=held " not in proxy.program.log
    proxy.reread(notify={"delay": "30m"})
    proxy.program.wait_for(" alert kind=held subject=old phase=begins ")


def test_systemd_is_told_when_reading_begins_and_when_it_is_over(proxy: Proxy) -> None:
    proxy.program.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        path = proxy.installation.folder / "notify.sock"
        told.bind(str(path))
        told.settimeout(60)
        proxy.installation.environ["NOTIFY_SOCKET"] = str(path)
        proxy.program = proxy.installation.start("proxy")
        assert told.recv(4096).startswith(b"READY=1")
        proxy.reread(rules=[{"name": "one"}])
        first = told.recv(4096).decode().splitlines()
        assert first[0] == "RELOADING=1"
        assert first[1].startswith("MONOTONIC_USEC=")
        assert told.recv(4096) == b"READY=1"
