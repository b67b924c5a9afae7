"""The recipes, as they stand on their pages, against real Franker processes."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import body_text, parsed, program, run_client
from tests.support.documents import MSMTP, REDIS, RUN, blocks, the_block
from tests.support.far_end import background_far_end
from tests.support.office import Arrived, Office
from tests.support.processes import ROOT, Installation
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.sendmail import Sendmail

RECIPES = ROOT / "docs/recipes.md"
MOVING = ROOT / "docs/moving.md"
TO = "office@example.net"


@pytest.fixture(scope="module")
def host() -> Iterator[Office]:
    """Everything at work for this file alone: all recipes send to one address."""
    folder = new_data_dir()
    with background_far_end() as far_end:
        office = Office(folder, far_end)
        yield office
        office.close()
    remove_data_dir(folder)


@pytest.fixture(scope="module")
def sendmail(host: Office, tmp_path_factory: pytest.TempPathFactory) -> Sendmail:
    """The program that stands for /usr/sbin/sendmail."""
    folder = tmp_path_factory.mktemp("sendmail")
    return Sendmail(folder, host.installation.data_dir / "drop")


def run_recipe(name: str, folder: Path, host: Office, sendmail: Sendmail) -> Arrived:
    """Write the program `name` as the page has it, run what the page says, return what arrived.

    Only the port and the place of sendmail are this test's own.
    """
    sources = [one for one in blocks(RECIPES) if (one.kind, one.name) == (RUN, name)]
    text = next((one.text for one in sources if one.language != "sh"), "")
    if text:
        text = text.replace('"25"', f'"{host.smtp_port}"').replace("/usr/sbin/", "./")
        (folder / name).write_text(text)
    else:
        shutil.copy(ROOT / "tests/data/clients" / name, folder)
    (folder / "sendmail").symlink_to(sendmail.folder / "sendmail")
    (folder / "test.ini").write_text(f'sendmail_path = "{folder}/sendmail -t -i"\n')
    command = the_block(RECIPES, RUN, name, "sh").replace(" 25 ", f" {host.smtp_port} ")
    before = len(host.taken_for(TO))
    run_client(
        ["/bin/sh", "-ec", command],
        home=folder,
        PHP_INI_SCAN_DIR=f":{folder}",
        FRANKER_DROP__FOLDER=str(sendmail.drop),
    )
    host.wait_idle()
    arrived = host.taken_for(TO)[before:]
    assert len(arrived) == 1
    return arrived[0]


@pytest.mark.parametrize(
    ("name", "needed", "subject"),
    [
        ("REPORT.cob", "cobc", "SETTLEMENT RUN"),
        ("MAILER.cob", "cobc", "SETTLEMENT RUN"),
        ("report.php", "php", "Settlement run"),
        ("Report.java", "javac", "Settlement run"),
    ],
)
def test_the_recipe_sends_its_letter(
    host: Office, sendmail: Sendmail, tmp_path: Path, name: str, needed: str, subject: str
) -> None:
    program(needed)
    message = run_recipe(name, tmp_path, host, sendmail)
    assert parsed(message.content)["Subject"] == subject
    assert parsed(message.content)["From"].addresses[0].addr_spec == "batch@example.com"
    assert re.search(r"RECORDS READ +0000142|142 records read\.", body_text(message.content))


def test_every_recipe_is_run() -> None:
    names = {block.name for block in blocks(RECIPES) if block.kind == RUN}
    assert names == {"REPORT.cob", "MAILER.cob", "report.php", "Report.java"}


def test_a_cobol_program_whose_letter_is_not_kept_knows_it(
    sendmail: Sendmail, tmp_path: Path
) -> None:
    text = the_block(RECIPES, RUN, "REPORT.cob", "cobol")
    (tmp_path / "REPORT.cob").write_text(text.replace("/usr/sbin/sendmail", "/bin/false"))
    command = the_block(RECIPES, RUN, "REPORT.cob", "sh")
    program("cobc")
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "THE LETTER WAS NOT KEPT" in done.stdout


def test_msmtp_hands_over_with_the_settings_that_are_shown(host: Office, tmp_path: Path) -> None:
    text = the_block(MOVING, MSMTP, "")
    file = tmp_path / ".msmtprc"
    file.write_text(text.replace("port 25\n", f"port {host.smtp_port}\n"))
    letter = b"From: app@example.com\nTo: moved@example.net\nSubject: by msmtp\n\nx\n"
    run_client([program("msmtp"), "-t"], stdin=letter, home=tmp_path, USER="batch")
    assert parsed(host.the_one_for("moved@example.net").content)["Subject"] == "by msmtp"


def test_a_redis_with_the_settings_that_are_shown_is_durable(tmp_path: Path) -> None:
    folder = new_data_dir()
    (folder / "redis.conf").write_text(the_block(RECIPES, REDIS, ""))
    arguments = ["--dir", str(folder), "--unixsocket", str(folder / "r.sock"), "--port", "0"]
    command = [program("redis-server"), str(folder / "redis.conf"), *arguments]
    there = Installation(tmp_path, {"redis": {"url": f"unix://{folder}/r.sock"}})
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            there.start("proxy").wait_for(" store_durable")
        finally:
            there.close()
            server.terminate()
    remove_data_dir(folder)


def in_tables(text: str) -> list[tuple[str, str]]:
    """Return every `name (value)` of the tables' first columns, value "" where there is none."""
    cells = re.findall(r"(?m)^\| (`.+?) \|", text)
    return [found for cell in cells for found in re.findall(r"`([^`]+)`(?: \(([^):]+))?", cell)]


def test_every_postfix_setting_named_is_one_with_that_default() -> None:
    part = MOVING.read_text(encoding="utf-8").partition("| main.cf |")[2]
    part = part.partition("| command |")[0]
    said = subprocess.run(
        [program("postconf", "postfix"), "-d"], capture_output=True, text=True, check=False
    ).stdout
    known = dict(re.findall(r"(?m)^(\w+) = ?(.*)$", said))
    named = in_tables(part)
    assert len(named) > 50
    for setting, default in named:
        name = setting.partition(" = ")[0]
        assert name in known, name
        if default:
            value = known[name]
            while (inner := re.fullmatch(r"\$(\w+)", value)) is not None:
                value = known[inner[1]]
            assert default.replace(",", "") == value, name


def test_every_msmtp_setting_named_is_one(tmp_path: Path) -> None:
    part = MOVING.read_text(encoding="utf-8").partition("| msmtprc |")[2]
    given = {
        "host": "localhost", "port": "25", "user": "u", "password": "p", "passwordeval": "true",
        "from": "a@example.com", "domain": "localhost", "timeout": "5", "logfile": "/dev/null",
        "tls_trust_file": "system", "tls_fingerprint": "", "proxy_host": "127.0.0.1",
        "source_ip": "127.0.0.1", "account": "other",
    }  # fmt: skip
    names = [name for name, _ in in_tables(part)]
    assert len(names) > 20
    for name in names:
        word, _, value = name.partition(" ")
        line = f"{word} {value or given.get(word, 'on')}"
        first = "" if word == "account" else "account default\n"
        (tmp_path / "rc").write_text(f"{first}{line}\nhost localhost\n")
        (tmp_path / "rc").chmod(0o600)
        account = line.split()[1] if word == "account" else "default"
        done = subprocess.run(
            [program("msmtp"), "-C", tmp_path / "rc", "-a", account, "-P", "a@example.net"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "unknown command" not in done.stderr, name
        assert done.returncode == 0, f"{name}: {done.stderr}"
