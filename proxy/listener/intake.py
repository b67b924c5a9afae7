"""From a message that has come whole to the reply: judge it, keep it, say so.

The order that the promise hangs on: 250 is built only after `GroupCommit.commit` has returned.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from prometheus_client import Counter

from proxy import log
from proxy.listener import replies
from proxy.mail.envelope import Envelope
from proxy.mail.ids import new_id
from proxy.metrics.intake import (
    ACCEPT_DURATION,
    DEFECTS,
    MESSAGE_SIZE,
    MESSAGES_ACCEPTED,
    MESSAGES_DISCARDED,
    MESSAGES_REFUSED,
    MESSAGES_REPAIRED,
)
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.expiry import read_clocks, stamped
from proxy.queue.job import RelayJob
from proxy.submission import (
    Discarded,
    Policy,
    Refusal,
    check_sender,
    resolve_recipient,
    submit,
)
from proxy.undeliverable import dead_letter

_NOT_KEPT = {"away": (451, "4.3.0"), "full": (452, "4.3.1")}


@dataclass(frozen=True, slots=True)
class Decided:
    """A message on its way into the queue; `ended_at` is when its last octet came (monotonic)."""

    job: RelayJob
    envelope: Envelope
    repairs: tuple[str, ...]
    ended_at: float


class Intake:
    """What every session hands its mail to."""

    def __init__(self, policy: Policy, commit: GroupCommit, *, wants_users: bool = False) -> None:
        self._policy = policy
        self._commit = commit
        self.wants_users = wants_users
        """Whether a rule asks which local user a client is: finding out costs 20 µs a session."""
        self._accepted: dict[str, Counter] = {}
        self._repaired: dict[str, Counter] = {}

    def check_sender(self, reverse_path: str) -> Refusal | None:
        """Judge what MAIL said."""
        return check_sender(self._policy, reverse_path)

    def check_recipient(self, address: str) -> Refusal | None:
        """Judge what RCPT said."""
        found = resolve_recipient(self._policy, address)
        return found if isinstance(found, Refusal) else None

    def heard(self, once: str) -> None:
        """Note that a client knows that its message is kept, which it does not bring again."""
        self._commit.heard(once)

    def decide(
        self, envelope: Envelope, content: bytes, ended_at: float, *, came: float | None = None
    ) -> Decided | bytes:
        """Return what is to be kept, or the reply when there is nothing to keep.

        `content` is as `Content.take` gives it; `ended_at` is when its last octet came (monotonic),
        `came` when that was a while ago (seconds since 1970).
        """
        now = time.time() if came is None else came
        message_id = new_id(int(now * 1000))
        outcome = submit(self._policy, envelope, content, message_id=message_id, now=now)
        if isinstance(outcome, Refusal):
            answer = replies.reply(outcome.code, outcome.enhanced, outcome.text)
            self._refused(envelope, outcome.reason, answer)
            return answer
        if isinstance(outcome, Discarded):
            MESSAGES_DISCARDED.labels(outcome.rule).inc()
            log.discarded(
                message_id,
                by=f"rule {outcome.rule}",
                reverse_path=envelope.reverse_path,
                recipients=envelope.recipients,
                client=envelope.client.address,
            )
            return replies.queued(message_id)
        job = outcome.job
        if job.envelope.expires_at is not None:
            clocks = read_clocks()
            # Its time began when it came; how long ago that was only the system clock can say.
            waited = 0.0 if came is None else max(0.0, clocks.wall - came)
            begun = replace(clocks, uptime=clocks.uptime - waited)
            job = replace(job, envelope=stamped(job.envelope, begun))
        return Decided(job, envelope, outcome.repairs, ended_at)

    async def keep(self, decided: Decided) -> bytes:
        """Put the message on disk and return the reply: 250 only when it is there."""
        job, envelope = decided.job, decided.envelope
        try:
            anew = await self._commit.commit(job)
        except NotKept as error:
            code, enhanced = _NOT_KEPT.get(error.kind, (451, "4.3.0"))
            answer = replies.reply(code, enhanced, error.text)
            self._refused(envelope, f"store_{error.kind}", answer, job.id)
            return answer
        except Exception as error:
            DEFECTS.labels("commit").inc()
            log.defect("commit", error=error, message_id=job.id)
            return replies.OUR_FAULT
        if not anew:
            log.kept_before(job.id, once=envelope.once, client=envelope.client.address)
            return replies.queued(job.id)
        seconds = time.monotonic() - decided.ended_at
        self._count(job, decided.repairs, seconds)
        log.kept(
            job.id,
            stream=job.stream,
            rule=job.envelope.rule or "-",
            reverse_path=envelope.reverse_path,
            recipients=envelope.recipients,
            size=len(job.body),
            client=envelope.client.address,
            seconds=seconds,
            repairs=decided.repairs,
        )
        return replies.queued(job.id)

    async def bury(
        self, envelope: Envelope, content: bytes, refused: Mapping[str, str], *, came: float
    ) -> bool:
        """Keep a dead letter for those in `refused`, each with the reply nobody was there to hear.

        Return False when it could not be kept now. Without an owner by its rule it is the user's
        who handed it in.
        """
        message_id = new_id(int(came * 1000))
        user = envelope.client.user
        found = resolve_recipient(self._policy, user) if user else None
        owner = found[0] if isinstance(found, tuple) else ""
        job = dead_letter(
            self._policy,
            envelope,
            content,
            refused,
            message_id=message_id,
            now=came,
            owner=owner,
        )
        try:
            anew = await self._commit.commit(job)
        except NotKept:
            return False
        if anew:
            for reply in dict.fromkeys(refused.values()):
                recipients = tuple(one for one, words in refused.items() if words == reply)
                log.dead(job.id, stream=job.stream, recipients=recipients, reply=reply)
        return True

    def _count(self, job: RelayJob, repairs: tuple[str, ...], seconds: float) -> None:
        accepted = self._accepted.get(job.stream)
        if accepted is None:
            accepted = self._accepted[job.stream] = MESSAGES_ACCEPTED.labels(job.stream)
        accepted.inc()
        ACCEPT_DURATION.observe(seconds)
        MESSAGE_SIZE.observe(len(job.body))
        for kind in repairs:
            repaired = self._repaired.get(kind)
            if repaired is None:
                repaired = self._repaired[kind] = MESSAGES_REPAIRED.labels(kind)
            repaired.inc()

    def _refused(
        self, envelope: Envelope, reason: str, answer: bytes, message_id: str = ""
    ) -> None:
        MESSAGES_REFUSED.labels(reason).inc()
        log.refused(
            envelope.client.address,
            reason=reason,
            reply=replies.words(answer),
            reverse_path=envelope.reverse_path,
            recipients=envelope.recipients,
            message_id=message_id,
        )
