"""Nothing that is said as an address, a name, a subject or a rule becomes a field or a command."""

import re
from typing import Any

import pytest

from proxy.config import ConfigError, load
from proxy.mail.envelope import Client
from proxy.mail.fields import parse
from proxy.submission import Policy, check_sender, resolve_recipient
from tests.support.listening import front
from tests.support.mail import LOCAL, accepted, envelope, fields, hand_in, policy
from tests.support.redis_server import RedisServer
from worker.smarthost.transaction import Transaction

BREAKS = {
    "CRLF": "\r\n", "LF": "\n", "CR": "\r", "NUL": "\0", "VT": "\x0b", "FF": "\x0c", "NEL": "\x85",
    "LS": "\u2028", "PS": "\u2029", "escaped CR": "\\\r\n", "fold": "\r\n ", "FS": "\x1c",
}  # fmt: skip
every_break = pytest.mark.parametrize("line_end", BREAKS.values(), ids=list(BREAKS))
RULE = {"name": "r", "sender": ["rule@*"], "from": "by-rule@example.com", "tag": "t"}
POLICY = policy(RULE, local=LOCAL)
FROM = "From: App <app@example.com>\n"


def names(content: bytes | str, given: Policy = POLICY, **of: Any) -> list[str]:
    """Return the names of all fields that go out, sorted, in lower case."""
    taken = accepted(content, given, envelope(**of))
    return sorted(name.decode().lower() for name, _ in parse(taken.job.body).fields)


PLAIN = names(FROM + "Subject: s\n\nx\n")
"""What an ordinary message goes out with."""


@every_break
@pytest.mark.parametrize(
    "form", ["a{}Bcc: evil@example.org{}@example.com", '"a{}Bcc: evil"@b.example']
)
def test_no_address_with_a_line_end_is_taken(form: str, line_end: str) -> None:
    address = form.format(line_end, line_end)
    assert check_sender(POLICY, address) is not None
    refused = resolve_recipient(POLICY, address)
    assert not isinstance(refused, tuple)
    assert re.fullmatch(r"[ -~]*", str(refused))
    with pytest.raises(ValueError, match="not an address"):
        Transaction("", (address,), b"x\r\n", _never)


@pytest.mark.parametrize(
    "address",
    [
        "a@example.com> NOTIFY=NEVER",
        '"x"@example.com> NOTIFY=NEVER',
        "a@example.com>\r\nRCPT TO:<evil@example.org",
        "<a@example.com",
        "a@example.com b@example.net",
        "a@example.com,b@example.net",
        "@relay.example:a@example.com",
        "a@[1.2.3.4]> SIZE=1",
        "a@exa mple.com",
        "",
    ],
)
def test_no_address_in_the_queue_becomes_a_parameter_or_a_command(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Transaction("app@example.com", ("b@example.net", address), b"x\r\n", _never)


async def _never() -> bool:
    return False


@every_break
@pytest.mark.parametrize("field", ["Subject", "From", "To", "Reply-To", "X-Other", "X-PM-Tag"])
def test_a_line_end_in_an_encoded_word_stays_text(field: str, line_end: str) -> None:
    hidden = "".join(f"={octet:02X}" for octet in f"x{line_end}Bcc: evil@example.org".encode())
    value = f"=?utf-8?q?{hidden}?= <app@example.com>"
    content = (FROM if field != "From" else "") + f"{field}: {value}\n\nx\n"
    for sender in ("app@example.com", "rule@example.com"):
        found = names(content, sender=sender)
        assert "bcc" not in found
        assert set(found) - set(PLAIN) <= {field.lower(), "reply-to", "x-pm-tag", "x-original-from"}


@every_break
def test_a_local_from_with_a_line_end_in_its_name_makes_no_field(line_end: str) -> None:
    hidden = "".join(f"={octet:02X}" for octet in f"x{line_end}Bcc: evil@example.org".encode())
    content = f"From: =?utf-8?q?{hidden}?= <root>\nSubject: s\n\nx\n"
    found = names(content, sender="root")
    assert set(found) - set(PLAIN) == {"x-original-from"}


@every_break
def test_a_raw_line_end_in_a_subject_ends_it_as_it_would_for_everybody(line_end: str) -> None:
    octets = f"Subject: x{line_end}Bcc: evil@example.org\r\n".encode()
    found = names(FROM.replace("\n", "\r\n").encode() + octets + b"\r\nx\r\n")
    # Where it is a line end the field behind it is one of the message's own, and Bcc goes.
    assert found == PLAIN


@every_break
def test_a_file_name_with_a_line_end_stays_a_parameter(line_end: str) -> None:
    hidden = "".join(f"%{octet:02X}" for octet in f"x{line_end}Bcc: evil@example.org".encode())
    content = (
        FROM + f"Content-Disposition: attachment; filename*=utf-8''{hidden}; x=\u00fc\n"
        f"Content-Type: text/plain; charset*=utf-8''{hidden}; boundary*=utf-8''{hidden}\n"
        "\nGr\u00fc\n"
    )
    found = names(content)
    assert set(found) - set(PLAIN) <= {
        "content-disposition", "content-type", "content-transfer-encoding",
    }  # fmt: skip


@every_break
@pytest.mark.parametrize(
    "key", ["name", "tag", "from", "owner", "set_headers", "metadata", "stream"]
)
def test_no_rule_with_a_line_end_is_taken(key: str, line_end: str, tmp_path: Any) -> None:
    text = f"x{line_end}Bcc: evil@example.org"
    values: dict[str, Any] = {"set_headers": {"X-Site": text}, "metadata": {"app": text}}
    written = values.get(key, text)
    escaped = "".join(f"\\U{ord(letter):08x}" for letter in text)
    shown = f'{{ "{next(iter(written))}" = "{escaped}" }}' if key in values else f'"{escaped}"'
    file = tmp_path / "franker.toml"
    file.write_text(f"[[rules]]\n{key} = {shown}\n")
    with pytest.raises(ConfigError) as error:
        load(file, {})
    assert all(line.isprintable() for line in str(error.value).split("\n"))


@pytest.mark.parametrize(
    "name", ["X-A: b\\r\\nBcc", "X A", "X:", "Bcc", "From", "X-PM-Tag", "Ж", ""]
)
def test_no_rule_sets_a_field_that_is_none_or_not_its_to_set(name: str, tmp_path: Any) -> None:
    file = tmp_path / "franker.toml"
    file.write_text(f'[[rules]]\nset_headers = {{ "{name}" = "x" }}\n')
    with pytest.raises(ConfigError):
        load(file, {})


@pytest.mark.parametrize(
    "client",
    [
        Client("10.1.2.3", "x?Bcc:evil", "ESMTP"),
        Client("10.1.2.3", "x\r\nBcc: evil@example.org", "ESMTP"),
        Client("10.1.2.3", "(x) by evil; ", "ESMTP"),
        Client("10.1.2.3", "x" * 1000, "ESMTPA", login="a\r\nBcc: evil@example.org"),
    ],
    ids=["colon", "line end", "comment", "login"],
)
def test_what_a_client_calls_itself_stays_one_word_of_received(client: Client) -> None:
    given = policy(RULE, local=LOCAL, host_names=("box.example\r\nBcc: evil@example.org",))
    for content in (FROM + "Subject: s\n\nx\n", "From: Root <root>\nSubject: s\n\nx\n"):
        taken = accepted(content, given, envelope(client=client))
        (received,) = fields(taken.job.body, "Received")
        assert re.fullmatch(
            r"from [\w.:\[\]?-]{1,64} \(10\.1\.2\.3\) by \S+ with ESMTPA? id \w+; [^;]+", received
        ), received
        found = {name.decode().lower() for name, _ in parse(taken.job.body).fields}
        assert found - set(PLAIN) <= {"x-original-from"}


@pytest.mark.parametrize("own", ["Bcc", "Resent-Bcc", "X-Postmark-Server-Token"])
@pytest.mark.parametrize(
    "way", ["{}: x@y.example", "{} : x@y.example", "{}\t:x", "X-A: a\n b\n{}: x"]
)
def test_what_only_the_envelope_or_the_rule_decides_goes_however_it_is_written(
    own: str, way: str
) -> None:
    for name in (own, own.upper(), own.lower()):
        taken = hand_in(FROM + way.format(name) + "\n\nx\n", POLICY)
        assert own.lower() not in str(taken).lower().replace("x-original", "")


async def test_a_greeting_with_line_ends_and_more_makes_no_field(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.say(b"EHLO x\x00\x0b\x1b[2J\xff\rBcc:evil@example.org (y) by z")
        dialog.send(b"MAIL FROM:<app@example.com>\r\nRCPT TO:<you@example.net>\r\nDATA\r\n")
        assert [(await dialog.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
        dialog.send(b"From: app@example.com\r\nSubject: s\r\n\r\nx\r\n.\r\n")
        assert (await dialog.reply()).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        found = {name.decode().lower() for name, _ in parse(kept.body).fields}
        assert found <= set(PLAIN)
        assert kept.body.partition(b"\r\n\r\n")[0].isascii()
