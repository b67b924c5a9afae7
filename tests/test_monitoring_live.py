"""Our rules and our dashboard on a real Prometheus: each failure is caused, and its alert fires."""

import json
import re
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.sandbox.account import TOKEN
from tests.support.far_end import background_far_end
from tests.support.processes import ROOT, Program, clean_environ, http_get
from tests.support.prometheus import RULES, SITE, alerts_of, hurried, missing_prometheus
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_for
from tests.support.watched import SOON_S, Trickle, Watched, letter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_prometheus()), reason=missing_prometheus()),
]

DASHBOARD = ROOT / "monitoring/grafana/dashboards/franker.json"
EVENTS_ONLY = {"ALERTS"}
"""What is shown only when something has happened."""


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    folder = new_data_dir()
    with background_far_end() as far_end:
        one = Watched(folder, far_end)
        yield one
        one.close()
    remove_data_dir(folder)


@pytest.fixture(autouse=True)
def _begins(watched: Watched) -> None:
    watched.begins()


@pytest.fixture
def trickle(watched: Watched) -> Iterator[Trickle]:
    """Mail as on any day."""
    one = Trickle(watched.site.smtp_port)
    watched.holds('sum(increase(franker_recipients_total{verdict="sent"}[6s])) > 5')
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
    # A moment without a scrape is an hour here, so that a busy machine may need several attempts.
    scraped = "min(sum_over_time(up[6s])) >= 11"
    flows = 'sum(increase(franker_recipients_total{verdict="sent"}[6s])) > 5'
    told = 'count(count_over_time(ALERTS{alertstate="firing"}[6s]))'
    watched.holds(f"({scraped}) and ({flows}) unless {told}")


def usually(watched: Watched, name: str) -> None:
    """Wait until mail has flowed "yesterday and a week ago"."""
    for past in ("1d", "1w"):
        watched.holds(hurried(f'{name}{{stream="outbound"}} offset {past} >= 5'))


def test_a_refused_login_pauses_the_route_and_nothing_leaves(
    watched: Watched, trickle: Trickle
) -> None:
    usually(watched, "site_stream:franker_recipients_sent:increase1h")
    number = watched.far_end.fail("auth", "535 5.7.8 no such token")
    watched.far_end.call(watched.far_end.far_end.cut)
    watched.fires("FrankerRoutePaused", reason="credentials", stream="outbound")
    watched.fires("FrankerOldestMessageTooOld", stream="outbound")
    watched.fires("FrankerNothingSent", stream="outbound")
    watched.far_end.mend(number)
    for alert in ("FrankerRoutePaused", "FrankerOldestMessageTooOld", "FrankerNothingSent"):
        watched.is_over(alert)


def test_programs_that_fall_silent_are_missed(watched: Watched, trickle: Trickle) -> None:
    usually(watched, "site_stream:franker_messages_accepted:increase1h")
    trickle.stop()
    watched.fires("FrankerNothingAccepted", stream="outbound")


def test_mail_refused_for_good_is_told_until_somebody_deals_with_it(watched: Watched) -> None:
    def to_be_refused() -> None:
        watched.send("to be refused", to="gone@example.net")

    number = watched.far_end.fail("rcpt", "550 5.1.1 no such mailbox", address="gone@*")
    to_be_refused()
    watched.fires("FrankerDeadLetters", again=to_be_refused, stream="outbound")
    watched.far_end.mend(number)
    done = watched.site.run("queue", "delete", "--dead", "--yes")
    assert done.returncode == 0, done.stderr
    watched.is_over("FrankerDeadLetters")


def test_refusals_that_rise_are_told_with_their_reason(watched: Watched) -> None:
    def are_refused() -> None:
        with smtplib.SMTP("127.0.0.1", watched.site.smtp_port, timeout=30) as client:
            client.ehlo()
            client.mail("app@example.com")
            for _ in range(60):
                code, text = client.rcpt("nobody-here")
                assert code == 550, text

    watched.holds(hurried("count_over_time(franker_messages_refused_total[1d] offset 15m) > 1"))
    are_refused()
    watched.fires("FrankerRefusalsRising", again=are_refused, reason="local_recipient")
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
    with watched.standing_still(watched.redis):
        watched.send("into the journal")
        watched.fires("FrankerJournalInUse")
        watched.fires("FrankerStoreNotDurable")
    watched.is_over("FrankerJournalInUse")
    watched.is_over("FrankerStoreNotDurable")


def test_a_full_store_is_told(watched: Watched) -> None:
    with watched.standing_still(watched.worker):
        watched.send_until_refused()
        watched.fires("FrankerStoreFull", again=watched.send_until_refused)
    watched.is_over("FrankerStoreFull")


def test_a_command_that_postmark_calls_wrong_is_a_defect(watched: Watched) -> None:
    # Its mail is deferred, and tried again each second.
    number = watched.far_end.fail("rcpt", "501 5.5.4 what is this", address="odd@*")
    watched.send("a defect", to="odd@example.net")
    watched.fires("FrankerDefect", where="relay")
    watched.far_end.mend(number)
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


def test_a_token_that_postmarks_api_refuses_is_told(watched: Watched) -> None:
    def in_doubt() -> None:
        watched.far_end.fail("taken", do="drop", address="doubt@*", times=1)
        watched.send("in doubt", to="doubt@example.net")

    watched.api_token.write_text("11111111-2222-3333-4444-555555555555")
    in_doubt()
    watched.fires("FrankerLookUpTokenRefused", again=in_doubt, stream="outbound")
    watched.api_token.write_text(TOKEN)
    watched.is_over("FrankerLookUpTokenRefused")


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
