"""The account of what became of each recipient: log lines and metrics, from one place."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache

from proxy import log
from proxy.metrics import relaying
from worker.relay import Passage, Step
from worker.replies import TransactionReplies
from worker.smarthost.endpoints import Endpoint
from worker.verdict import Blame, Judgement


@cache
def _recipients(stream: str, verdict: str):  # type: ignore[no-untyped-def]  # Counter's child has no public type
    return relaying.RECIPIENTS.labels(stream, verdict)


@cache
def _attempts(stream: str, port: int, result: str):  # type: ignore[no-untyped-def]  # as above
    return relaying.RELAY_ATTEMPTS.labels(stream, str(port), result)


@cache
def _replies(code: int):  # type: ignore[no-untyped-def]  # as above
    return relaying.UPSTREAM_REPLIES.labels(str(code))


@cache
def _duration(stream: str):  # type: ignore[no-untyped-def]  # as above
    return relaying.DELIVERY_DURATION.labels(stream)


@cache
def _last_success(stream: str):  # type: ignore[no-untyped-def]  # as above
    return relaying.LAST_SUCCESS.labels(stream)


RESULTS = ("sent", "deferred", "refused", "broken", "unknown")
"""How a transaction ends: the label of `franker_relay_attempts_total`."""

LOOK_UP_RESULTS = ("found", "refused", "absent", "unanswered")
"""What Postmark knew: the label of `franker_look_ups_total`."""

VERDICTS = ("sent", "deferred", "dead")


def open_accounts(streams: Iterable[str], ports: Iterable[int]) -> None:
    """Let every series begin at 0: of one that begins at 1 nobody sees the first event."""
    for stream in streams:
        for verdict in VERDICTS:
            _recipients(stream, verdict)
        for port in ports:
            for result in RESULTS:
                _attempts(stream, port, result)
        _duration(stream)
        for found in LOOK_UP_RESULTS:
            relaying.LOOK_UPS.labels(stream, found)
        relaying.LOOK_UP_TOKEN_REFUSED.labels(stream)
    for where in ("relay", "worker", "outcomes", "notices", "expiry"):
        relaying.DEFECTS.labels(where)


def forget_credentials(streams: Iterable[str], names: Iterable[str]) -> None:
    """Show no more of `streams` by which of the credentials called `names` they go."""
    for stream in streams:
        for name in names:
            with contextlib.suppress(KeyError):
                relaying.CREDENTIAL_USED.remove(stream, name)


def transaction(
    passage: Passage, endpoint: Endpoint, replies: TransactionReplies, judgement: Judgement
) -> None:
    """Count one transaction and its replies; log what gave no verdict on anybody."""
    stream = passage.claim.stream
    if judgement.unknown:
        result = "unknown"
        log.unknown(
            passage.claim.id,
            stream=stream,
            recipients=tuple(judgement.unknown),
            detail=judgement.reason,
        )
    elif judgement.sent:
        result = "sent"
    elif replies.broken:
        result = "broken"
    elif judgement.deferred:
        result = "deferred"
    else:
        result = "refused"
    if judgement.again:
        log.attempt(
            passage.claim.id,
            stream=stream,
            recipients=tuple(judgement.again),
            host=endpoint.host,
            port=endpoint.port,
            detail=next(iter(judgement.again.values())),
        )
    _attempts(stream, endpoint.port, result).inc()
    for reply in (replies.mail, replies.data, replies.final):
        if reply is not None:
            _replies(reply.code).inc()
    for reply in replies.recipients.values():
        _replies(reply.code).inc()
    if judgement.blame is Blame.US:
        relaying.DEFECTS.labels("relay").inc()


def step(passage: Passage, outcome: Step, endpoint: Endpoint | None) -> None:
    """Log and count what one step decided about recipients."""
    claim, stream = passage.claim, passage.claim.stream
    now = time.time()
    age = max(0.0, now - claim.envelope.accepted_at)
    if outcome.sent:
        host, port = (endpoint.host, endpoint.port) if endpoint else ("", 0)
        for reply, recipients in _by_reply(outcome.sent).items():
            log.sent(
                claim.id,
                stream=stream,
                recipients=recipients,
                reply=reply,
                host=host,
                port=port,
                seconds=age,
            )
        _last_success(stream).set(now)
    for reply, recipients in _by_reply(outcome.dead).items() if outcome.dead else ():
        log.dead(claim.id, stream=stream, recipients=recipients, reply=reply)
    for reply, recipients in _by_reply(outcome.deferred).items():
        attempts = outcome.settlement.left.attempts if outcome.settlement.left else 0
        log.deferred(
            claim.id,
            stream=stream,
            recipients=recipients,
            reply=reply,
            attempts=attempts,
            delay=outcome.delay,
        )
    for verdict, addresses in (
        ("sent", outcome.sent),
        ("dead", outcome.dead),
        ("deferred", outcome.deferred),
    ):
        if addresses:
            _recipients(stream, verdict).inc(len(addresses))
            if verdict != "deferred":
                for _ in addresses:
                    _duration(stream).observe(age)


def _by_reply(replies: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    if len(replies) == 1:
        [(address, reply)] = replies.items()
        return {reply: (address,)}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for address, reply in replies.items():
        groups[reply].append(address)
    return {reply: tuple(addresses) for reply, addresses in groups.items()}
