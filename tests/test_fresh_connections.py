"""Mail that must wait for a connection of its own, and mail that need not."""

from pathlib import Path

from tests.support.far_end import FarEnd
from tests.support.mail_queue import envelope, put
from tests.support.redis_server import RedisServer
from tests.support.relaying import relay_at_work, settings_for
from tests.support.waiting import wait_until


async def test_mail_that_waits_for_a_fresh_connection_does_not_stop_what_needs_none(
    redis_server: RedisServer, data_dir: Path
) -> None:
    queue = redis_server.client()
    async with FarEnd() as far_end:
        settings = settings_for(far_end, data_dir, postmark={"connections": 2})
        slow = far_end.fail("dot", do="delay", seconds=0.3)
        async with relay_at_work(settings, data_dir) as relay:
            put(queue, 8)
            await wait_until(lambda: relay.network.connections_in_use == 2)
            await far_end.until(8)
            far_end.mend(slow)
            hanging = far_end.fail("connect", do="hang")
            far_end.fail("rcpt", do="drop", address="lost@*", times=1)
            put(queue, mail=envelope("lost@example.net"))
            # Its connection was lost, and the one it wants instead does not come about.
            await wait_until(lambda: far_end.faults.listed()[0]["met"])
            put(queue, 20)
            await far_end.until(28)
            assert not far_end.to("lost@example.net")
            far_end.mend(hanging)
