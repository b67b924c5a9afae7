"""What an operator's commands did to the queue, told to the service, whose log has the whole story.

A command's own log would end on its terminal. So the script that changes the queue notes what it
did in a list in Redis, in the same step, and a proxy writes it into its log. Of several proxies
one does. Beyond 10,000 notes that nobody has fetched the oldest are dropped.
"""

import asyncio
import contextlib
import json
from typing import Literal

import redis.asyncio
from redis.exceptions import RedisError

from proxy.log import events
from proxy.queue import keys
from proxy.queue.connection import end_if_cancelled, plain
from proxy.queue.job import JobEnvelope

FETCH_EVERY_S = 1.0
_AT_ONCE = 200


def note(
    what: Literal["discarded", "retried"], job_id: str, stream: str, envelope: JobEnvelope | None
) -> str:
    """Return the note of one job that was deleted or put back."""
    return json.dumps(
        {
            "what": what,
            "id": job_id,
            "stream": stream,
            "from": envelope.reverse_path if envelope else "",
            "to": envelope.recipients if envelope else (),
        }
    )


def hold_note(
    what: Literal["held", "released"], hold: str, mail: str, *, by: str, reason: str = ""
) -> str:
    """Return the note of a hold that was made, or of what was let go of it: `mail`, in words."""
    return json.dumps({"what": what, "hold": hold, "mail": mail, "user": by, "reason": reason})


async def log_by_hand(redis: redis.asyncio.Redis, *, every: float = FETCH_EVERY_S) -> None:
    """Write into the log what commands do, until cancelled. What is noted meanwhile waits."""
    while True:
        with contextlib.suppress(RedisError, OSError):
            while notes := await plain(redis).lpop(keys.BY_HAND, _AT_ONCE):
                for octets in notes:
                    _write(octets)
        end_if_cancelled()
        await asyncio.sleep(every)


def _write(octets: bytes) -> None:
    try:
        said = json.loads(octets)
        if said["what"] in ("held", "released"):
            hold, mail, user = str(said["hold"]), str(said["mail"]), str(said["user"])
            if said["what"] == "held":
                events.held(hold, by="hand", mail=mail, user=user, reason=str(said["reason"]))
            else:
                events.released(hold, by="hand", mail=mail, user=user)
            return
        job_id, stream, to = said["id"], said["stream"], list(said["to"])
        if said["what"] == "retried":
            events.retried(job_id, by="hand", stream=stream, recipients=to)
        else:
            events.discarded(
                job_id, by="hand", stream=stream, reverse_path=said["from"], recipients=to
            )
    except (ValueError, LookupError, TypeError) as error:  # not of our making
        events.notice(f"{keys.BY_HAND} held what no command writes: {error}")
