"""The end of a message's data: found wherever the octets are cut, and never where it is not."""

import tracemalloc
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.listener import content as module
from proxy.listener.content import PIECE, Content
from tests.support.end_of_data import by_lines, undotted

SMUGGLED = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
)


def feed(octets: bytes, *, crlf: bool, limit: int = 10**6, step: int = 1) -> Content | None:
    """Feed `octets` in pieces of `step`; return the content when its end was found."""
    content = Content(limit, crlf=crlf)
    for at in range(0, len(octets), step):
        if content.feed(octets[at : at + step]):
            content.rest += octets[at + step :]
            return content
    return None


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 1000])
def test_data_ends_at_a_dot_on_a_line_of_its_own(step: int) -> None:
    content = feed(b"one\r\ntwo\r\n.\r\nQUIT\r\n", crlf=True, step=step)
    assert content is not None
    assert content.rest == b"QUIT\r\n"
    assert content.size == 10
    assert content.take() == b"one\r\ntwo\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_a_message_may_be_empty(step: int) -> None:
    content = feed(b".\r\nNOOP\r\n", crlf=True, step=step)
    assert content is not None
    assert (content.take(), content.rest) == (b"", b"NOOP\r\n")
    content = feed(b".\nNOOP\n", crlf=False, step=step)
    assert content is not None
    assert (content.take(), content.rest) == (b"", b"NOOP\n")


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_doubled_dots_are_single_again(step: int) -> None:
    content = feed(b"..first\r\n..\r\n...\r\na..b\r\n.x\r\n.\r\n", crlf=True, step=step)
    assert content is not None
    assert content.take() == b".first\r\n.\r\n..\r\na..b\r\nx\r\n"
    content = feed(b"one.\r\n.two\r\n.\r\n", crlf=True, step=step)
    assert content is not None
    assert content.take() == b"one.\r\ntwo\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", SMUGGLED)
def test_only_crlf_dot_crlf_ends_data_of_a_session_that_knows_crlf(end: bytes, step: int) -> None:
    octets = b"text" + end + b"MAIL FROM:<evil@example.org>\r\n"
    assert feed(octets, crlf=True, step=step) is None
    content = feed(octets + b".\r\n", crlf=True, step=step)
    assert content is not None
    assert b"MAIL FROM:<evil" in content.take()


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_a_session_without_any_crlf_ends_its_data_with_lf_dot_lf(step: int) -> None:
    content = feed(b"Subject: x\n\n..dot\ntext\n.\nQUIT\n", crlf=False, step=step)
    assert content is not None
    assert content.rest == b"QUIT\n"
    assert content.crlf is False
    assert content.take() == b"Subject: x\n\n.dot\ntext\n"


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("first", [b"\r\n", b"a\r\n", b"a\nb\r\nc\n", b".\r\n", b"a\n.\r\n"])
def test_after_one_crlf_lf_dot_lf_ends_nothing(first: bytes, step: int) -> None:
    octets = first + b"text\n.\nRCPT TO:<evil@example.org>\n"
    assert feed(octets, crlf=False, step=step) is None
    content = feed(octets + b"x\r\n.\r\n", crlf=False, step=step)
    assert content is not None
    assert content.crlf is True


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_an_end_before_the_first_crlf_counts(step: int) -> None:
    content = feed(b"text\n.\nQUIT\r\n", crlf=False, step=step)
    assert content is not None
    assert content.take() == b"text\n"
    assert content.rest == b"QUIT\r\n"


@pytest.mark.parametrize("crlf", [True, False])
def test_what_is_over_the_limit_is_counted_and_not_held(crlf: bool) -> None:
    end = b"\r\n" if crlf else b"\n"
    content = Content(1000, crlf=crlf)
    most = 0
    for _ in range(500):
        assert not content.feed(b"x" * 100 if _ % 2 else b"y" * 98 + end)
        most = max(most, content.held)
    assert most <= 1103
    assert not content.whole
    assert content.feed(b"z" + end + b"." + end + b"NOOP")
    assert content.rest == b"NOOP"
    assert content.size == 500 * 100 - (250 if not crlf else 0) + 1 + len(end)
    assert not content.whole


@pytest.mark.parametrize("octets", [b"x" * 998 + b"\r\n.\r\n", b"\r\n" * 500 + b".\r\n"])
@pytest.mark.parametrize("step", [1, 3, 5000])
def test_a_message_of_exactly_the_limit_is_whole(octets: bytes, step: int) -> None:
    content = feed(octets, crlf=True, limit=1000, step=step)
    assert content is not None
    assert content.size == 1000
    assert content.whole
    less = feed(octets, crlf=True, limit=999, step=step)
    assert less is not None
    assert not less.whole


@pytest.mark.parametrize("step", [1, 2, 3, 4, 1000])
@pytest.mark.parametrize("crlf", [True, False])
def test_discarded_content_still_ends_where_it_ends(crlf: bool, step: int) -> None:
    end = b"\r\n" if crlf else b"\n"
    octets = b"line" + end + b"..x" + end + b"." + end + b"QUIT" + end
    content = Content(10**6, crlf=crlf)
    content.discard()
    for at in range(0, len(octets), step):
        if content.feed(octets[at : at + step]):
            break
        assert content.held <= 4
    assert (content.rest + octets[at + step :]) == b"QUIT" + end
    assert content.size == len(b"line..x" + 2 * end)


@pytest.mark.parametrize("step", [1460, 4096, 65_536, 100_000, 256_000])
def test_a_large_message_is_whole_however_it_is_cut(step: int) -> None:
    # Two octets more in each line, so that dots and line ends come to stand at all places of a cut.
    lines = [b".." * (at % 5) + b"x" * (at % 89) + b"\r\n" for at in range(20_000)]
    octets = b"".join(lines)
    assert len(octets) > 10 * PIECE
    content = Content(10**7, crlf=True)
    for at in range(0, len(octets), step):
        assert not content.feed(octets[at : at + step])
        assert content.held == content.size == min(at + step, len(octets))
    assert content.feed(b".\r\nQUIT\r\n")
    assert content.rest == b"QUIT\r\n"
    assert content.size == len(octets)
    assert content.take() == undotted(octets, crlf=True)
    assert content.held == 0


def test_what_is_discarded_is_held_no_more_however_much_it_was() -> None:
    tracemalloc.start()
    try:
        content = Content(10**7, crlf=True)
        for _ in range(10):
            assert not content.feed(b"x" * PIECE)
        content.discard()
        assert tracemalloc.get_traced_memory()[0] < PIECE
    finally:
        tracemalloc.stop()
    assert content.held <= 4
    assert content.size == 10 * PIECE
    assert content.feed(b"\r\n.\r\n")
    assert content.size == 10 * PIECE + 2


def test_octets_that_come_one_by_one_take_no_more_memory_than_they_are() -> None:
    tracemalloc.start()
    try:
        content = Content(10**7, crlf=True)
        for _ in range(3 * PIECE):
            content.feed(b"x")
        assert tracemalloc.get_traced_memory()[0] < 4 * PIECE
    finally:
        tracemalloc.stop()


pieces = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"x", b"\0", b"\r\n.\r\n", b"\n.\n", b""]),
    max_size=24,
)


@given(pieces, st.booleans(), st.integers(1, 6), st.booleans(), st.sampled_from([1, 5, 9, PIECE]))
@example([b".", b"\r\n", b".", b"\r\n"], False, 1, False, PIECE)
def test_the_end_is_where_reading_line_by_line_finds_it(
    parts: list[bytes], crlf: bool, step: int, discarded: bool, piece: int
) -> None:
    octets = b"".join(parts)
    wanted = by_lines(octets, crlf)
    content = Content(10**6, crlf=crlf)
    if discarded:
        content.discard()
    found = None
    with patch.object(module, "PIECE", piece):
        for at in range(0, len(octets), step):
            if content.feed(octets[at : at + step]):
                found = content.rest + octets[at + step :]
                break
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert found == wanted[1]
        assert content.size == len(wanted[0])
        if not discarded:
            assert content.take() == undotted(wanted[0], content.crlf)
