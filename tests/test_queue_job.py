"""The envelope's codec, the lanes in front of the commit, and the scripts' names of keys."""

import asyncio
import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.queue import keys
from proxy.queue.batch import AHEAD_OCTETS, LARGE_OCTETS, MAX_MESSAGES, Lanes, Waiting, pack_commit
from proxy.queue.job import JobDecodeError, JobEnvelope, RelayJob, decode_envelope, encode_envelope
from proxy.queue.scripts import load

_TEXT = st.text(st.characters(codec=None), max_size=12)
_ENVELOPES = st.builds(
    JobEnvelope,
    mail_from=_TEXT,
    recipients=st.lists(_TEXT, min_size=1, max_size=4).map(tuple),
    accepted_at=st.floats(0, 4e9),
    reverse_path=_TEXT,
    rule=_TEXT,
    owner=_TEXT,
    notify=st.booleans(),
    attempts=st.integers(0, 999),
    waited=st.floats(0, 1e6),
    expires_at=st.none() | st.floats(0, 4e9),
    replies=st.dictionaries(_TEXT, _TEXT, max_size=3),
    replaced=st.dictionaries(_TEXT, _TEXT, max_size=3),
    client=_TEXT,
    dead=st.integers(0, 99),
    asked=st.floats(0, 1e6),
    unanswered=st.floats(0, 1e6),
    settled=st.lists(_TEXT, max_size=2).map(tuple),
)


@given(_ENVELOPES)
def test_an_envelope_comes_back_as_it_was_even_with_octets_that_are_no_text(mail: JobEnvelope):
    assert decode_envelope(encode_envelope(mail)) == mail


def test_what_has_its_default_takes_no_room():
    assert encode_envelope(JobEnvelope("a@b.example", ("c@d.example",), 1.5)) == (
        b'{"v":1,"f":"a@b.example","to":["c@d.example"],"at":1.5}'
    )


@pytest.mark.parametrize(
    "octets", [b"", b"\xff", b"[]", b"{}", b'{"v":1}', b'{"v":1,"f":"","to":3,"at":0}', b'"v"']
)
def test_an_unreadable_envelope_is_an_error_of_its_own(octets: bytes):
    with pytest.raises(JobDecodeError):
        decode_envelope(octets)


def test_an_envelope_of_a_later_version_is_not_guessed_at():
    with pytest.raises(JobDecodeError, match="envelope version 2, this program reads 1"):
        decode_envelope(b'{"v":2}')


def _waiting(size: int = 10, stream: str = "outbound", name: str = "x") -> Waiting:
    job = RelayJob(name, stream, JobEnvelope("a", ("b",), 0.0), b"x" * size)
    return Waiting(job, asyncio.get_running_loop().create_future())


async def test_lanes_give_out_messages_as_they_came_and_no_more_than_fit_a_batch():
    lanes = Lanes()
    messages = [_waiting() for _ in range(MAX_MESSAGES + 5)]
    for each in messages:
        lanes.add(each)
    assert lanes.take() == tuple(messages[:MAX_MESSAGES])
    assert lanes.take() == tuple(messages[MAX_MESSAGES:])
    assert lanes.take() == ()


async def test_large_and_small_messages_take_turns():
    lanes = Lanes()
    large = [_waiting(LARGE_OCTETS * 5) for _ in range(4)]
    small = [_waiting() for _ in range(MAX_MESSAGES + 1)]
    for each in (*large, *small):
        lanes.add(each)
    assert [lanes.take() for _ in range(5)] == [
        tuple(small[:-1]),
        tuple(large[:1]),
        tuple(small[-1:]),
        tuple(large[1:2]),
        tuple(large[2:3]),
    ]
    late = _waiting()
    lanes.add(late)
    assert [lanes.take(), lanes.take()] == [(late,), tuple(large[3:])]


async def test_what_was_put_back_comes_first_again():
    lanes = Lanes()
    messages = [_waiting() for _ in range(3)]
    for each in messages:
        lanes.add(each)
    taken = lanes.take()
    late = _waiting()
    lanes.add(late)
    lanes.put_back(taken)
    assert lanes.take() == (*messages, late)


async def test_a_message_whose_client_went_away_is_left_out():
    lanes = Lanes()
    gone, stays = _waiting(), _waiting(LARGE_OCTETS)
    lanes.add(gone)
    lanes.add(stays)
    gone.done.cancel()
    assert lanes.take() == (stays,)
    assert len(lanes) == 0


def _commands(octets: bytes) -> list[list[bytes]]:
    found = []
    while octets:
        line, _, octets = octets.partition(b"\r\n")
        assert line[:1] == b"*"
        words = []
        for _ in range(int(line[1:])):
            length, _, octets = octets.partition(b"\r\n")
            words.append(octets[: int(length[1:])])
            octets = octets[int(length[1:]) + 2 :]
        found.append(words)
    return found


async def test_a_commit_is_packed_as_redis_counts_it():
    messages = (_waiting(3, "a", "id1"), _waiting(2, "b", "id2"), _waiting(1, "a", "id3"))
    packed = pack_commit("sha", "fence", "7", 9, messages, "now")
    mail = encode_envelope(JobEnvelope("a", ("b",), 0.0))
    words = [
        *(b"EVALSHA", b"sha", b"1", b"fence", b"7", b"9", b"now"),
        *(b"franker-a", b"2", b"id1", mail, b"xxx", b"id3", mail, b"x"),
        *(b"franker-b", b"1", b"id2", mail, b"xx"),
    ]
    assert _commands(b"".join(packed.octets)) == [words]
    assert packed.replies == 1


async def test_a_large_body_goes_ahead_of_the_commit_in_one_transaction():
    messages = (
        _waiting(AHEAD_OCTETS, "a", "id1"),
        _waiting(1, "a", "id2"),
        _waiting(0, "a", "id3"),
    )
    packed = pack_commit("sha", "fence", "7", 9, messages, "now")
    mail = encode_envelope(JobEnvelope("a", ("b",), 0.0))
    head = [b"EVALSHA", b"sha", b"1", b"fence", b"7", b"9", b"now"]
    assert _commands(b"".join(packed.octets)) == [
        [b"MULTI"],
        [b"HSET", b"franker:new:id1", b"body", b"x" * AHEAD_OCTETS],
        [b"HSET", b"franker:new:id3", b"body", b""],
        [*head, b"franker-a", b"3", b"id1", mail, b"", b"id2", mail, b"x", b"id3", mail, b""],
        [b"DEL", b"franker:new:id1", b"franker:new:id3"],
        [b"EXEC"],
    ]
    assert packed.replies == 6


def test_scripts_get_their_names_of_keys_from_one_place():
    text = load("commit").text
    assert f"local JOB = '{keys.job_key('')}'\n" in text
    assert f"local QUEUE = '{keys.queue_key('').removesuffix(keys.QUEUE_PREFIX)}'\n" in text
    folder = resources.files("proxy.queue.scripts")
    for script in (each for each in folder.iterdir() if each.name.endswith(".lua")):
        assert not re.search(r"'(rq|franker):", script.read_text("utf-8")), script.name
