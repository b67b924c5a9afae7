"""Programs that know sendmail by its name and options, with `franker-sendmail` in its place."""

import shutil
import subprocess

import pytest

from tests.sendmail.host import needs_users
from tests.support.office import Office
from tests.support.sendmail import Sendmail

pytestmark = needs_users


def call(sendmail: Sendmail, *command: str, text: str = "one\n.\ntwo\n") -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    environ = sendmail.environ({"HOME": str(sendmail.folder)})
    done = subprocess.run(
        command, input=text, text=True, capture_output=True, env=environ, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def arrived(host: Office, name: str) -> bytes:
    """Return what came for the hidden recipient of `name`; fail if it shows who that is."""
    one = host.the_one_for(f"{name}-hidden@example.net")
    assert set(one.recipients) == {f"{name}@example.net", f"{name}-hidden@example.net"}
    assert b"hidden" not in one.content
    return one.content


def test_mutt(host: Office, sendmail: Sendmail) -> None:
    program = sendmail.command()[0]
    settings = (f"set sendmail='{program} -oem -oi'", "set copy=no", "set from=app@example.com")
    said = [word for setting in settings for word in ("-e", setting)]
    hidden = ("-b", "mutt-hidden@example.net")
    call(sendmail, "mutt", "-n", "-F", "/dev/null", *said, *hidden, "-s", "x", "mutt@example.net")
    assert arrived(host, "mutt").endswith(b"\r\n\r\none\r\n.\r\ntwo\r\n")


def test_s_nail(host: Office, sendmail: Sendmail) -> None:
    said = ("-S", f"mta={sendmail.command()[0]}", "-S", "from=app@example.com")
    hidden = ("-b", "nail-hidden@example.net")
    call(sendmail, "s-nail", "-:/", *said, "-s", "x", *hidden, "nail@example.net", text="one\n")
    assert arrived(host, "nail").endswith(b"\r\n\r\none\r\n")


def test_phps_mail(host: Office, sendmail: Sendmail) -> None:
    program = (
        'exit(mail("php@example.net", "x", "one\\n.\\ntwo", '
        '"From: app@example.com\\r\\nBcc: php-hidden@example.net", "-fme@example.com") ? 0 : 1);'
    )
    path = f"sendmail_path={sendmail.command()[0]} -t -i"
    call(sendmail, "php", "-d", path, "-r", program)
    assert arrived(host, "php").endswith(b"\r\n\r\none\r\n.\r\ntwo\r\n")
