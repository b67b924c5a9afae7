"""What an old host asks of Franker, shown in the same way however Franker was installed."""

from tests.boot.programs import COBOL, Load
from tests.boot.site import Site
from tests.support.clients import body_text

UNITS = ("franker-proxy.service", "franker-worker@1.service", "franker-redis.service")
MAIL_MINUTE_S = 180.0  # cron looks once a minute

_DROP = "/var/spool/franker/drop"
_LETTERS = f"{_DROP}/[0-9a-f]*"


def report_every_minute(site: Site) -> None:
    """Have a job whose output cron mails each minute, from now on."""
    site.machine.write(
        "/etc/cron.d/report", "* * * * * root echo the $(date +\\%s) report of the minute\n"
    )


def shows_mail_of_mail(site: Site) -> None:
    """Show that what `mail` sends arrives."""
    site.machine.run("echo all is well | s-nail -s 'by mail' a@example.net", user="daemon")
    assert body_text(site.arrived("by mail").content) == "all is well\n"


def shows_cobol_is_heard(site: Site) -> None:
    """Show that what a COBOL program gives to sendmail arrives."""
    site.machine.write("/srv/REPORTER.cob", COBOL)
    site.machine.run("cobc -x -o /srv/reporter /srv/REPORTER.cob && /srv/reporter")
    assert body_text(site.arrived("end of day").content).rstrip() == "RECORDS READ     0000142"


def shows_exposure(site: Site, unit: str) -> str:
    """Show that the exposure of `unit` is at most 1.5; return the line that says so."""
    said = site.machine.run(f"systemd-analyze security --no-pager --threshold=15 {unit}")
    figure = said.stdout.splitlines()[-1]
    assert "Overall exposure level" in figure
    return figure


def shows_restarts_refuse_nobody(site: Site) -> str:
    """Show that programs are kept waiting, no more, while the proxy is stopped and started.

    Return how many, in a line.
    """
    load = Load(site)
    units = [f"{command} franker-proxy" for command in ("stop", "start", "restart")]
    meanwhile = [
        load.through(f"systemctl {command}") for command in (*units, "restart franker.target")
    ]
    seen = load.end()
    site.all_arrived_once(seen.kept)
    return seen.figure("stop, start, restart, restart of all", *meanwhile)


def shows_cron_is_heard(site: Site) -> None:
    """Show that the output of a job of cron's arrives."""
    arrived = site.until_any("Cron <root@legacy> echo", MAIL_MINUTE_S)
    assert arrived.recipients == ("ops@example.com",)


def shows_cron_is_kept_while_all_is_stopped(site: Site) -> None:
    """Show that cron's mail waits in the drop folder, for Franker's eyes, and is sent once."""
    machine = site.machine
    machine.run("systemctl stop 'franker*'")
    assert "active" not in machine.tell("systemctl is-active 'franker*'").splitlines()
    look = f"grep --text --no-filename --only-matching 'the [0-9]* report' {_LETTERS}"
    machine.until(look, MAIL_MINUTE_S)
    report = machine.run(look).stdout.splitlines()[0]
    assert machine.tell(f"stat --format '%a %U' {_DROP}") == "3733 franker"
    modes = machine.run(f"stat --format '%a %U %G' {_LETTERS}").stdout.splitlines()
    assert set(modes) == {"640 root franker"}
    machine.run("systemctl start franker.target")
    site.until_body(report)
    machine.until(f"! ls {_DROP} | grep -q .")
    site.until_settled()
    assert len(site.with_body(report)) == 1
