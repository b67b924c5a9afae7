"""What the one command says at a first installation, and what its opposite leaves behind."""

import pytest

from tests.boot.programs import KEPT, files_of, raw
from tests.boot.site import Site

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]

USERS = {"etc/group-", "etc/passwd-", "etc/shadow-", "etc/gshadow-"}  # copies that systemd makes


def test_without_a_token_all_runs_mail_is_kept_and_what_to_do_is_said(site: Site) -> None:
    before = files_of(site.folder)
    machine = site.machine
    home = machine.run("find /root").stdout
    said = machine.run(f"{site.installer} {site.wheel}", timeout=600).stdout
    assert "/etc/franker/secrets/postmark" in said
    assert "local.postmaster" in said
    assert "local.from" in said
    assert raw(site, "kept for later").startswith("250 ")
    assert "1 message, " in machine.tell("franker queue list")
    assert not site.all_with("kept for later")
    assert machine.tell("stat --format '%a %U' /etc/franker/secrets") == "700 root"

    machine.run(f"{site.installer} --uninstall")
    left = {path for path in files_of(site.folder) - before if not path.startswith(KEPT)}
    assert left - USERS == set()
    assert before - files_of(site.folder) == set()
    assert machine.run("find /root").stdout == home
    assert machine.tell("systemctl list-units --all --no-legend 'franker*'") == ""
    assert machine.tell("systemctl list-unit-files --no-legend 'franker*'") == ""

    machine.run(f"{site.installer} {site.wheel}", timeout=600)
    site.give_token()
    site.arrived("kept for later")
