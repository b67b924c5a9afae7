"""What is read back from a disk, a file or the environment: jobs, the configuration, log lines."""

import contextlib
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from proxy.config import ConfigError, Settings, load
from proxy.log.lines import as_json, kv, quoted
from proxy.mail.ids import accepted_ms
from proxy.queue.job import JobDecodeError, JobEnvelope, decode_envelope, encode_envelope
from proxy.queue.journal.record import Record, pack_record, read_records, unpack_header
from tests.fuzz.target import Choices, Target
from worker.outcomes.findings import AnswerError, conclude, message, names_us, refusal, rows

JSON = (
    b'{"v":1,"f":"a@b.example","to":["c@d.example"],"at":1.5}', b'{"v":1', b"}", b"{", b"[", b"]",
    b",", b":", b'"', b"null", b"true", b"1e999", b"-1", b"NaN", b'"re":{', b'"to":', b'"f":',
    b'"at":', b'"n":', b'"try":', b'"age":', b'"exp":', b'"was":{', b'"ntf":', b'"rp":', b"\\ud800",
    b"[" * 900, b"9" * 400, b"\xff", b"\xed\xa0\x80", b'"own":', b"\xffto\xfe", b"\xffexp\xfe",
    b"\xffre\xfe", b"\xffwas\xfe{}", b"\xffn\xfe1", b"\xffntf\xfefalse", b'["a"]', b'{"a":"b"}',
)  # fmt: skip


def built(octets: bytes) -> dict[str, Any]:
    """Return a JSON object of keys and values, of which chance would never make a whole one."""
    table: dict[str, Any] = {}
    for part in octets.split(b"\xff"):
        key, _, value = part.partition(b"\xfe")
        text = value.decode("utf-8", "replace")
        try:
            table[key.decode("utf-8", "replace")] = json.loads(text)
        except (ValueError, RecursionError):
            table[key.decode("utf-8", "replace")] = text
    return table


def check_job(octets: bytes) -> None:
    """An envelope with the types it says, the same when written again, or one plain error."""
    if octets[:1] == b"\xff":
        whole = {"v": 1, "f": "a@b.example", "to": ["c@d.example"], "at": 1.5}
        octets = json.dumps(whole | built(octets[1:])).encode()
    with contextlib.suppress(ValueError):
        accepted_ms(octets.decode("utf-8", "replace"))
    try:
        envelope = decode_envelope(octets)
    except JobDecodeError:
        return
    check_types(envelope)
    assert decode_envelope(encode_envelope(envelope)) == envelope


def check_types(envelope: JobEnvelope) -> None:
    """What the worker relies on."""
    for text in (envelope.mail_from, envelope.reverse_path, envelope.rule, envelope.client):
        assert isinstance(text, str)
    assert isinstance(envelope.owner, str)
    assert all(isinstance(one, str) for one in envelope.recipients)
    for number in (envelope.accepted_at, envelope.waited, envelope.expires_at or 0.0):
        assert isinstance(number, int | float)
        assert number - number == 0, "neither infinite nor no number"
    for count in (envelope.attempts, envelope.dead):
        assert isinstance(count, int)
    assert isinstance(envelope.notify, bool)
    for words in (envelope.replies, envelope.replaced):
        assert all(isinstance(one, str) for pair in words.items() for one in pair)


FILES = (
    b"[listen]\n", b"[streams.outbound]\n", b"[[rules]]\n", b"[local]\n", b"[redis]\n",
    b"[postmark]\n", b"[retry]\n", b"[journal]\n", b"[dead]\n", b"[notify]\n", b"[log]\n",
    b"[worker]\n", b"smtp = ", b"token = ", b'{ env = "X" }', b'{ file = "/x" }', b'"10MB"',
    b'"30s"', b"[", b"]", b"{", b"}", b'"', b"'", b"\n", b"#", b" = ", b"[]", b'["127.0.0.1:25"]',
    b"allow = ", b'"127.0.0.0/8"', b"0", b"-1", b"1e400", b"nan", b"true", b"2026-11-20",
    b"name = ", b"sender = ", b"set_headers = ", b'{ "X-Site" = "a" }', b"metadata = ", b"tag = ",
    b"charset = ", b'"utf-8"', b"url = ", b"ports = ", b'"redis://x"', b"[587]", b"from = ",
    b'"a@example.com"', b"\\u0000", b"\\r\\n", b"\xff", b"\xef\xbb\xbf", b"aliases = ",
    b"kind = ", b'"broadcast"', b"\x00", b"FRANKER_LISTEN__SMTP", b"FRANKER_RULES", b"FRANKER_X",
    b"data_dir = ", b"expires = ", b"client = ", b"verified = ", b"[[", b"]]",
)  # fmt: skip
_FOREIGN = ("Input should", "pydantic", "validation error", "Value error", "Traceback")


@functools.cache
def _file() -> Path:
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=folder)) / "franker.toml"


def check_configuration(octets: bytes) -> None:
    """Settings, or faults in plain words: from a file, and from the environment over it."""
    file, _, environment = octets.partition(b"\xff\xff")
    environ = {}
    for line in environment.replace(b"\0", b"").split(b"\n")[:4]:
        name, _, value = line.partition(b"=")
        key = name.decode("utf-8", "surrogateescape")
        environ[key] = value.decode("utf-8", "surrogateescape")
    environ.pop("FRANKER_CONFIG", None)
    _file().write_bytes(file)
    try:
        loaded = load(_file(), environ)
    except ConfigError as error:
        text = str(error)
        assert not any(word in text for word in _FOREIGN)
        assert all(line.isprintable() for line in text.split("\n"))
        return
    assert isinstance(loaded.settings, Settings)
    assert "outbound" in loaded.settings.streams
    assert all(rule.stream in loaded.settings.streams for rule in loaded.settings.rules)


LOGGED = (
    b"\n", b"\r", b"\x1b[2J", b'"', b"\\", b"=", b" ", b"kept id=", b"\xff",
    "\u202e\u2028".encode(), b"a@b.example", b"\0", b"\x7f", b"\x85", b"<", b"@",
)  # fmt: skip


def check_log_line(octets: bytes) -> None:
    """One event is one line, whatever is in it; JSON reads back as what was meant."""
    text = octets.decode("utf-8", ("surrogateescape", "replace")[Choices(octets).number(2)])
    fields = {"id": "x", "from": text, "to": (text, text), "n": 1, "s": 0.5, "b": True}
    line = kv("T", "kept", fields)
    assert line.isprintable()
    assert line.startswith("T kept id=x from=")
    value = quoted(text)
    assert " " not in value or (value[0] == value[-1] == '"' and len(value) > 1)
    shown = as_json("T", "kept", fields)
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown)["from"] == text


_MARK = b"\x00mark\xfe\x01\x02"
FRAMES = (
    _MARK, _MARK[:5], b"\0" * 8, b"\xff" * 12, b"franker journal 1\n", b"outbound", b'{"v":1}',
    b"".join(pack_record(_MARK, 1, Record(1, "id", "outbound", b"{}", b"body"))),
    b"".join(pack_record(_MARK, 2, Record(2, "id", "s", b"{}", b"no mark"))), b"\0\0\0\1",
)  # fmt: skip


def check_journal(octets: bytes) -> None:
    """Damage costs what is damaged: all other records are read, once, in order, unchanged."""
    unpack_header(octets)
    choices = Choices(octets)
    before, after = choices.number(4), choices.number(4)
    chunk, damage = 1 + choices.number(5), choices.rest()
    written = [
        Record(number, f"id{number}", "outbound", b"{}", bytes([number]) * number)
        for number in range(1, before + after + 1)
    ]
    frames = [b"".join(pack_record(_MARK, one.number, one)) for one in written]
    file = b"".join((*frames[:before], damage, *frames[before:]))
    found = read_journal(file, chunk)
    assert all(one in found for one in written)
    if _MARK not in damage:
        assert found == written
    # The same file, torn at any place: nothing that was whole is lost or changed.
    torn = file[: len(file) - choices.number(60)]
    assert read_journal(torn, chunk) == found[: len(read_journal(torn, chunk))]


def read_journal(octets: bytes, most: int) -> list[Record]:
    """Return all records that a file without its header holds."""
    found: list[Record] = []
    at = 0
    while at < len(octets):
        window = read_records(lambda p, n: octets[p : p + n], _MARK, at, len(octets), most, 100)
        found += window.records
        if window.torn:
            break
        assert window.next > at
        at = window.next
    return found


ANSWERS = (
    *JSON, b'{"Messages":[', b'{"Bounces":[', b'"MessageID":', b'"Recipients":["a@b.example"]',
    b'"To":[{"Email":"a@b.example"}]', b'"Metadata":{"franker-id":"x"}', b"]}", b'"Email":',
    b'"Details":"error code 406"', b'"Type":"SMTPApiError"', b'"Description":', b"error code: 9",
    b'{"MessageID":"1","Recipients":["a@b.example"],"Metadata":{"franker-id":"x"}}',
    b'{"MessageID":"1","Email":"a@b.example","Details":"error code 406"}',
    b"\xfd", b"\xff", b"\xfe", b"\xffMessageID\xfex", b"\xffRecipients\xfe", b'["a@b.example"]',
    b"\xffTo\xfe", b'[{"Email":"c@d.example"}]', b"\xffEmail\xfea@b.example", b"\xffDetails\xfe",
    b"error code: " + b"9" * 5000, b"\xffMetadata\xfe", b'{"franker-id":"x"}', b"\xffType\xfe",
)  # fmt: skip


def check_answer(octets: bytes) -> None:
    """Whatever the API answers: a finding about those asked for, or one plain error."""
    try:
        answer = json.loads(octets)
    except (ValueError, RecursionError):
        found = [built(part) for part in octets.split(b"\xfd")]
        answer = {"Messages": found, "Bounces": found}
    asked = ("a@b.example", "c@d.example")
    for name in ("Messages", "Bounces"):
        with contextlib.suppress(AnswerError):
            listed = rows(answer, name)
            refused = [one for row in listed if (one := refusal(row))]
            found = []
            for row in listed:
                named = names_us(row, "x")
                assert named in (True, False, None)
                with contextlib.suppress(AnswerError):
                    found.append(message(row))
            finding = conclude(asked, asked, found, refused)
            told = [*finding.sent, *finding.dead, *finding.absent]
            assert len(told) == len(set(told)), "one word about each recipient"
            assert set(told) <= set(asked)


TARGETS = (
    Target("journal", check_journal, FRAMES, 20),
    Target("answers", check_answer, ANSWERS, 60),
    Target("job", check_job, JSON, 90),
    Target("log-line", check_log_line, LOGGED, 60),
    Target("configuration", check_configuration, FILES, 8),
)
