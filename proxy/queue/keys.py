"""Names of the keys in Redis. Those under rq: are RQ's own and follow its layout (rq 2.x)."""

TASK = "worker.tasks.relay"
"""The function named in a job, for tools that show it and stock workers that run it."""

QUEUES = "rq:queues"
SUSPENDED = "rq:suspended"
WAKE_CHANNEL = "franker:wake"
"""Published to, with the queue's name, when a message was put into an idle or busy queue."""

QUEUE_PREFIX = "franker-"


def queue_name(stream: str) -> str:
    """Return RQ's name for the queue of `stream`."""
    return QUEUE_PREFIX + stream


def queue_key(stream: str) -> str:
    """Return the list of ids waiting for `stream`."""
    return f"rq:queue:{QUEUE_PREFIX}{stream}"


def job_key(job_id: str) -> str:
    """Return the hash of one job."""
    return f"rq:job:{job_id}"


def new_key(job_id: str) -> str:
    """Return the hash with the body of a job that is being kept: there within one transaction."""
    return f"franker:new:{job_id}"


def started_key(stream: str) -> str:
    """Return the sorted set of claims, members "<job id>:<execution>", score +inf."""
    return f"rq:wip:{QUEUE_PREFIX}{stream}"


def scheduled_key(stream: str) -> str:
    """Return the sorted set of deferred jobs, by the time (seconds) they are due."""
    return f"rq:scheduled:{QUEUE_PREFIX}{stream}"


def failed_key(stream: str) -> str:
    """Return the sorted set of dead jobs."""
    return f"rq:failed:{QUEUE_PREFIX}{stream}"


def held_key(stream: str) -> str:
    """Return the sorted set of held jobs, all of one score: by id.

    RQ keeps here what waits for something else, shows it as deferred, and leaves it alone.
    """
    return f"rq:deferred:{QUEUE_PREFIX}{stream}"


def deferred_key(stream: str) -> str:
    """Return our sorted set of deferred jobs by the time (ms) they were accepted: their age."""
    return f"franker:deferred:{stream}"


def workers_key(stream: str) -> str:
    """Return the set of RQ's names of the workers that serve `stream`."""
    return f"rq:workers:{QUEUE_PREFIX}{stream}"


def fence_key(incarnation: str) -> str:
    """Return the hash that records a committing process's last batch (see commit.lua)."""
    return f"franker:commit:{incarnation}"


ONCE = "franker:once"
"""The sorted set of ids under which mail was kept that is kept only once, by Redis's time. Those
whose clients have heard so are taken out again."""


def results_key(job_id: str) -> str:
    """Return where RQ notes how its own runs of a job ended; it outlives the job."""
    return f"rq:results:{job_id}"


def untold_key(owner: str) -> str:
    """Return the sorted set of dead letters of which `owner` ("": notify.to) has not been told."""
    return f"franker:untold:{owner}"


TOLD = "franker:told"
"""The hash of owners with deaths, and when each was last written to (Redis's clock; 0: never)."""

WORKERS = "franker:workers"
"""The hash of the workers that live, by incarnation."""

PROCESSES = "franker:processes"
"""The hash of the processes in which they run, by incarnation."""

GRANTS = "franker:grants"
"""The hash of the connections that they may hold, by incarnation."""


def worker_key(incarnation: str) -> str:
    """Return the hash of what one worker says of itself."""
    return f"franker:worker:{incarnation}"


DISCARDED = "franker:discarded"
"""The hash of recipients that were deleted by hand, by stream."""

ALERTS = "franker:alerts"
"""The hash of what people were told is wrong (see `proxy.alerts.said`)."""

ROUTES = "franker:routes"
"""The hash of routes that are paused (see `proxy.queue.routes`)."""

HOLDS = "franker:holds"
"""The hash of what is held, by name (see `proxy.queue.holds`)."""

TURN = "franker:holds:turn"
"""A number that rises with each change of HOLDS."""

STORE = "franker:store"
"""The hash that tells this store from others, and from older copies of itself (lineage.lua)."""

REFUSALS = "franker:refusals"
"""The hash of rows of refusals, by route: since when nothing was taken (see settle.lua)."""

APIS = "franker:apis"
"""The set of Postmark's APIs to which a worker ever found a way, by name (a hash of the URL)."""

BY_HAND = "franker:by-hand"
"""The list of what was done by commands and is not in the log yet: JSON, oldest first, bounded."""


def stream_of(queue: str) -> str | None:
    """Return the stream of a queue, named by its list or by RQ's name; None for a foreign one."""
    name = queue.removeprefix("rq:queue:")
    return name.removeprefix(QUEUE_PREFIX) if name.startswith(QUEUE_PREFIX) else None
