"""The same from a package: apt installs, upgrades and removes it."""

import pytest

from tests.boot.programs import KEPT, Load, files_of, package_of, raw
from tests.boot.site import Site
from tests.support.clients import body_text

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes"


@pytest.fixture(scope="module")
def package(site: Site) -> str:
    """A package that was made on the machine itself."""
    return package_of(site)


def test_apt_installs_it_and_mail_arrives_by_port_25_and_by_sendmail(
    site: Site, package: str
) -> None:
    machine = site.machine
    machine.write("/etc/aliases", "root: ops@example.com\n")
    said = machine.run(f"{INSTALL} {package}", timeout=600).stdout
    assert "/etc/franker/secrets/postmark" in said
    site.give_token()
    assert raw(site, "by the package").startswith("250 ")
    site.arrived("by the package")
    command = "printf 'Subject: by its sendmail\\n\\nwell\\n' | sendmail a@example.net"
    machine.run(command, user="daemon")
    assert body_text(site.arrived("by its sendmail").content) == "well\n"


def test_dpkg_knows_every_file_and_finds_none_changed(site: Site, package: str) -> None:
    machine = site.machine
    assert machine.run("dpkg --verify franker").stdout == ""
    own = set(machine.run("dpkg --listfiles franker").stdout.splitlines())
    there = set(machine.run("find /opt/franker").stdout.splitlines())
    assert there - own == set()


def test_verify_finds_nothing_in_the_package_s_units(site: Site, package: str) -> None:
    said = site.machine.run("systemd-analyze verify franker.target franker-proxy.socket")
    assert said.stdout + said.stderr == ""


def test_it_starts_at_boot_and_sends_what_was_queued(site: Site, package: str) -> None:
    site.machine.run("systemctl stop 'franker-worker@*'")
    raw(site, "over a boot")
    site.machine.reboot()
    site.arrived("over a boot")


def test_apt_s_upgrade_under_load_refuses_no_connection(site: Site, package: str) -> None:
    started = "systemctl show --property=MainPID --value franker-proxy"
    before = site.machine.tell(started)
    load = Load(site)
    site.machine.run(f"{INSTALL} --reinstall {package}", timeout=600)
    seen = load.end()
    assert site.machine.tell(started) != before
    assert seen.refused == 0
    site.all_arrived_once(seen.kept)


def test_removing_it_leaves_mail_and_configuration(site: Site, package: str) -> None:
    machine = site.machine
    machine.run("systemctl stop 'franker-worker@*'")
    raw(site, "left for later")
    machine.run("apt-get remove --quiet --yes franker", timeout=600)
    left = {path for path in files_of(site.folder) if "franker" in path}
    assert {path for path in left if not path.startswith(KEPT)} <= {
        "var/lib/dpkg/info/franker.list",
        "var/lib/dpkg/info/franker.postrm",
        "var/lib/apt/extended_states",
    }
    machine.run(f"{INSTALL} {package}", timeout=600)
    site.arrived("left for later")
    assert machine.tell("systemctl is-enabled franker.target") == "enabled"
