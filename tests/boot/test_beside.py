"""On a host whose port 25 and sendmail are another program's."""

import pytest

from tests.boot.programs import package_of, raw
from tests.boot.site import Site

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]

PROGRAMS = "dpkg-divert --list; cd /usr; ls -l sbin/sendmail* lib/sendmail* bin/mailq* bin/newal*"
"""Prints to whom the names belong by which programs hand mail in."""

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes"
WAITING = "/srv/franker/systemd/waiting"
STATE = "dpkg-query --show --showformat '${db:Status-Status}' postfix"


def test_beside_postfix_nothing_of_its_is_changed_and_it_is_named(
    site_with_postfix: Site,
) -> None:
    site = site_with_postfix
    machine = site.machine
    sendmail = machine.tell("md5sum /usr/sbin/sendmail")
    said = machine.run(f"{site.installer} {site.wheel}", timeout=600).stdout
    assert "port 25 is held by postfix's /usr/lib/postfix/sbin/master" in said
    assert "postfix.service" in said
    assert "/usr/sbin/sendmail is still postfix's" in said
    assert "--take-over" in said
    assert machine.tell("md5sum /usr/sbin/sendmail") == sendmail
    assert machine.tell("systemctl is-active postfix") == "active"
    site.give_token()
    assert raw(site, "beside", port=2525).startswith("250 2.0.0 Ok: queued as ")
    site.arrived("beside")


def test_postfix_s_queue_stops_a_take_over(site_with_postfix: Site) -> None:
    site = site_with_postfix
    machine = site.machine
    machine.run("postconf -e relayhost=[127.0.0.9]:26 defer_transports=smtp")
    machine.run("systemctl reload postfix; echo x | /usr/sbin/sendmail a@example.net")
    machine.until("mailq | grep -q a@example.net")
    done = machine.run(f"{site.installer} --take-over {site.wheel}", check=False)
    assert done.returncode == 1
    assert "postfix 1" in done.stderr
    assert machine.tell("systemctl is-active postfix") == "active"
    machine.run("postsuper -d ALL")


def test_taken_over_all_is_franker_s_until_it_is_removed(site_with_postfix: Site) -> None:
    site = site_with_postfix
    machine = site.machine
    before = machine.run(PROGRAMS).stdout
    said = machine.run(f"{site.installer} --take-over {site.wheel}", timeout=600).stdout
    assert "which is stopped and disabled" in said
    assert machine.tell("systemctl is-enabled postfix") == "disabled"
    assert raw(site, "taken over").startswith("250 2.0.0 Ok: queued as ")
    site.arrived("taken over")
    command = "printf 'From: a@example.com\\nSubject: by sendmail\\n\\nx\\n'"
    machine.run(f"{command} | /usr/sbin/sendmail a@example.net", user="daemon")
    site.arrived("by sendmail")
    for name in ("sendmail", "mailq", "newaliases"):
        assert machine.tell(f"readlink -f $(command -v {name})").endswith("/franker-sendmail")

    machine.run(f"{site.installer} --uninstall")
    assert machine.run(PROGRAMS).stdout == before
    assert machine.tell("systemctl is-enabled postfix") == "enabled"
    machine.until("ss -tlnp | grep -q ':25 .*master'")


def test_the_package_is_not_installed_over_a_queue_that_holds_mail(
    site_with_postfix: Site,
) -> None:
    site = site_with_postfix
    machine = site.machine
    package = package_of(site)
    machine.run("echo x | /usr/sbin/sendmail a@example.net")
    machine.until("mailq | grep -q a@example.net")
    done = machine.run(f"{INSTALL} {package}", check=False, timeout=600)
    assert done.returncode != 0
    assert "mail still waits in the queue of another program" in done.stdout + done.stderr
    assert machine.tell(WAITING) == "postfix 1"
    # apt had removed Postfix by then: now do as docs/install.md says.
    assert machine.tell(STATE) == "config-files"
    machine.run(f"{INSTALL} --no-install-recommends postfix", timeout=600)
    assert machine.tell("systemctl is-active postfix") == "active"
    assert machine.tell(WAITING) == "postfix 1"
    machine.run("postconf -e defer_transports= relayhost= default_transport=discard:")
    machine.run("systemctl reload postfix && postqueue -f")
    machine.until(f'test -z "$({WAITING})"')
    machine.run(f"{INSTALL} {package}", timeout=600)
    assert machine.tell(STATE) == "config-files"
    assert raw(site, "after the stop").startswith("250 2.0.0 Ok: queued as ")
    site.arrived("after the stop")
