"""What `make bench` measures, as data: the whole of it, and a quick form that shows that it works.

The quick form says nothing about speed: it has a hundredth of the messages.
"""

from benchmarks.scenarios import (
    FRANKER,
    POSTFIX,
    AtRest,
    Backlog,
    Drain,
    Flow,
    Idle,
    Load,
    LoadAlone,
    Outage,
    Scenario,
    Setup,
    SinkAlone,
)

ALONE = (FRANKER,)
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "flow": ("Kept and relayed at the same time, 5 KB", ("kept", "relayed")),
    "sizes": ("Sizes, 20 sessions (5 MB: 4)", ("kept", "relayed", "megabytes")),
    "queue": ("Kept while nothing relays, then relayed, 5 KB", ("kept", "relayed")),
    "outage": ("After an outage", ("first", "last", "relayed")),
    "rest": ("One message at a time", ("accept_p50", "accept_p99", "pass_p50", "pass_p99")),
    "backlog": (
        "With much mail waiting (Franker: redis.max_memory 8GB)",
        ("kept", "kept_lent", "relayed", "memory_each", "start", "first"),
    ),
    "idle": ("At rest", ("start", "idle_cpu", "rest_memory", "rest_memory_shared")),
    "scale": ("More than one proxy, more than one worker", ("kept", "relayed")),
    "wire": ("Round trips and connections", ("relayed",)),
    "alone": ("The tools, with nothing between them", ("kept", "relayed")),
}
"""Heading and figures of each group, in the order in which they are shown."""


def _flows(part: float) -> list[Scenario]:
    """Return what is kept and relayed at once; `part` of the whole number of messages."""

    def load(messages: int, sessions: int, size: int = 5120, *, fresh: bool = False) -> Load:
        return Load(max(sessions, 4, int(messages * part)), sessions, size, fresh)

    found = [
        Scenario(f"sessions-{sessions}", "flow", title, Flow(load(messages, sessions)))
        for sessions, messages, title in (
            (1, 3_000, "1 session, strictly one after the other"),
            (20, 20_000, "20 sessions"),
            (50, 20_000, "50 sessions"),
            (200, 20_000, "200 sessions"),
        )
    ]
    title = "20 sessions, a new connection for each message"
    found.append(Scenario("fresh", "flow", title, Flow(load(10_000, 20, fresh=True))))
    found += [
        Scenario(f"size-{name}", "sizes", title, Flow(load(messages, sessions, size)))
        for name, title, size, messages, sessions in (
            ("1kb", "1 KB", 1024, 20_000, 20),
            ("5kb", "5 KB", 5120, 20_000, 20),
            ("100kb", "100 KB", 102_400, 2_000, 20),
            # More at once than 48 MB, the default of listen.memory, would be told to come later.
            ("5mb", "5 MB", 5_000_000, 80, 4),
        )
    ]
    return found


def _queues(part: float) -> list[Scenario]:
    """Return what is kept first and relayed then."""

    def drain(messages: int, delay: float, connections: int = 10, workers: int = 1) -> Drain:
        setup = Setup(workers, connections=connections, relaying=False)
        return Drain(Load(max(60, int(messages * part)), sessions=50), delay, setup)

    near = Scenario("queue", "queue", "50 sessions; the far end near", drain(20_000, 0))
    title = "the far end 30 ms away, 10 connections"
    found = [near, Scenario("queue-30ms", "queue", title, drain(2_000, 30))]
    found += [
        Scenario(
            f"wire-{delay}ms-{connections}",
            "wire",
            f"{delay} ms; connections: {connections}",
            drain(messages, delay, connections),
            ALONE,
        )
        for delay, connections, messages in (
            (10, 10, 6_000),
            (30, 1, 400),
            (30, 50, 10_000),
            (100, 10, 1_000),
            (100, 50, 4_000),
        )
    ]
    found += [
        Scenario(
            f"workers-{workers}",
            "scale",
            f"{workers} workers drain what is kept, 10 connections each",
            drain(20_000, 0, 10 * workers, workers),
            ALONE,
        )
        for workers in (2, 3)
    ]
    return found


def _scale(part: float) -> list[Scenario]:
    """Return flows through more than one process of a kind."""
    load = Load(max(60, int(20_000 * part)), sessions=50)
    shapes = ((1, 2), (1, 3), (2, 1), (2, 2), (3, 3))
    return [
        Scenario(
            f"proxies-{proxies}-workers-{workers}",
            "scale",
            f"50 sessions; proxies: {proxies}, workers: {workers}",
            Flow(load, setup=Setup(workers, proxies)),
            ALONE,
        )
        for proxies, workers in shapes
    ]


def full() -> tuple[Scenario, ...]:
    """Return everything."""
    on_top = Load(20_000, 50)
    # Postfix tries mail again after 300 s at the earliest.
    few = {FRANKER: 3, POSTFIX: 1}
    return (
        Scenario(
            "sink", "alone", "the sink, 10 connections over TLS", SinkAlone(40_000), ("sink",)
        ),
        Scenario("load", "alone", "the load", LoadAlone(Load(40_000, 50)), ("load",)),
        *_flows(1),
        *_queues(1),
        *_scale(1),
        Scenario(
            "outage",
            "outage",
            "5,000 messages, 60 s without the far end",
            Outage(Load(5_000, 20), 60),
            at_most=few,
        ),
        Scenario("rest", "rest", "a message 0.3 s after the last", AtRest(200, 0.3)),
        Scenario("rest-5s", "rest", "a message 5 s after the last", AtRest(40, 5.0), at_most=few),
        Scenario("idle", "idle", "after a few messages, over a minute", Idle(60)),
        *(
            Scenario(
                f"backlog-{queued}",
                "backlog",
                f"{queued:,} waiting; 20,000 come, 20,000 go",
                Backlog(queued, on_top, Setup(relaying=False, max_memory="8GB")),
                (FRANKER, POSTFIX) if queued <= 100_000 else ALONE,
                few if queued <= 100_000 else {FRANKER: 2},
            )
            for queued in (1_000, 100_000, 500_000)
        ),
    )


def quick() -> tuple[Scenario, ...]:
    """Return all kinds of measurement, each as small as can be."""
    keep_only = Setup(relaying=False, max_memory="8GB")
    return (
        Scenario("sink", "alone", "the sink, 10 connections over TLS", SinkAlone(400), ("sink",)),
        Scenario("load", "alone", "the load", LoadAlone(Load(400, 50)), ("load",)),
        *_flows(0.01),
        *_queues(0.01),
        *_scale(0.01),
        Scenario("outage", "outage", "100 messages, 2 s", Outage(Load(100, 5), 2), ALONE),
        Scenario("rest", "rest", "a message 0.1 s after the last", AtRest(10, 0.1)),
        Scenario("idle", "idle", "after a few messages, over 2 s", Idle(2)),
        Scenario(
            "backlog-1000",
            "backlog",
            "1,000 waiting; 200 come, 200 go",
            Backlog(1_000, Load(200, 10), keep_only),
        ),
    )
