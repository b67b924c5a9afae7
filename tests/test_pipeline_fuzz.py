"""Whatever a far end says, in whatever pieces: the replies tell the truth about the dot."""

import asyncio
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.replies import TransactionReplies
from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.transaction import Offers, Transaction
from worker.verdict import judge

# Mostly what a transaction needs, so that many get to their dot; the rest is trouble.
SAYINGS = st.sampled_from(
    [b"250 2.0.0 Ok\r\n"] * 12
    + [b"354 go on\r\n"] * 6
    + [
        b"250-more\r\n",
        b"550 5.1.1 no\r\n",
        b"450 4.2.1 later\r\n",
        b"421 4.3.2 bye\r\n",
        b"503 5.5.1 order\r\n",
        b"garbage\r\n",
        b"250 ha",
        b"lf\r\n",
        b"",
    ]
)


class Wire(asyncio.Transport):
    """A transport that keeps what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def play(
    said: list[list[bytes]], permissions: list[bool], *, pipelining: bool
) -> tuple[bytes, list[TransactionReplies]]:
    """Let the far end say `said`, a turn for each list; return what it got, and the replies."""
    wire = Wire()
    connection = Connection(
        Endpoint("h", 1), wire, Offers(pipelining=pipelining), command_timeout=9, final_timeout=9
    )
    futures: list[asyncio.Future[TransactionReplies]] = []

    async def ask(number: int) -> bool:
        return permissions[number]

    def submit() -> None:
        while connection.free_slots and len(futures) < len(permissions):
            number = len(futures)
            addresses = (f"a{number}@example.net", f"b{number}@example.net")
            content = f"content {number}\r\n".encode()
            futures.append(
                connection.submit(
                    Transaction("s@example.com", addresses, content, partial(ask, number))
                )
            )

    submit()
    for turn in said:
        await turns()
        for octets in turn:
            connection.data_received(octets)
        submit()
    await turns()
    connection.connection_lost(None)
    return wire.written, [await asyncio.wait_for(future, 20) for future in futures]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.lists(SAYINGS, max_size=6), max_size=16),
    st.lists(st.booleans() | st.just(True), min_size=1, max_size=5),
    st.booleans(),
)
def test_a_dot_is_told_exactly_when_it_was_written_and_never_without_permission(
    said: list[list[bytes]], permissions: list[bool], pipelining: bool
) -> None:
    written, outcomes = asyncio.run(play(said, permissions, pipelining=pipelining))
    for number, replies in enumerate(outcomes):
        whole = f"content {number}\r\n.\r\n".encode()
        assert written.count(whole) == replies.dot_sent
        assert written.count(f"content {number}".encode()) == replies.dot_sent
        if replies.dot_sent:
            assert permissions[number]
            assert any(reply.positive for reply in replies.recipients.values())
        judgement = judge(replies, (f"a{number}@example.net", f"b{number}@example.net"))
        assert not judgement.sent or replies.dot_sent
        assert bool(judgement.unknown) == (replies.dot_sent and replies.final is None)


def test_the_sayings_do_bring_messages_to_their_end() -> None:
    ok, go = b"250 2.0.0 Ok\r\n", b"354 go on\r\n"
    said = [[ok, ok, ok, go], [ok, ok, ok, ok, go], [ok]]
    written, outcomes = asyncio.run(play(said, [True, True], pipelining=True))
    assert [bool(replies.final) for replies in outcomes] == [True, True]
    # The second envelope went out before the first message was answered.
    assert written.index(b"content 0") < written.index(b"a1@example.net")
    assert written.index(b"a1@example.net") < written.index(b"content 1")
