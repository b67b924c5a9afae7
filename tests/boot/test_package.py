"""The same from a package: apt installs, upgrades and removes it."""

from collections.abc import Callable

import pytest

from tests.boot import uses
from tests.boot.programs import KEPT, Load, files_of, package_of, raw
from tests.boot.site import Site
from tests.boot.test_uninstall import USERS
from tests.support.clients import body_text

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes"
REMOVE, PURGE = "apt-get remove --quiet --yes franker", "apt-get purge --quiet --yes franker"
NOTES = {  # dpkg's own, of a package whose configuration is there yet
    "var/lib/dpkg/info/franker.list",
    "var/lib/dpkg/info/franker.postrm",
}
DEBIAN_S = ("var/lib/systemd/", "var/lib/apt/", "var/lib/logrotate/", "var/backups/")
"""Where timers, boots and apt write by themselves."""


@pytest.fixture(scope="module")
def package(site: Site) -> str:
    """A package that was made on the machine itself."""
    return package_of(site)


@pytest.fixture(scope="module")
def before(site: Site, package: str) -> set[str]:
    """Every path of the machine before Franker is there."""
    site.machine.write("/etc/aliases", "root: ops@example.com\n")
    uses.report_every_minute(site)
    return files_of(site.folder)


@pytest.fixture(scope="module")
def there(site: Site, package: str, before: set[str]) -> Site:
    """The machine with the package installed and a token."""
    said = site.machine.run(f"{INSTALL} {package}", timeout=600).stdout
    assert "/etc/franker/secrets/postmark" in said
    site.give_token()
    return site


def left_by(site: Site, before: set[str]) -> set[str]:
    """Return what came to the machine since `before`, but for mail and configuration."""
    new = {path for path in files_of(site.folder) - before if not path.startswith(KEPT)}
    return {path for path in new - USERS if "franker" in path or not path.startswith(DEBIAN_S)}


def test_mail_arrives_by_port_25_and_by_sendmail(there: Site) -> None:
    assert raw(there, "by the package").startswith("250 ")
    there.arrived("by the package")
    command = "printf 'Subject: by its sendmail\\n\\nwell\\n' | sendmail a@example.net"
    there.machine.run(command, user="daemon")
    assert body_text(there.arrived("by its sendmail").content) == "well\n"


def test_mail_from_mail_and_from_cobol_arrives(there: Site) -> None:
    uses.shows_mail_of_mail(there)
    uses.shows_cobol_is_heard(there)


def test_dpkg_knows_every_file_and_finds_none_changed(there: Site) -> None:
    machine = there.machine
    assert machine.run("dpkg --verify franker").stdout == ""
    own = set(machine.run("dpkg --listfiles franker").stdout.splitlines())
    found = set(machine.run("find /opt/franker").stdout.splitlines())
    assert found - own == set()


def test_verify_finds_nothing_in_the_package_s_units(there: Site) -> None:
    said = there.machine.run("systemd-analyze verify franker.target franker-proxy.socket")
    assert said.stdout + said.stderr == ""


@pytest.mark.parametrize("unit", uses.UNITS)
def test_exposure_of_the_package_s_units_is_at_most_one_and_a_half(
    there: Site, unit: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("figure", f"package: {uses.shows_exposure(there, unit)}")


def test_it_starts_at_boot_and_sends_what_was_queued(there: Site) -> None:
    there.machine.run("systemctl stop 'franker-worker@*'")
    raw(there, "over a boot")
    there.machine.reboot()
    there.arrived("over a boot")


def test_stopped_and_started_under_load_the_package_s_proxy_refuses_no_connection(
    there: Site, record_property: Callable[[str, object], None]
) -> None:
    record_property("figure", f"package: {uses.shows_restarts_refuse_nobody(there)}")


def test_apt_s_upgrade_under_load_refuses_no_connection(
    there: Site, record_property: Callable[[str, object], None]
) -> None:
    machine = there.machine
    machine.run("sed -i 's/^version = .*/version = \"99.1\"/' /srv/franker/pyproject.toml")
    newer = machine.run("DPKG_DEB_COMPRESSOR_LEVEL=0 /srv/franker/packaging/deb").stdout.strip()
    started = "systemctl show --property=MainPID --value franker-proxy"
    process, old = machine.tell(started), machine.tell("readlink /opt/franker/current")
    load = Load(there)
    meanwhile = load.through(f"{INSTALL} {newer}", timeout=600)
    seen = load.end()
    record_property("figure", seen.figure("package: upgrade", meanwhile))
    assert meanwhile
    assert machine.tell(started) != process
    assert machine.tell("franker --version").endswith(" 99.1")
    assert old not in machine.tell("ls /opt/franker").split()
    there.all_arrived_once(seen.kept)


def test_cron_s_mail_arrives_also_when_everything_was_stopped(there: Site) -> None:
    uses.shows_cron_is_heard(there)
    uses.shows_cron_is_kept_while_all_is_stopped(there)


def test_removing_it_leaves_mail_and_configuration_and_nothing_else(
    there: Site, package: str, before: set[str]
) -> None:
    machine = there.machine
    machine.run("systemctl stop 'franker-worker@*'")
    raw(there, "left for later")
    machine.run(REMOVE, timeout=600)
    assert left_by(there, before) == NOTES
    assert before - files_of(there.folder) == set()
    machine.run(f"{INSTALL} {package}", timeout=600)
    there.arrived("left for later")
    assert machine.tell("systemctl is-enabled franker.target") == "enabled"


def test_purging_it_leaves_mail_alone(there: Site, before: set[str]) -> None:
    machine = there.machine
    machine.run("systemctl stop 'franker-worker@*'")
    raw(there, "left for ever")
    said = machine.run(PURGE, timeout=600)
    assert "mail is left in /var/lib/franker" in said.stdout + said.stderr
    assert left_by(there, before) == set()
    assert before - files_of(there.folder) == set()
    assert machine.tell("ls -d /etc/franker /var/spool/franker /var/lib/franker") == (
        "/var/lib/franker"
    )
