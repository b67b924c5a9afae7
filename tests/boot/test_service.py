"""Franker as a service of a Debian that has booted, used by the programs of an old host."""

from collections.abc import Callable

import pytest

from tests.boot import uses
from tests.boot.programs import Load, raw
from tests.boot.site import Site

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", autouse=True)
def every_minute(installed: Site) -> None:
    """A job whose output cron mails each minute."""
    uses.report_every_minute(installed)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_raw_dialog_to_port_25_arrives(installed: Site, host: str) -> None:
    assert raw(installed, f"raw by {host}", host).startswith("250 2.0.0 Ok: queued as ")
    assert installed.arrived(f"raw by {host}").recipients == ("a@example.net",)


def test_a_message_from_mail_arrives(installed: Site) -> None:
    uses.shows_mail_of_mail(installed)


def test_a_cobol_program_that_calls_sendmail_is_heard(installed: Site) -> None:
    uses.shows_cobol_is_heard(installed)


def test_a_rule_by_local_user_sees_the_user_through_the_sandboxing(installed: Site) -> None:
    machine = installed.machine
    machine.run(
        'printf \'[[rules]]\\nname = "games"\\nuser = "games"\\ntag = "played"\\n\''
        " >> /etc/franker/franker.toml && systemctl restart franker-proxy"
    )
    raw(installed, "by root")
    machine.run("python3 /srv/raw.py 'by games' 127.0.0.1 25", user="games")
    assert installed.arrived("by games").tag == "played"
    assert not installed.arrived("by root").tag


def test_a_reload_of_the_target_reaches_the_proxy_and_the_worker(installed: Site) -> None:
    machine = installed.machine
    main = "systemctl show --property=MainPID --value franker-proxy franker-worker@1"
    before = machine.tell(main)
    rule = '[[rules]]\\nname = "anew"\\nsender = ["anew@*"]\\ntag = "reloaded"\\n'
    machine.run(f"printf '{rule}' >> /etc/franker/franker.toml && systemctl reload franker.target")
    for unit, process in (("franker-proxy", "proxy"), ("franker-worker@1", "worker")):
        log = f"journalctl --unit {unit} --no-pager --output cat"
        machine.until(f"{log} | grep -q 'reloaded process={process} .*changed=.*rules'")
    machine.until("systemctl is-active franker-proxy franker-worker@1")
    message = r"Subject: by the new rule\n\nx\n"
    machine.run(f"printf '{message}' | /usr/sbin/sendmail -f anew@example.com a@example.net")
    assert installed.arrived("by the new rule").tag == "reloaded"
    assert machine.tell(main) == before


def test_check_run_by_root_finds_the_token_that_the_services_were_given(installed: Site) -> None:
    said = installed.machine.run("franker check", check=False).stdout
    assert "login by credential secret_postmark accepted" in said


def test_verify_finds_nothing(installed: Site) -> None:
    units = "franker.target franker-proxy.socket"
    done = installed.machine.run(f"systemd-analyze verify {units} {' '.join(uses.UNITS)}")
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("unit", uses.UNITS)
def test_exposure_is_at_most_one_and_a_half(
    installed: Site, unit: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("figure", uses.shows_exposure(installed, unit))


def test_another_worker_runs_beside_the_first(installed: Site) -> None:
    machine = installed.machine
    machine.run("systemctl start franker-worker@2 && systemctl stop franker-worker@1")
    raw(installed, "by the second")
    installed.arrived("by the second")
    machine.run("systemctl start franker-worker@1 && systemctl stop franker-worker@2")


def test_a_daemon_that_is_stopped_and_started_under_load_refuses_no_connection(
    installed: Site, record_property: Callable[[str, object], None]
) -> None:
    record_property("figure", uses.shows_restarts_refuse_nobody(installed))


def test_an_upgrade_under_load_refuses_no_connection(
    installed: Site, record_property: Callable[[str, object], None]
) -> None:
    before = installed.machine.tell("readlink /opt/franker/current")
    load = Load(installed)
    meanwhile = load.through(f"{installed.installer} {installed.wheel}", timeout=600)
    seen = load.end()
    record_property("figure", seen.figure("upgrade", meanwhile))
    assert meanwhile
    assert installed.machine.tell("readlink /opt/franker/current") != before
    assert before not in installed.machine.tell("ls /opt/franker").split()
    installed.all_arrived_once(seen.kept)


def test_a_proxy_that_hangs_is_started_again(installed: Site) -> None:
    machine = installed.machine
    drop_in = "/run/systemd/system/franker-proxy.service.d/soon.conf"
    machine.run(f"mkdir -p $(dirname {drop_in})")
    machine.run(f"printf '[Service]\\nWatchdogSec=6s\\n' > {drop_in}")
    machine.run("systemctl daemon-reload && systemctl restart franker-proxy")
    machine.run("systemctl kill --signal=STOP franker-proxy")
    try:
        assert raw(installed, "after the watchdog").startswith("250 ")
        assert "watchdog" in machine.tell("journalctl -u franker-proxy --no-pager -o cat")
    finally:
        machine.run(f"rm {drop_in} && systemctl daemon-reload && systemctl restart franker-proxy")


def test_mail_waits_while_the_configuration_is_wrong_and_goes_when_it_is_right(
    installed: Site,
) -> None:
    machine = installed.machine
    machine.run("echo 'wrong = ' >> /etc/franker/franker.toml")
    try:
        machine.run("systemctl restart franker-proxy", check=False)
        status = "systemctl show --property=ExecMainStatus --value franker-proxy"
        machine.until(f"{status} | grep -q 78")
        waiting = machine.aside(lambda: raw(installed, "through a fault"))
        machine.until("ss -tn | grep -q '127.0.0.1:25 '")
    finally:
        machine.run("sed -i '$d' /etc/franker/franker.toml")
    assert waiting.result(60).startswith("250 ")
    installed.arrived("through a fault")
    machine.run("systemctl start franker.target")


def test_the_private_redis_is_left_out_where_another_is_named(installed: Site) -> None:
    machine = installed.machine
    drop_in = "/run/systemd/system/franker-redis.service.d/url.conf"
    machine.run(f"mkdir -p $(dirname {drop_in})")
    setting = "Environment=FRANKER_REDIS__URL=redis://127.0.0.1:6390/0"
    machine.run(f"printf '[Service]\\n{setting}\\n' > {drop_in} && systemctl daemon-reload")
    try:
        machine.run("systemctl restart franker-redis")
        assert machine.tell("systemctl is-active franker-redis") == "inactive"
    finally:
        machine.run(f"rm {drop_in} && systemctl daemon-reload && systemctl start franker-redis")


def test_mail_that_is_queued_at_a_reboot_arrives_after_it(installed: Site) -> None:
    machine = installed.machine
    machine.run("systemctl stop franker-worker@1")
    raw(installed, "across the reboot")
    machine.reboot()
    installed.arrived("across the reboot")


def test_mail_sent_at_boot_and_at_shutdown_is_kept(installed: Site) -> None:
    machine = installed.machine
    raw(installed, "before the boots")
    said = "/usr/bin/python3 /srv/raw.py"
    machine.write(
        "/etc/systemd/system/chatty.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart={said} 'sent at boot' 127.0.0.1 25\n"
        # Late: whatever does not wait for it is gone by then.
        f"ExecStop=/bin/sh -c \"sleep 3; exec {said} 'sent at shutdown' 127.0.0.1 25\"\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    machine.run("systemctl enable chatty")
    machine.reboot()
    installed.arrived("sent at boot")
    machine.reboot()
    installed.arrived("sent at shutdown")
    machine.run("systemctl disable chatty")


def test_the_output_of_a_cron_job_arrives(installed: Site) -> None:
    uses.shows_cron_is_heard(installed)


def test_cron_s_mail_sent_while_everything_is_stopped_arrives_later_and_once(
    installed: Site,
) -> None:
    uses.shows_cron_is_kept_while_all_is_stopped(installed)
