"""Our rules and our dashboard on a real Prometheus: each failure is caused, and its alert fires."""

import contextlib
import json
import re
import signal
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.sandbox.account import TOKEN
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.processes import ROOT, Installation, Program, clean_environ, http_get
from tests.support.prometheus import RULES, SITE, Prometheus, alerts_of, missing_prometheus
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_prometheus()), reason=missing_prometheus()),
]

DASHBOARD = ROOT / "monitoring/grafana/dashboards/franker.json"
SOON_S = 40.0
EVENTS_ONLY = {"ALERTS"}
"""What is shown only when something has happened."""


class Trickle:
    """Hands in a few messages a second until `stop`, whatever it is answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(0.25):
            number += 1
            try:
                with smtplib.SMTP("127.0.0.1", self._port, timeout=5) as client:
                    client.sendmail("app@example.com", [f"t{number}@example.net"], letter("daily"))
            except (OSError, smtplib.SMTPException):
                continue

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(20)


def letter(subject: str, octets: int = 200) -> bytes:
    body = ("x" * 70 + "\r\n") * (octets // 72 + 1)
    return f"From: app@example.com\r\nSubject: {subject}\r\n\r\n{body}".encode()


class Watched:
    """Every process of its own, a far end, and a Prometheus that watches."""

    def __init__(self, folder: Path, far_end: BackgroundFarEnd) -> None:
        self.far_end = far_end
        self.settings: dict[str, Any] = {
            "postmark": far_end.postmark(),
            "redis": {"max_memory": "6MB"},
            "retry": {"first": "1s", "cap": "1s"},
        }
        self.site = Installation(folder, self.settings)
        self.site.environ["POSTMARK_SERVER_TOKEN"] = TOKEN
        self.redis = self.site.start("redis")
        self.proxy = self._started("proxy", " started process=proxy")
        self.worker = self._started("worker", " started process=worker")
        self.prometheus = Prometheus(
            folder,
            {
                "franker-proxy": [f"127.0.0.1:{self.site.http_port}"],
                "franker-worker": [f"127.0.0.1:{self.site.worker_port}"],
            },
        )

    def _started(self, name: str, word: str) -> Program:
        program = self.site.start(name)
        program.wait_for(word)
        return program

    def restart_proxy(self) -> None:
        self.proxy = self._started("proxy", " started process=proxy")

    def restart_worker(self) -> None:
        self.worker = self._started("worker", " started process=worker")

    def send(self, subject: str = "one", octets: int = 200, to: str = "a@example.net") -> None:
        with smtplib.SMTP("127.0.0.1", self.site.smtp_port, timeout=30) as client:
            client.sendmail("app@example.com", [to], letter(subject, octets))

    def send_until_refused(self, octets: int) -> None:
        for number in range(20):
            self.send(f"number {number}", octets)

    @contextlib.contextmanager
    def not_durable(self) -> Iterator[None]:
        """Let Redis be one that may lose what it has confirmed."""
        client = redis.Redis(unix_socket_path=str(self.site.data_dir / "redis.sock"))
        client.config_set("appendfsync", "everysec")
        try:
            yield
        finally:
            client.config_set("appendfsync", "always")
            client.close()

    def fires(self, alert: str, **labels: str) -> None:
        """Wait until `alert` fires."""
        self._wait(lambda: self.prometheus.firing(alert, **labels), f"{alert} fires")

    def is_over(self, alert: str) -> None:
        """Wait until `alert` fires no more."""
        self._wait(lambda: not self.prometheus.firing(alert), f"{alert} is over")

    def _wait(self, condition: Any, what: str) -> None:
        try:
            wait_for(condition, SOON_S, what)
        except AssertionError as error:
            firing = sorted(self.prometheus.all_firing())
            logs = f"{self.proxy.log[-1500:]}\n{self.worker.log[-1500:]}"
            raise AssertionError(f"{error}; firing: {firing}\n{logs}") from None

    def close(self) -> None:
        self.prometheus.close()
        self.site.close()


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    folder = new_data_dir()
    with background_far_end() as far_end:
        one = Watched(folder, far_end)
        yield one
        one.close()
    remove_data_dir(folder)


@pytest.fixture
def trickle(watched: Watched) -> Iterator[Trickle]:
    """Mail as on any day."""
    one = Trickle(watched.site.smtp_port)
    sent = 'sum(increase(franker_recipients_total{verdict="sent"}[6s])) > 5'
    wait_for(lambda: watched.prometheus.ask(sent), SOON_S, "mail flows")
    yield one
    one.stop()


def metrics(watched: Watched) -> dict[str, str]:
    ports = {"proxy": watched.site.http_port, "worker": watched.site.worker_port}
    return {name: http_get(f"127.0.0.1:{port}", "/metrics")[1] for name, port in ports.items()}


@pytest.mark.parametrize("process", ["proxy", "worker"])
def test_promtool_finds_nothing_wrong_with_the_metrics(
    watched: Watched, trickle: Trickle, process: str
) -> None:
    text = metrics(watched)[process]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, "", "")


def queries() -> list[tuple[str, str]]:
    """Return every query of the dashboard: where it is, and what it asks."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    found += [(one["name"], one["expr"]) for one in dashboard["annotations"]["list"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked is not None, variable["query"]
            found.append((variable["name"], f"group by ({asked[2]}) ({asked[1]})"))
    return found


@pytest.mark.parametrize("chosen", [".*", "real"])
def test_every_query_of_the_dashboard_has_an_answer_under_load(
    watched: Watched, trickle: Trickle, chosen: str
) -> None:
    values = {
        "$__rate_interval": "6s",
        "$site": chosen.replace("real", SITE),
        "$stream": chosen.replace("real", "outbound"),
    }

    def unanswered() -> dict[str, str]:
        lacking = {}
        for where, expression in queries():
            for name, value in values.items():
                expression = expression.replace(name, value)
            samples = watched.prometheus.ask(expression)
            event = any(name in expression for name in EVENTS_ONLY)
            if not event and not [value for _, value in samples if value == value]:  # not NaN
                lacking[where] = expression
        return lacking

    try:
        wait_for(lambda: not unanswered(), SOON_S)
    except AssertionError:
        raise AssertionError(f"without an answer: {unanswered()}") from None


def test_every_metric_of_ours_is_shown_on_the_dashboard() -> None:
    golden = (ROOT / "tests/data/metrics.golden").read_text()
    ours = {line.split()[2].partition("{")[0] for line in golden.splitlines()}
    asked = " ".join(expression for _, expression in queries())
    assert {name for name in ours if name not in asked} == set()


def test_nobody_is_told_of_anything_while_mail_flows(watched: Watched, trickle: Trickle) -> None:
    seen: set[str] = set()
    scrapes = "count_over_time(up[1m])"
    enough = min(value for _, value in watched.prometheus.ask(scrapes)) + 15

    def flows() -> bool:
        seen.update(watched.prometheus.all_firing())
        return min(value for _, value in watched.prometheus.ask(scrapes)) >= min(enough, 55)

    wait_for(flows, SOON_S, "15 more scrapes")
    assert seen == set()


def test_a_refused_login_pauses_the_route_and_nothing_leaves(
    watched: Watched, trickle: Trickle
) -> None:
    number = watched.far_end.fail("auth", "535 5.7.8 no such token")
    watched.far_end.call(watched.far_end.far_end.cut)
    watched.fires("FrankerRoutePaused", reason="credentials", stream="outbound")
    watched.fires("FrankerOldestMessageTooOld", stream="outbound")
    watched.fires("FrankerNothingSent", stream="outbound")
    watched.far_end.mend(number)
    for alert in ("FrankerRoutePaused", "FrankerOldestMessageTooOld", "FrankerNothingSent"):
        watched.is_over(alert)


def test_programs_that_fall_silent_are_missed(watched: Watched, trickle: Trickle) -> None:
    usual = "site_stream:franker_messages_accepted:increase1h offset 20s >= 5"
    wait_for(lambda: watched.prometheus.ask(usual), 2 * SOON_S, "mail has flowed for a while")
    trickle.stop()
    watched.fires("FrankerNothingAccepted", stream="outbound")


def test_mail_refused_for_good_is_told_until_somebody_deals_with_it(watched: Watched) -> None:
    watched.far_end.fail("rcpt", "550 5.1.1 no such mailbox", address="gone@*", times=1)
    watched.send("to be refused", to="gone@example.net")
    watched.fires("FrankerDeadLetters", stream="outbound")
    done = watched.site.run("queue", "delete", "--dead", "--yes")
    assert done.returncode == 0, done.stderr
    watched.is_over("FrankerDeadLetters")


def test_refusals_that_rise_are_told_with_their_reason(watched: Watched) -> None:
    known = 'franker_messages_refused_total{reason="local"} offset 10s'
    with smtplib.SMTP("127.0.0.1", watched.site.smtp_port, timeout=30) as client:
        client.ehlo()
        client.mail("app@example.com")
        code, text = client.rcpt("nobody-here")
        assert code == 550, text
        wait_for(lambda: watched.prometheus.ask(known.replace("local", ".*").replace('="', '=~"')))
        for _ in range(60):
            client.rcpt("nobody-here")
    watched.fires("FrankerRefusalsRising")
    watched.is_over("FrankerRefusalsRising")


def test_a_store_that_is_not_durable_is_told(watched: Watched) -> None:
    with watched.not_durable():
        watched.fires("FrankerStoreNotDurable")
        with pytest.raises(smtplib.SMTPResponseException):
            watched.send("while it is not durable")
    watched.is_over("FrankerStoreNotDurable")


def test_what_sendmail_leaves_and_nobody_can_keep_is_told(watched: Watched) -> None:
    with watched.not_durable():
        watched.fires("FrankerStoreNotDurable")
        sendmail = "from proxy.sendmail import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", sendmail, "-f", "app@example.com", "cron@example.net"],
            env=clean_environ(FRANKER_DROP__FOLDER=str(watched.site.data_dir / "drop")),
            input=letter("left behind"),
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        watched.fires("FrankerDropFolderWaits")
    watched.is_over("FrankerDropFolderWaits")


def test_a_redis_that_stands_still_means_mail_in_the_journal(watched: Watched) -> None:
    watched.redis.signal(signal.SIGSTOP)
    try:
        watched.send("into the journal")
        watched.fires("FrankerJournalInUse")
        watched.fires("FrankerStoreNotDurable")
    finally:
        watched.redis.signal(signal.SIGCONT)
    watched.is_over("FrankerJournalInUse")
    watched.is_over("FrankerStoreNotDurable")


def test_a_full_store_is_told(watched: Watched) -> None:
    watched.worker.signal(signal.SIGSTOP)
    try:
        with pytest.raises(smtplib.SMTPDataError, match="452"):
            watched.send_until_refused(octets=900_000)
        watched.fires("FrankerStoreFull")
    finally:
        watched.worker.signal(signal.SIGCONT)
    watched.is_over("FrankerStoreFull")


def test_a_command_that_postmark_calls_wrong_is_a_defect(watched: Watched) -> None:
    watched.far_end.fail("rcpt", "501 5.5.4 what is this", address="odd@*", times=1)
    watched.send("a defect", to="odd@example.net")
    watched.fires("FrankerDefect", where="relay")
    watched.is_over("FrankerDefect")


def test_a_certificate_that_ends_soon_is_told(watched: Watched) -> None:
    number = watched.far_end.fail("starttls", do="certificate", what="ending")
    watched.far_end.call(watched.far_end.far_end.cut)
    watched.send("by a new connection")
    watched.fires("FrankerCertificateEndsSoon", host="127.0.0.1")
    watched.far_end.mend(number)
    watched.far_end.call(watched.far_end.far_end.cut)
    watched.send("by another")
    watched.is_over("FrankerCertificateEndsSoon")


def test_held_mail_is_told_until_it_is_released(watched: Watched) -> None:
    done = watched.site.run("queue", "hold", "--stream", "outbound", "--name", "figures")
    assert done.returncode == 0, done.stderr
    watched.send("held")
    watched.fires("FrankerHeldMail", stream="outbound")
    done = watched.site.run("queue", "release", "figures")
    assert done.returncode == 0, done.stderr
    watched.is_over("FrankerHeldMail")


@pytest.mark.parametrize("process", ["proxy", "worker"])
def test_a_changed_configuration_that_is_refused_is_told(watched: Watched, process: str) -> None:
    program: Program = getattr(watched, process)
    watched.site.configure({**watched.settings, "retry": {"first": "soon"}})
    program.signal(signal.SIGHUP)
    watched.fires("FrankerConfigRefused", job=f"franker-{process}")
    watched.site.configure(watched.settings)
    program.signal(signal.SIGHUP)
    watched.is_over("FrankerConfigRefused")


def test_a_worker_that_is_gone_is_told(watched: Watched) -> None:
    watched.worker.kill()
    watched.fires("FrankerWorkerGone", site=SITE)
    watched.restart_worker()
    watched.is_over("FrankerWorkerGone")


def test_a_proxy_that_is_gone_is_told(watched: Watched) -> None:
    watched.proxy.kill()
    watched.fires("FrankerProxyGone", site=SITE)
    watched.restart_proxy()
    watched.is_over("FrankerProxyGone")


def test_every_alert_is_caused_above() -> None:
    alerts = {name for file in RULES for name in alerts_of(file.read_text())}
    caused = set(re.findall(r'fires\(\s*"(\w+)"', Path(__file__).read_text()))
    assert caused == alerts
