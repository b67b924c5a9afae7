"""What the pages for operators tell root to type, typed on a Debian that has booted."""

import json
import re
import time
import tomllib

import pytest

from tests.boot.programs import raw
from tests.boot.site import Site
from tests.support.documents import BOOT, CONFIG, Block, blocks, the_block
from tests.support.processes import ROOT
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1200)]

DOCS = ROOT / "docs"
INSTALL, UPGRADE, RECIPES = DOCS / "install.md", DOCS / "upgrade.md", DOCS / "recipes.md"
BACKUP, MOVING = DOCS / "backup.md", DOCS / "moving.md"
TROUBLE = DOCS / "troubleshooting.md"
LAN = "10.20.0.5"


def typed(site: Site, text: str, *, stdin: bytes | None = None) -> str:
    """Have root type `text` in the checkout, each line only when the one before did not fail."""
    done = site.machine.run(f"cd /srv/franker\nset -e\n{text}", input=stdin, timeout=600)
    return done.stdout + done.stderr


def configure(site: Site, text: str) -> None:
    """Write the keys of `text` into franker.toml, in place of what is there."""
    file = site.folder / "etc/franker/franker.toml"
    there = file.read_text()
    for table, keys in re.findall(r"(?ms)^(\[+[\w.]+\]+)\n(.*?)(?=^\[|\Z)", text):
        names = tomllib.loads(f"[t]\n{keys}")["t"]
        if table.startswith("[[") or table not in there:
            there += f"\n{table}\n{keys}"
            continue
        for name in names:
            there = re.sub(rf"(?m)^{name} = .*\n", "", there)
        there = there.replace(f"{table}\n", f"{table}\n{keys}", 1)
    file.write_text(there)


@pytest.fixture(scope="module")
def host(site: Site) -> Site:
    """A host on which docs/install.md was followed from its beginning."""
    machine = site.machine
    typed(site, "\n".join(b.text for b in blocks(INSTALL) if b.name == "in the checkout"))
    token = the_block(INSTALL, BOOT, "the token on standard input")
    typed(site, token, stdin=f"{site.far_end.token}\n".encode())
    configure(site, the_block(INSTALL, CONFIG, "install"))
    with (site.folder / "etc/franker/franker.toml").open("a") as file:
        file.write(f'\n[postmark]\napi_url = "{site.far_end.web.url}"\n')
    typed(site, the_block(INSTALL, BOOT, "after that"))
    machine.run(f"ip address add {LAN}/24 dev lo && ip address add 10.20.0.17/24 dev lo")
    return site


def test_every_block_for_root_is_typed_here() -> None:
    names = {
        INSTALL: ["in the checkout", "the token on standard input", "after that",
                  "beside postfix", "the far end there", "", "at the end"],
        UPGRADE: ["in the checkout", "the far end there"],
        RECIPES: ["cron", "appliances", "several hosts"],
        MOVING: ["beside postfix"],
        BACKUP: ["", "", "restored", "another host"],
        TROUBLE: ["", "", ""],
    }  # fmt: skip
    for page in sorted(DOCS.glob("*.md")):
        marked = [block.name for block in blocks(page) if block.kind == BOOT]
        assert marked == names.get(page, []), page.name


def test_installed_as_told_it_works_and_says_so(host: Site) -> None:
    said = typed(host, the_block(INSTALL, BOOT, "the far end there"))
    assert re.search(r"(?m)^sent\b", said)
    host.arrived("Test by Franker")


def test_the_manual_pages_and_completion_lie_where_they_are_looked_for(host: Site) -> None:
    for file in ("man/man1/franker.1", "man/man5/franker.toml.5", "man/man8/franker-sendmail.8"):
        assert f".Dt {file.rpartition('/')[2].rpartition('.')[0].upper()}" in host.machine.tell(
            f"head --lines 4 /usr/local/share/{file}"
        )
    assert "complete -o nosort" in host.machine.tell(
        "cat /usr/local/share/bash-completion/completions/franker"
    )


def test_the_services_do_what_is_told(host: Site) -> None:
    said = typed(host, the_block(INSTALL, BOOT, ""))
    assert "franker-worker@2" in said
    assert host.machine.tell("systemctl is-active franker-proxy franker-worker@2") == (
        "active\ninactive"
    )
    raw(host, "after all that")
    host.arrived("after all that")


def test_the_upgrade_leaves_all_as_it_was(host: Site) -> None:
    host.machine.run("systemctl stop 'franker-worker@*'")
    raw(host, "over the upgrade")
    typed(host, the_block(UPGRADE, BOOT, "in the checkout"))
    said = typed(host, the_block(UPGRADE, BOOT, "the far end there"))
    assert "active\nactive" in said
    host.arrived("over the upgrade")


def test_the_looks_at_trouble_can_be_taken(host: Site) -> None:
    port, cron, service = [block.text for block in blocks(TROUBLE) if block.kind == BOOT]
    assert "127.0.0.1:25" in typed(host, port)
    host.machine.run(cron, check=False)  # grep fails where there is nothing to find
    assert "started process=proxy" in typed(host, service)


def test_cron_s_recipe(host: Site) -> None:
    configure(host, the_block(RECIPES, CONFIG, "cron"))
    host.machine.run("systemctl restart franker.target")
    host.machine.write("/etc/cron.d/report", the_block(RECIPES, BOOT, "cron"))
    arrived = host.until_any("Cron <root@legacy>", 130)
    host.machine.run("rm /etc/cron.d/report")
    assert arrived.recipients == ("reports@example.com",)
    assert arrived.tag == "cron"


def test_the_appliances_recipe_lets_in_whom_it_names_and_nobody_else(host: Site) -> None:
    configure(host, the_block(RECIPES, CONFIG, "appliances"))
    said = typed(host, the_block(RECIPES, BOOT, "appliances"))
    assert "appliances" in said
    client = (
        "python3 -c \"import smtplib; smtplib.SMTP('{lan}', 25, source_address=('{own}', 0), "
        "timeout=20).sendmail('scan@printer', ['a@example.net'], "
        "'From: scan@printer\\nSubject: scanned\\n\\nx\\n')\""
    )
    host.machine.run(client.format(lan=LAN, own="10.20.0.17"))
    assert host.arrived("scanned").tag == "appliance"
    done = host.machine.run(client.format(lan=LAN, own=LAN), check=False)
    assert "554" in done.stderr
    assert raw(host, "from this host still").startswith("250 ")


def marked(host: Site) -> int:
    """Return how far the processes of this host have noted that they saw its Redis."""
    files = (host.folder / "var/lib/franker/marks").glob("*.json")
    return max(int(tick) for file in files for tick, _ in json.loads(file.read_text()).values())


def test_a_backup_is_made_while_programs_go_on_and_comes_back(host: Site) -> None:
    machine = host.machine
    machine.run("systemctl stop 'franker-worker@*'")
    raw(host, "in the backup")
    backup, restore = [b for b in blocks(BACKUP) if (b.kind, b.name) == (BOOT, "")]
    stop, rest = backup.text.split("\n", 1)
    typed(host, stop)
    assert raw(host, "during the backup").startswith("250 ")
    typed(host, rest)
    host.arrived("in the backup")
    host.arrived("during the backup")
    names = machine.tell("tar --list --file=/var/backups/franker.tar.gz").splitlines()
    assert {"etc/franker/franker.toml", "etc/franker/secrets/postmark"} <= set(names)
    assert any(name.startswith("var/lib/franker/redis/") for name in names)
    assert not any("/journal" in name or "/marks" in name for name in names)
    # A backup that is younger than what the marks know cannot be told from the original.
    reached = int(machine.tell("redis-cli -s /var/lib/franker/redis.sock HGET franker:store tick"))
    wait_for(lambda: marked(host) > reached, 60, "marks newer than the backup")
    typed(host, restore.text)
    restored = Block(BOOT, "restored", "sh", the_block(BACKUP, BOOT, "restored"))
    said = typed(host, restored.text)
    assert "restored" in said
    assert len(host.all_with("in the backup")) == 1
    raw(host, "after the restore")
    host.arrived("after the restore")
    typed(host, "franker queue release restored")
    machine.until("franker queue list | grep -q 'Nothing is kept'")
    assert len(host.all_with("in the backup")) == 2  # what a person has to weigh


def test_a_backup_on_another_host_waits_for_a_person(host: Site) -> None:
    machine = host.machine
    machine.run("systemctl stop 'franker-worker@*'")
    raw(host, "from the old host")
    accepted = time.monotonic()
    machine.run("systemctl stop 'franker*'; rm -rf /var/lib/franker/marks")
    wait_for(lambda: time.monotonic() - accepted > 1.0, what="mail older than 1s")
    typed(host, the_block(BACKUP, BOOT, "another host"))
    raw(host, "new on this host")
    host.arrived("new on this host")
    assert not host.all_with("from the old host")
    typed(host, "franker queue release backup")
    host.arrived("from the old host")


def test_several_hosts_share_a_redis_by_the_recipe(host: Site) -> None:
    machine = host.machine
    server = the_block(RECIPES, "redis.conf", "")
    machine.write("/srv/redis.conf", f"{server}requirepass secret\nport 6390\ndaemonize yes\n")
    machine.run("mkdir -p /srv/redis && redis-server /srv/redis.conf --dir /srv/redis")
    machine.write("/etc/franker/secrets/redis", "secret\n", 0o600)
    shown = the_block(RECIPES, CONFIG, "several hosts")
    configure(host, shown.replace("rediss://redis.example.com:6379/0", "redis://127.0.0.1:6390/0"))
    typed(host, the_block(RECIPES, BOOT, "several hosts").replace("franker check", ""))
    assert machine.tell("systemctl is-active franker-redis franker-worker@1") == (
        "inactive\ninactive"
    )
    raw(host, "kept in the shared one")
    assert "1 message, " in machine.tell("franker queue list")
    machine.run("systemctl unmask franker-worker@1 && systemctl start franker-worker@1")
    host.arrived("kept in the shared one")


def test_taken_away_as_told_only_mail_and_configuration_stay(host: Site) -> None:
    typed(host, the_block(INSTALL, BOOT, "at the end"))
    found = host.machine.tell("find /etc /opt /usr /var/lib /var/spool -xdev -name '*franker*'")
    kept = ("/etc/franker", "/var/lib/franker", "/var/spool/franker", "/etc/systemd/system/")
    left = [name for name in found.splitlines() if not name.startswith(kept)]
    assert [name for name in left if "credentials" not in name] == []


def test_moving_from_postfix_as_told(site_with_postfix: Site) -> None:
    site = site_with_postfix
    said = typed(site, the_block(MOVING, BOOT, "beside postfix"))
    assert said == ""  # an empty queue
    typed(site, the_block(INSTALL, BOOT, "beside postfix"))
    site.give_token()
    assert raw(site, "moved").startswith("250 2.0.0 Ok: queued as ")
    site.arrived("moved")
