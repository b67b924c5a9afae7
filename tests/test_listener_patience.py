"""How long slow and silent clients are waited for: the real times, by a clock of the test's own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.listener.connection import SmtpConnection
from tests.support.listening import MESSAGE, Dialog, Front, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

TOO_SLOW = "421 4.4.2 Too little came for too long, closing; nothing unanswered was taken"
TEXT = (b"y" * 70 + b"\r\n") * 1000


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A listener whose time is the test's, and a second client by which to see how far it is."""

    def __init__(self, office: Front, clock: Clock, other: Dialog) -> None:
        self.office = office
        self._clock = clock
        self._other = other

    async def dial(self) -> Dialog:
        return await self.office.dial()

    async def after(self, seconds: float) -> None:
        """Let the listener read what was sent, and then so much time pass."""
        assert await self._other.say("NOOP") == "250 2.0.0 Ok"
        self._clock.now += seconds
        self.office.listener.end_overdue()

    @property
    def there(self) -> int:
        """Clients beside the second one."""
        return self.office.listener.sessions - 1


@pytest_asyncio.fixture
async def place(redis_server: RedisServer) -> AsyncIterator[Place]:
    clock = Clock()
    async with front(redis_server, clock=clock) as office:
        yield Place(office, clock, await office.dial())


async def test_a_silent_client_hears_421_after_five_minutes_and_is_gone(place: Place) -> None:
    greeted, begun, sending = [await place.dial() for _ in range(3)]
    await begun.begin(data=False)
    await sending.begin()
    sending.send(b"Subject: half a")
    await place.after(299)
    assert place.there == 3
    await place.after(2)
    for dialog in (greeted, begun, sending):
        assert await dialog.reply() == TOO_SLOW
        assert await dialog.ended()
    await place.after(3)  # in which they could have closed their sides
    await wait_until(lambda: place.there == 0, what="the sessions are gone")
    assert place.office.listener.held == 0
    assert place.office.kept() == []


async def test_one_octet_of_a_command_a_minute_is_no_sign_of_life(place: Place) -> None:
    dialog = await place.dial()
    for octet in "EHLO ":
        dialog.send(octet)
        await place.after(59)
    assert place.there == 1
    dialog.send("c")
    await place.after(6)
    assert await dialog.reply() == TOO_SLOW
    assert await dialog.ended()


async def test_one_octet_of_a_message_a_minute_does_not_hold_its_memory_for_ever(
    place: Place,
) -> None:
    dialog = await place.dial()
    await dialog.begin()
    for held in range(1, 6):
        dialog.send(b"x")
        await wait_until(lambda held=held: place.office.listener.held == held, what="it came")
        await place.after(59)
    assert place.there == 1
    dialog.send(b"x")
    await wait_until(lambda: place.office.listener.held == 6, what="it came")
    await place.after(6)
    assert await dialog.reply() == TOO_SLOW
    await wait_until(lambda: place.office.listener.held == 0, what="its memory is free")


async def test_a_client_that_is_slow_but_steady_is_served_however_long_it_takes(
    place: Place,
) -> None:
    dialog = await place.dial()
    await dialog.begin()
    dialog.send(MESSAGE)
    for count in range(1, 31):  # at 1,200 octets a second, for half an hour
        dialog.send(TEXT)
        sent = len(MESSAGE) + count * len(TEXT)
        await wait_until(lambda sent=sent: place.office.listener.held == sent, what="it came")
        await place.after(60)
    dialog.send(b".\r\n")
    assert (await dialog.reply()).startswith("250 2.0.0 ")


async def test_a_small_message_may_come_slowly_within_its_five_minutes(place: Place) -> None:
    dialog = await place.dial()
    await dialog.begin()
    for line in MESSAGE.splitlines(keepends=True):
        dialog.send(line)
        await place.after(30)
    dialog.send(b".\r\n")
    assert (await dialog.reply()).startswith("250 2.0.0 ")


@pytest.mark.parametrize("command", ["NOOP", "RCPT TO:<you@example.net>"])
async def test_a_mail_that_never_comes_to_its_data_ends_after_an_hour(
    place: Place, command: str
) -> None:
    dialog = await place.dial()
    await dialog.begin(data=False)
    for _ in range(17):
        await place.after(200)
        assert (await dialog.say(command)).startswith("250 ")
    await place.after(201)
    assert await dialog.reply() == TOO_SLOW


async def test_a_message_has_its_own_time_however_late_its_data_came(place: Place) -> None:
    dialog = await place.dial()
    await dialog.begin(data=False)
    for _ in range(17):
        await place.after(200)
        await dialog.say("NOOP")
    await place.after(150)
    assert (await dialog.say("DATA")).startswith("354 ")
    await place.after(200)
    dialog.send(MESSAGE)
    await place.after(50)
    dialog.send(b".\r\n")
    assert (await dialog.reply()).startswith("250 2.0.0 ")


async def test_a_client_that_keeps_its_connection_without_a_mail_may_do_so(place: Place) -> None:
    dialog = await place.dial()
    await dialog.begin(data=False)
    await dialog.say("RSET")
    for _ in range(30):
        await place.after(299)
        assert await dialog.say("NOOP") == "250 2.0.0 Ok"
    assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_a_client_that_reads_no_replies_is_cut_off(place: Place) -> None:
    dialog = await place.dial()
    (session,) = [
        one
        for one in place.office.listener._office.sessions
        if one.port == dialog.writer.get_extra_info("sockname")[1]
    ]
    dialog.reader._transport.pause_reading()  # type: ignore[attr-defined]  # not to read

    def stuck() -> bool:
        if dialog.writer.transport.get_write_buffer_size() < 1_000_000:
            dialog.writer.write(b"HELP\r\n" * 10_000)
        return session._deaf

    await wait_until(stuck, what="replies cannot be written")
    await place.after(299)
    assert place.there == 1
    await place.after(2)
    await place.after(3)  # for the 421, which it does not read either
    await wait_until(lambda: place.there == 0, what="the session is cut off")


async def test_many_commands_in_one_piece_are_answered_by_and_by_and_others_come_between(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []
    write = SmtpConnection._write

    def seen(self: SmtpConnection) -> None:
        written.append((self.port, sum(map(len, self._out))))
        write(self)

    many, other = await place.dial(), await place.dial()
    monkeypatch.setattr(SmtpConnection, "_write", seen)
    many.send(b"HELP\r\n" * 5_000)
    other.send(b"NOOP\r\n")
    for _ in range(5_000):
        assert (await many.reply()).startswith("214 ")
    assert await other.reply() == "250 2.0.0 Ok"
    assert max(octets for _, octets in written) < 20_000
    ports = [port for port, octets in written if octets]
    assert ports[-1] != other.writer.get_extra_info("sockname")[1]
