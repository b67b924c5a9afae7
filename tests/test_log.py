"""Every event is one line, whatever stands in it."""

import json
import logging
import os
import re
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import log
from proxy.config.model import Log
from proxy.log import events, reloads, writer
from proxy.log.lines import Clock, as_json, domain_only, domains_only, kv, quoted

ID = "01m7abcdefghjkmnpqrstvwxyz"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Lines = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(writer, "_state", writer._State())
    root = logging.getLogger()
    before = list(root.handlers)
    log.setup(Log())
    yield
    root.handlers[:] = before
    logging.captureWarnings(capture=False)


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    """Return the lines written so far, each without its time stamp."""

    def read() -> list[str]:
        text = capfd.readouterr().err
        assert text.endswith("\n") or not text
        found = []
        for line in text.splitlines():
            stamp, _, rest = line.partition(" ")
            assert STAMP.fullmatch(stamp)
            found.append(rest)
        return found

    return read


@pytest.fixture
def objects(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    log.setup(Log(format="json"))
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def keep(**other: Any) -> None:
    log.kept(
        ID,
        **{
            "stream": "outbound",
            "rule": "",
            "reverse_path": "app@shop.example",
            "recipients": ("bob@example.com",),
            "size": 5120,
            "client": "127.0.0.1",
            "seconds": 0.0041,
            **other,
        },
    )


# What a newcomer sees.


def test_a_message_tells_its_story_in_lines_with_its_id(lines: Lines) -> None:
    keep(repairs=("line_ends", "date"))
    log.attempt(
        ID,
        stream="outbound",
        host="smtp.example",
        port=587,
        recipients=["bob@example.com"],
        detail="452 4.5.3 Later",
    )
    log.deferred(
        ID,
        stream="outbound",
        recipients=("bob@example.com",),
        reply="450 4.2.0 Try again",
        attempts=1,
        delay=31.5,
    )
    log.sent(
        ID,
        stream="outbound",
        recipients=("bob@example.com",),
        reply="250 2.0.0 Ok",
        host="smtp.example",
        port=587,
        seconds=31.7,
    )
    log.dead(ID, stream="outbound", recipients=("c@example.com",), reply="550 5.1.1 No such user")
    log.unknown(ID, stream="outbound", recipients=("d@example.com",), detail="connection lost")
    log.returned(ID, stream="outbound", detail="worker stops")
    log.discarded(ID, by="hand", reverse_path="", recipients=("bob@example.com",))
    assert lines() == [
        (
            f"kept id={ID} stream=outbound rule=- from=app@shop.example to=bob@example.com "
            "size=5120 client=127.0.0.1 seconds=0.004"
        ),
        f"repaired id={ID} kinds=line_ends,date",
        (
            f"attempt id={ID} stream=outbound to=bob@example.com host=smtp.example port=587 "
            'detail="452 4.5.3 Later"'
        ),
        (
            f'deferred id={ID} stream=outbound to=bob@example.com reply="450 4.2.0 Try again" '
            "attempts=1 retry_in=31.500"
        ),
        (
            f'sent id={ID} stream=outbound to=bob@example.com reply="250 2.0.0 Ok" '
            "host=smtp.example port=587 seconds=31.700"
        ),
        f'dead id={ID} stream=outbound to=c@example.com reply="550 5.1.1 No such user"',
        f'unknown id={ID} stream=outbound to=d@example.com detail="connection lost"',
        f'returned id={ID} stream=outbound detail="worker stops"',
        f"discarded id={ID} by=hand from=<> to=bob@example.com",
    ]


def test_what_happens_to_clients_routes_and_processes_is_told(lines: Lines) -> None:
    log.refused("127.0.0.1", reason="syntax", reply="500 5.5.2 Bad")
    log.refused("10.0.0.7", reason="size", reply="552", reverse_path="", recipients=["a@b", "c@d"])
    log.refused("127.0.0.1", reason="store_unknown", reply="451", message_id="01m7")
    log.retried("01m7", by="hand", stream="outbound", recipients=("a@b",))
    log.client_refused("192.0.2.1", reply="554 5.7.1 Not allowed")
    log.route_paused("outbound", reason="tls", detail="certificate expired", retry_in=2)
    log.route_released("outbound", reason="tls", seconds=61.25)
    log.endpoint_down("smtp.example", 587, detail="refused")
    log.endpoint_up("smtp.example", 587)
    log.worker_reaped("worker-1", jobs=3)
    log.started("proxy", smtp=("127.0.0.1:25", "[::1]:25"), durable=True)
    log.stopping("proxy", detail="SIGTERM")
    log.notice("port 25 needs more rights; 2525 is used")
    log.store_away(detail="connection refused")
    log.store_away(process="proxy", detail="connection refused")
    log.store_back()
    log.store_back(process="proxy")
    log.store_not_durable(reason="appendfsync is everysec")
    log.store_durable()
    log.store_full(detail="9.9 of 10.0 MB are used (redis.max_memory)")
    log.store_has_room(detail="5.0 of 10.0 MB are used (redis.max_memory)")
    assert lines() == [
        'refused client=127.0.0.1 reason=syntax reply="500 5.5.2 Bad"',
        "refused client=10.0.0.7 reason=size from=<> to=a@b,c@d reply=552",
        "refused id=01m7 client=127.0.0.1 reason=store_unknown reply=451",
        "retried id=01m7 by=hand stream=outbound to=a@b",
        'client_refused client=192.0.2.1 reply="554 5.7.1 Not allowed"',
        'route_paused stream=outbound reason=tls detail="certificate expired" retry_in=2',
        "route_released stream=outbound reason=tls seconds=61.250",
        "endpoint_down host=smtp.example port=587 detail=refused",
        "endpoint_up host=smtp.example port=587",
        "worker_reaped worker=worker-1 jobs=3",
        "started process=proxy smtp=127.0.0.1:25,[::1]:25 durable=yes",
        "stopping process=proxy detail=SIGTERM",
        'notice text="port 25 needs more rights; 2525 is used"',
        'store_away detail="connection refused"',
        'store_away process=proxy detail="connection refused"',
        "store_back",
        "store_back process=proxy",
        'store_not_durable reason="appendfsync is everysec"',
        "store_durable",
        'store_full detail="9.9 of 10.0 MB are used (redis.max_memory)"',
        'store_has_room detail="5.0 of 10.0 MB are used (redis.max_memory)"',
    ]


def test_every_event_is_offered_by_the_package() -> None:
    written = {
        name
        for part in (events, reloads)
        for name, value in vars(part).items()
        if callable(value) and getattr(value, "__module__", "") == part.__name__
    }
    assert written == set(log.__all__) - {"setup", "conceal"}


def test_json_lines_hold_the_same_fields_with_their_kinds(
    objects: Callable[[], list[dict[str, Any]]],
) -> None:
    keep(recipients=("a@example.com", "b@example.com"), reverse_path="")
    log.started("proxy", durable=False)
    kept, started = objects()
    assert STAMP.fullmatch(kept.pop("time"))
    assert kept == {
        "event": "kept",
        "id": ID,
        "stream": "outbound",
        "rule": "",
        "from": "<>",
        "to": ["a@example.com", "b@example.com"],
        "size": 5120,
        "client": "127.0.0.1",
        "seconds": 0.0041,
    }
    assert started["durable"] is False


# Nothing can be forged.


def test_a_line_end_in_a_value_makes_no_new_line(lines: Lines) -> None:
    keep(reverse_path="a@b\nkept id=forged", rule="\x1b[31mred\r\u202e")
    (line,) = lines()
    assert r'rule="\x1b[31mred\r\u202e" from="a@b\nkept id=forged" to=' in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", "-"),
        ("two words", '"two words"'),
        ('say "so"', '"say \\"so\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("a=b", '"a=b"'),
        ("müller", '"müller"'),
        ("\t\r\n\0\x7f\x85", r'"\t\r\n\x00\x7f\x85"'),
        ("\u2028\ud800\U000e0001", r'"\u2028\ud800\U000e0001"'),
    ],
)
def test_a_value_is_quoted_where_it_is_not_clear(value: str, shown: str) -> None:
    assert quoted(value) == shown


@given(st.dictionaries(st.sampled_from("abcd"), st.text(st.characters(codec=None)), min_size=1))
def test_any_text_stays_on_its_line_and_can_be_read_back(fields: dict[str, str]) -> None:
    line = kv("T", "event", fields)
    assert line.isprintable()
    found = re.findall(r' ([a-d])=((?:"(?:[^"\\]|\\.)*")|[^ "]+)', line)
    assert [key for key, _ in found] == list(fields)
    assert line == "T event" + "".join(f" {key}={value}" for key, value in found)
    for key, shown in found:
        if shown.startswith('"'):
            assert unquoted(shown[1:-1]) == fields[key]
        else:
            assert shown == (fields[key] or "-")


def unquoted(text: str) -> str:
    def meant(match: re.Match[str]) -> str:
        named = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
        code = match[1]
        return named[code] if code in named else chr(int(code[1:], 16))

    return re.sub(r"\\(x..|u....|U........|.)", meant, text)


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_json_object_in_ascii(text: str) -> None:
    line = as_json("T", "event", {"a": text, "b": [text]})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"time": "T", "event": "event", "a": text, "b": [text]}


def test_a_lone_surrogate_is_written_all_the_same(lines: Lines) -> None:
    keep(client="\udcff")
    assert r'client="\udcff"' in lines()[0]


# Addresses and secrets.


def test_addresses_are_shortened_to_their_domain_where_wished(lines: Lines) -> None:
    log.setup(Log(addresses="domain"))
    keep(reverse_path="app@shop.example", recipients=("bob@example.com", "root"))
    log.dead(
        ID,
        stream="outbound",
        recipients=("bob@example.com",),
        reply='550 5.1.1 <bob@example.com>, "a b"@example.com: unknown',
    )
    keep(reverse_path="", recipients=('"odd@one"@example.com',))
    assert lines() == [
        (
            f"kept id={ID} stream=outbound rule=- from=@shop.example to=@example.com,(local) "
            "size=5120 client=127.0.0.1 seconds=0.004"
        ),
        (
            f"dead id={ID} stream=outbound to=@example.com "
            'reply="550 5.1.1 <@example.com>, @example.com: unknown"'
        ),
        (
            f"kept id={ID} stream=outbound rule=- from=<> to=@example.com size=5120 "
            "client=127.0.0.1 seconds=0.004"
        ),
    ]


@given(st.emails())
def test_no_local_part_is_left_in_a_reply(address: str) -> None:
    local = address.rpartition("@")[0]
    assert domain_only(address) == address[len(local) :]
    assert domains_only(f"550 <{address}> unknown") == f"550 <{address[len(local) :]}> unknown"


def test_a_concealed_secret_is_shown_in_no_form(lines: Lines) -> None:
    log.conceal("b7e1c5a0-key", "b7e1c5a0-secret")
    plain = "AGI3ZTFjNWEwLWtleQBiN2UxYzVhMC1zZWNyZXQ="  # \0key\0secret
    log.notice(f"login b7e1c5a0-key failed, sent {plain}, YjdlMWM1YTAta2V5")
    try:
        raise ValueError("redis://:b7e1c5a0-secret@host")
    except ValueError as error:
        log.defect("store", error=error)
    logging.getLogger("redis").warning("tried %s", "b7e1c5a0-secret")
    text = "\n".join(lines())
    assert 'text="login *** failed, sent ***, ***"' in text
    assert "redis://:***@host" in text
    assert "tried ***" in text
    for part in ("b7e1c5a0", "YjdlMWM1YTA", plain):
        assert part not in text


def test_a_secret_too_short_to_be_one_blots_out_no_words(lines: Lines) -> None:
    log.conceal("", "at")
    log.notice("that is that")
    assert lines() == ['notice text="that is that"']


# Errors and libraries.


def test_a_defect_is_one_line_with_its_traceback(lines: Lines) -> None:
    try:
        raise KeyError("lost\nand found")
    except KeyError as error:
        log.defect("relay", error=error, message_id=ID)
    (line,) = lines()
    assert line.startswith(f'defect id={ID} where=relay error="KeyError: ')
    assert r'traceback="Traceback (most recent call last):\n' in line
    assert "test_log.py" in line


def test_a_very_long_traceback_keeps_its_end(lines: Lines) -> None:
    try:
        raise ValueError("x" * 20_000 + "the end")
    except ValueError as error:
        log.defect("relay", error=error)
    (line,) = lines()
    assert "the end" in line
    assert len(line) < 12_000


def test_what_libraries_warn_of_comes_in_the_same_form(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [one for one in logging.getLogger().handlers if isinstance(one, writer._Libraries)]
    monkeypatch.setattr(logging.getLogger(), "handlers", ours)  # pytest's forgives no bad format
    library = logging.getLogger("some.library")
    library.info("too small to matter")
    library.warning("look: %s", "here")
    try:
        raise OSError("gone")
    except OSError:
        library.exception("failed")
    library.warning("bad format %d", "x")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", UserWarning, stacklevel=1)
    first, second, third, fourth = lines()
    assert first == 'library logger=some.library level=warning text="look: here"'
    assert second.startswith("library logger=some.library level=error text=failed traceback=")
    assert third == 'library logger=some.library level=warning text="bad format %d"'
    assert "UserWarning: old ways" in fourth


def test_setting_up_twice_brings_no_line_twice(lines: Lines) -> None:
    log.setup(Log())
    logging.getLogger("some.library").warning("once")
    assert len(lines()) == 1


# Time.


def test_a_stamp_is_utc_with_milliseconds() -> None:
    clock = Clock()
    assert clock.stamp(1_795_168_981.1239) == "2026-11-20T10:03:01.123Z"
    assert clock.stamp(1_795_168_981.9999) == "2026-11-20T10:03:01.999Z"
    assert clock.stamp(1_795_168_982.0) == "2026-11-20T10:03:02.000Z"
    assert clock.stamp(1_795_168_980.5) == "2026-11-20T10:03:00.500Z"


# Trouble with standard error.

_CHATTY = """
import sys, time
from proxy import log
for number in range(400):
    log.notice("x" * 1000 + str(number))
print("done", flush=True)
sys.stdin.readline()
log.notice("last")
"""


def test_a_reader_that_stops_reading_holds_nothing_up_and_learns_what_it_missed() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _CHATTY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        began = time.monotonic()
        assert select.select([program.stdout], [], [], 30)[0], "held up by its own log"
        assert program.stdout.readline() == b"done\n"
        assert time.monotonic() - began < 20
        kept = os.read(program.stderr.fileno(), 1 << 20)
        program.stdin.write(b"\n")
        program.stdin.close()
        rest = program.stderr.read()
        assert program.wait() == 0
    lines = (kept + rest).decode().splitlines()
    lost = re.fullmatch(r"\S+ log_lost lines=(\d+)", lines[-2])
    assert lost is not None
    assert len(lines) - 2 + int(lost[1]) == 400
    assert lines[-1].endswith("notice text=last") or lines[-1].endswith("notice text=last\n")


def test_a_closed_standard_error_stops_nothing() -> None:
    code = "import os; os.close(2)\nfrom proxy import log\nlog.notice('a')\nprint('lives')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"lives\n"


def test_a_very_long_line_is_written_whole(lines: Lines) -> None:
    recipients = tuple(f"recipient-{number}@example.com" for number in range(1000))
    keep(recipients=recipients)
    (line,) = lines()
    assert f" to={','.join(recipients)} size=5120 " in line
