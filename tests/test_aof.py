"""Mending the append-only file: what was whole stays, what was torn goes, mail confuses nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.queue.aof import mend
from tests.support.redis_server import new_data_dir, remove_data_dir


def _command(*words: bytes) -> bytes:
    bulks = (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n" % len(words) + b"".join(bulks)


def _block(*commands: bytes) -> bytes:
    return _command(b"MULTI") + b"".join(commands) + _command(b"EXEC")


def _mended(octets: bytes, more: str = "") -> bytes:
    folder = new_data_dir()
    try:
        files = folder / "appendonlydir"
        files.mkdir()
        (files / "appendonly.aof.manifest").write_text(
            "file appendonly.aof.1.base.aof seq 1 type b\n"
            "file appendonly.aof.3.incr.aof seq 3 type i\n"
            f"file appendonly.aof.4.incr.aof seq 4 type i{more}\n"
        )
        (files / "appendonly.aof.3.incr.aof").write_bytes(b"*")
        last = files / "appendonly.aof.4.incr.aof"
        last.write_bytes(octets)
        assert mend(folder) == len(octets) - last.stat().st_size
        assert (files / "appendonly.aof.3.incr.aof").read_bytes() == b"*"
        return last.read_bytes()
    finally:
        remove_data_dir(folder)


_WORDS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            _command(b"EXEC"),
            _block(_command(b"SET", b"a", b"b")),
            b"x" + _command(b"EXEC") + b"y",
            _command(b"MULTI"),
        ]
    ),
)
_COMMANDS = st.lists(_WORDS, min_size=1, max_size=4).map(lambda words: _command(b"SET", *words))
_PIECES = st.lists(
    st.one_of(_COMMANDS, st.lists(_COMMANDS, max_size=3).map(lambda inner: _block(*inner))),
    max_size=6,
)


@given(_PIECES)
def test_a_whole_file_is_left_as_it_is(pieces: list[bytes]):
    octets = _command(b"SELECT", b"0") + b"".join(pieces)
    assert _mended(octets) == octets


_PLAIN = st.binary(max_size=40).map(lambda word: word.replace(b"EXEC", b"exec"))
_PLAIN_COMMANDS = st.lists(_PLAIN, min_size=1, max_size=4).map(lambda w: _command(b"HSET", *w))
_PLAIN_PIECES = st.lists(
    st.one_of(
        _PLAIN_COMMANDS, st.lists(_PLAIN_COMMANDS, max_size=3).map(lambda inner: _block(*inner))
    ),
    min_size=1,
    max_size=5,
)


@given(_PLAIN_PIECES, st.data())
def test_a_file_cut_anywhere_ends_after_its_last_whole_piece(
    pieces: list[bytes], data: st.DataObject
):
    octets = b"".join(pieces)
    cut = data.draw(st.integers(0, len(octets)))
    whole = b""
    for piece in pieces:
        if len(whole) + len(piece) > cut:
            break
        whole += piece
    assert _mended(octets[:cut]) == whole


def test_a_message_that_looks_like_the_end_of_a_block_is_not_taken_for_one():
    kept = _block(_command(b"SET", b"a", b"1"))
    bait = b"Hello\r\n" + _command(b"EXEC") + b"and more\r\n"
    torn = _block(_command(b"HSET", b"job", b"body", bait), _command(b"SET", b"b", b"2"))[:-9]
    assert _mended(kept + torn) == kept


def test_a_note_of_the_server_is_no_command():
    octets = b"#TS:1795169296\r\n" + _block(_command(b"SET", b"a", b"1")) + b"#TS:1795169297\r\n"
    assert _mended(octets) == octets


def test_what_is_no_append_only_file_at_all_is_left_to_the_server():
    assert _mended(b"REDIS0010 something else") == b"REDIS0010 something else"


@pytest.mark.parametrize("manifest", [None, "", "file appendonly.aof.1.incr.aof seq 1 type i\n"])
def test_a_folder_without_such_a_file_needs_no_mending(data_dir: Path, manifest: str | None):
    if manifest is not None:
        (data_dir / "appendonlydir").mkdir()
        (data_dir / "appendonlydir" / "appendonly.aof.manifest").write_text(manifest)
    assert mend(data_dir) == 0


def test_the_manifest_of_redis_8_says_more_and_is_understood() -> None:
    whole, torn = _command(b"SET", b"kept", b"1"), _block(_command(b"SET", b"torn", b"1"))[:-8]
    assert _mended(whole + torn, " startoffset 0") == whole
