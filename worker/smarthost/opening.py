"""Opening a connection to the far end: every address of the name, TLS, login."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import cast

from worker.replies import ConnectFailure
from worker.smarthost import dial
from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.handshake import Course, Handshake
from worker.smarthost.sasl import Login
from worker.smarthost.transaction import Offers
from worker.verdict import Blame, judge_connect


async def connect(
    endpoint: Endpoint,
    login: Login | None,
    *,
    tls: ssl.SSLContext,
    auth: Sequence[str],
    local_hostname: str,
    course: Course | None = None,
    connect_timeout: float = 10.0,
    command_timeout: float = 60.0,
    final_timeout: float = 600.0,
) -> Connection:
    """Return a connection over verified TLS, logged in by the first of `auth` that is offered.

    All addresses of the name are tried, IPv6 and IPv4 staggered. `connect_timeout` (seconds) is
    for the lookup, for each address to answer, and for its greeting; `command_timeout` for each
    reply to a command, `final_timeout` for the reply to the final dot. Without `login` there is no
    AUTH: enough to look at an endpoint, not to send. `local_hostname` is what EHLO says; it is
    never looked up. `course` is followed by each attempt, at one address after the other.

    Raises:
        ConnectFailure: no address gave such a connection; tells the first fault that is not the
            address's own, else the last one.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    addresses = await dial.resolve(endpoint, connect_timeout)
    while True:
        connected = await dial.first_to_answer(addresses, connect_timeout)
        addresses = dial.without(addresses, connected)
        handshake = Handshake(
            endpoint,
            connected,
            tls_context=tls,
            local_hostname=local_hostname,
            greeting_timeout=connect_timeout,
            command_timeout=command_timeout,
        )
        try:
            client = await handshake.run(login, auth, course)
        except ConnectFailure as failure:
            # What one address cannot do another may; silence, though, is paid for only once.
            late = loop.time() - started >= connect_timeout
            if not addresses or late or judge_connect(failure) is not Blame.ENDPOINT:
                raise
            continue
        offers = Offers(
            pipelining=client.supports_extension("pipelining"),
            size=client.supports_extension("size"),
            eight_bit_mime=client.supports_extension("8bitmime"),
        )
        connection = Connection(
            endpoint,
            cast(asyncio.Transport, client.transport),
            offers,
            command_timeout=command_timeout,
            final_timeout=final_timeout,
            certificate_expiry=handshake.certificate_expiry,
        )
        connection.take_over()
        return connection
