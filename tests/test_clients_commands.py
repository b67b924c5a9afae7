"""Mail programs of the command line, unchanged, against the real processes."""

import re
from pathlib import Path

import pytest

from tests.support.clients import (
    GERMAN_TEXT,
    PLAIN_TEXT,
    assert_arrived,
    assert_arrived_as_sent,
    new_recipient,
    program,
    run_client,
)
from tests.support.office import Office
from tests.support.tap import Tap
from tests.support.waiting import wait_for

SENDER = "app@example.com"
TEXTS = pytest.mark.parametrize("text", [PLAIN_TEXT, GERMAN_TEXT], ids=["ascii", "umlauts"])


def message(recipient: str, text: str) -> bytes:
    """A complete message with line ends as a Unix program writes them."""
    return (
        f"From: App <{SENDER}>\nTo: {recipient}\nSubject: Report\n"
        "Date: Fri, 20 Nov 2026 09:43:01 +0000\nMessage-ID: <1@app.example.com>\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: 8bit\nX-Folded: one\n\ttwo\n  three\n\n"
        f"{text}"
    ).encode()


@TEXTS
def test_curl_uploads_a_file(office: Office, tap: Tap, tmp_path: Path, text: str) -> None:
    to = new_recipient()
    (tmp_path / "mail").write_bytes(message(to, text))
    run_client(
        [
            program("curl"),
            "-sS",
            f"smtp://127.0.0.1:{tap.port}",
            "--mail-from",
            SENDER,
            "--mail-rcpt",
            to,
            "-T",
            "mail",
            "--crlf",
        ],
        home=tmp_path,
    )
    assert_arrived(tap.content, office.the_one_for(to).content, text)


def test_curl_without_crlf_has_its_bare_line_feeds_mended(
    office: Office, tap: Tap, tmp_path: Path
) -> None:
    to = new_recipient()
    (tmp_path / "mail").write_bytes(message(to, "one\ntwo\n"))
    run_client(
        [
            program("curl"),
            "-sS",
            f"smtp://127.0.0.1:{tap.port}",
            "--mail-from",
            SENDER,
            "--mail-rcpt",
            to,
            "-T",
            "mail",
        ],
        home=tmp_path,
    )
    assert_arrived_as_sent(tap.content, office.the_one_for(to).content)


@TEXTS
def test_swaks(office: Office, tap: Tap, tmp_path: Path, text: str) -> None:
    to = new_recipient()
    (tmp_path / "mail").write_bytes(message(to, text))
    output = run_client(
        [
            program("swaks"),
            "--server",
            f"127.0.0.1:{tap.port}",
            "--from",
            SENDER,
            "--to",
            to,
            "--data",
            "@mail",
        ],
        home=tmp_path,
    )
    arrived = office.the_one_for(to)
    assert re.search(rf"250 2\.0\.0 Ok: queued as {arrived.franker_id}\b", output)
    assert_arrived(tap.content, arrived.content, text)


def test_swaks_with_its_own_message(office: Office, tap: Tap, tmp_path: Path) -> None:
    to = new_recipient()
    run_client(
        [program("swaks"), "--server", f"127.0.0.1:{tap.port}", "--from", SENDER, "--to", to],
        home=tmp_path,
    )
    assert_arrived_as_sent(tap.content, office.the_one_for(to).content)


@TEXTS
def test_msmtp(office: Office, tap: Tap, tmp_path: Path, text: str) -> None:
    to = new_recipient()
    run_client(
        [
            program("msmtp"),
            "--host=127.0.0.1",
            f"--port={tap.port}",
            "--auth=off",
            "--tls=off",
            f"--from={SENDER}",
            to,
        ],
        stdin=message(to, text),
        home=tmp_path,
    )
    assert_arrived(tap.content, office.the_one_for(to).content, text)


def test_msmtp_reads_the_recipients_and_removes_the_blind_ones(
    office: Office, tap: Tap, tmp_path: Path
) -> None:
    to, blind = new_recipient(), new_recipient()
    run_client(
        [program("msmtp"), "--host=127.0.0.1", f"--port={tap.port}", f"--from={SENDER}", "-t"],
        stdin=f"Bcc: {blind}\n".encode() + message(to, "text\n"),
        home=tmp_path,
    )
    arrived = office.the_one_for(to)
    assert set(arrived.recipients) == {to, blind}
    assert blind.encode() not in arrived.content


def test_smtp_source_one_message(office: Office, tap: Tap, tmp_path: Path) -> None:
    to = new_recipient()
    run_client(
        [
            program("smtp-source", "postfix"),
            "-s",
            "1",
            "-m",
            "1",
            "-l",
            "5120",
            "-f",
            SENDER,
            "-t",
            to,
            f"127.0.0.1:{tap.port}",
        ],
        home=tmp_path,
    )
    assert_arrived_as_sent(tap.content, office.the_one_for(to).content)


def test_smtp_source_many_at_once_each_arrives_once(office: Office, tmp_path: Path) -> None:
    to = new_recipient()
    run_client(
        [
            program("smtp-source", "postfix"),
            "-s",
            "10",
            "-m",
            "200",
            "-l",
            "5120",
            "-f",
            SENDER,
            "-t",
            to,
            f"127.0.0.1:{office.smtp_port}",
        ],
        home=tmp_path,
    )
    wait_for(lambda: len(office.taken_for(to)) >= 200, what="200 messages taken")
    office.wait_idle()
    assert len(office.taken_for(to)) == 200
    assert len({one.franker_id for one in office.taken_for(to)}) == 200


@TEXTS
def test_s_nail(office: Office, tap: Tap, tmp_path: Path, text: str) -> None:
    to = new_recipient()
    run_client(
        [
            program("s-nail"),
            "-n",
            "-S",
            "v15-compat=yes",
            "-S",
            "smtp-auth=none",
            "-S",
            f"mta=smtp://127.0.0.1:{tap.port}",
            "-S",
            "sendwait",
            "-r",
            SENDER,
            "-s",
            "Report",
            to,
        ],
        stdin=text.encode(),
        home=tmp_path,
    )
    assert_arrived(tap.content, office.the_one_for(to).content, text)


@TEXTS
def test_mutt(office: Office, tap: Tap, tmp_path: Path, text: str) -> None:
    to = new_recipient()
    (tmp_path / "muttrc").write_text(
        f'set smtp_url="smtp://127.0.0.1:{tap.port}"\nset from="{SENDER}"\n'
        "set ssl_starttls=no ssl_force_tls=no copy=no use_8bitmime=yes\n"
    )
    run_client(
        [program("mutt"), "-n", "-F", "muttrc", "-s", "Report", to],
        stdin=text.encode(),
        home=tmp_path,
    )
    assert_arrived(tap.content, office.the_one_for(to).content, text)


def test_mutt_with_an_attachment(office: Office, tap: Tap, tmp_path: Path) -> None:
    to = new_recipient()
    (tmp_path / "muttrc").write_text(
        f'set smtp_url="smtp://127.0.0.1:{tap.port}"\nset from="{SENDER}"\n'
        "set ssl_starttls=no ssl_force_tls=no copy=no\n"
    )
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 40)
    run_client(
        [program("mutt"), "-n", "-F", "muttrc", "-s", "Data", "-a", "data.bin", "--", to],
        stdin=b"see file\n",
        home=tmp_path,
    )
    assert_arrived_as_sent(tap.content, office.the_one_for(to).content)
