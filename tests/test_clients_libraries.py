"""Mail libraries of the languages that old programs are written in, against the real processes."""

import smtplib
import subprocess
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.clients import (
    CLIENTS,
    GERMAN_TEXT,
    PLAIN_TEXT,
    assert_arrived,
    assert_arrived_as_sent,
    missing,
    new_recipient,
    node_modules,
    program,
    run_client,
)
from tests.support.office import Office
from tests.support.tap import Tap

SENDER = "app@example.com"
TEXTS = pytest.mark.parametrize("text", [PLAIN_TEXT, GERMAN_TEXT], ids=["ascii", "umlauts"])
LIBRARIES = (
    ("nodemailer", [("node", "nodejs")], "nodemailer.js"),
    ("phpmailer", [("php", "php-cli")], "phpmailer.php"),
    ("ruby-mail", [("ruby", "ruby")], "mail.rb"),
    (
        "java-mail",
        [("java", "default-jdk-headless"), ("javac", "default-jdk-headless")],
        "JavaMail.java",
    ),
)


def command_for(name: str, programs: list[tuple[str, str]], script: str) -> list[str]:
    """Return how `script` is run, or skip for what is not there."""
    interpreter, *_ = [program(*each) for each in programs]
    command = [interpreter]
    if name == "phpmailer" and not Path("/usr/share/php/libphp-phpmailer").is_dir():
        missing("PHPMailer (Debian package libphp-phpmailer)")
    if name == "ruby-mail" and subprocess.run([interpreter, "-e", "require 'mail'"]).returncode:
        missing("Ruby's mail (Debian package ruby-mail)")
    if name == "java-mail":
        jars = [Path("/usr/share/java") / jar for jar in ("javax.mail.jar", "javax.activation.jar")]
        if not all(jar.exists() for jar in jars):
            missing("javax.mail (Debian package libmail-java)")
        command += ["-cp", ":".join(map(str, jars))]
    return [*command, str(CLIENTS / script)]


@TEXTS
@pytest.mark.parametrize(("name", "programs", "script"), LIBRARIES, ids=[x[0] for x in LIBRARIES])
def test_library(
    office: Office,
    tap: Tap,
    tmp_path: Path,
    name: str,
    programs: list[tuple[str, str]],
    script: str,
    text: str,
) -> None:
    to = new_recipient()
    command = command_for(name, programs, script)
    environ = {"NODE_PATH": node_modules()} if name == "nodemailer" else {}
    (tmp_path / "body").write_text(text, encoding="utf-8")
    run_client([*command, str(tap.port), SENDER, to, "body"], home=tmp_path, **environ)
    assert_arrived(tap.content, office.the_one_for(to).content, text)


@TEXTS
def test_perl_net_smtp(office: Office, tap: Tap, tmp_path: Path, text: str) -> None:
    to = new_recipient()
    (tmp_path / "mail").write_bytes(
        f"From: {SENDER}\nTo: {to}\nSubject: From Perl\nDate: Fri, 20 Nov 2026 09:43:01 +0000\n"
        "Message-ID: <2@app.example.com>\nMIME-Version: 1.0\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{text}".encode()
    )
    command = [program("perl"), CLIENTS / "netsmtp.pl", str(tap.port), SENDER, to, "mail"]
    output = run_client(command, home=tmp_path)
    arrived = office.the_one_for(to)
    assert f"Ok: queued as {arrived.franker_id}" in output
    assert_arrived(tap.content, arrived.content, text)


@TEXTS
def test_python_smtplib(office: Office, tap: Tap, text: str) -> None:
    to = new_recipient()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, to, "From Python"
    message.set_content(text)
    with smtplib.SMTP("127.0.0.1", tap.port) as client:
        assert client.send_message(message) == {}
    meant = text.replace("\nFrom ", "\n>From ")  # as the library has done since the days of mbox
    assert_arrived(tap.content, office.the_one_for(to).content, meant)


def test_python_smtplib_octets_with_every_printable_and_dots(office: Office, tap: Tap) -> None:
    to = new_recipient()
    printable = bytes(range(32, 127))
    lines = [b".", b"..", b". .", b"." + printable, printable * 9, b"", b"From ", b"\t", b" end "]
    sent = (
        (
            f"From: {SENDER}\r\nTo: {to}\r\nSubject: octets\r\n"
            "Date: Fri, 20 Nov 2026 09:43:01 +0000\r\nMessage-ID: <3@app.example.com>\r\n"
            "MIME-Version: 1.0\r\nX-Empty:\r\n\r\n"
        ).encode()
        + b"\r\n".join(lines)
        + b"\r\n"
    )
    with smtplib.SMTP("127.0.0.1", tap.port) as client:
        assert client.sendmail(SENDER, [to], sent) == {}
    assert tap.content == sent
    assert_arrived_as_sent(sent, office.the_one_for(to).content)


def test_python_smtplib_many_messages_on_one_connection(office: Office) -> None:
    recipients = [new_recipient() for _ in range(20)]
    with smtplib.SMTP("127.0.0.1", office.smtp_port) as client:
        for to in recipients:
            client.sendmail(SENDER, [to], f"From: {SENDER}\r\nTo: {to}\r\n\r\ntext {to}\r\n")
    for to in recipients:
        assert office.the_one_for(to).content.endswith(f"text {to}\r\n".encode())


def test_what_the_stand_in_takes_came_over_tls_and_is_marked(office: Office) -> None:
    to = new_recipient()
    with smtplib.SMTP("127.0.0.1", office.smtp_port) as client:
        client.sendmail(SENDER, [to], f"From: {SENDER}\r\nTo: {to}\r\n\r\ntext\r\n")
    arrived = office.the_one_for(to)
    assert arrived.tls.startswith("TLSv1.")
    assert b"\r\nX-PM-Message-Stream: outbound\r\n" in b"\r\n" + arrived.content
