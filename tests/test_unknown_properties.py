"""However replies get lost and workers die: nobody gets a message twice, and nobody loses it.

All that decides, without anything around it, against a far end that is a list. It holds as long as
Postmark can be asked and finds a message within `ask_for`.
"""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.model import Retry
from proxy.queue.job import JobEnvelope
from tests.support.mail_queue import envelope
from worker import relay
from worker.claims import Claim, Settlement
from worker.outcomes.asking import first_pause, follow
from worker.outcomes.findings import Found, conclude, folded
from worker.verdict import Judgement

ASK_FOR = 60.0
INDEXED_AFTER_S = 55.0
RETRY = Retry()


@dataclass
class World:
    """A queue of jobs by the time they are due, and a far end that takes mail."""

    data: st.DataObject
    troubles: int
    now: float = 0.0
    jobs: list[tuple[float, JobEnvelope, tuple[str, ...]]] = field(default_factory=list)
    taken: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    def trouble(self, *kinds: str) -> str:
        """Draw one of `kinds`, or "" for none; there is only so much trouble."""
        if not self.troubles:
            return ""
        kind = self.data.draw(st.sampled_from(["", *kinds]))
        self.troubles -= bool(kind)
        return kind

    def take(self, recipients: tuple[str, ...]) -> None:
        self.taken.append((self.now, recipients))

    def apply(self, settlement: Settlement, before: JobEnvelope) -> None:
        """Do what the queue's script does, but for what stays claimed."""
        left = settlement.left or before
        if settlement.dead is not None:
            self.dead += settlement.dead.recipients
        if settlement.asked is not None:
            asked = settlement.asked
            self.jobs.append((self.now + asked.asked, asked, asked.recipients))
        if settlement.then in ("defer", "back"):
            self.jobs.append((self.now + settlement.delay, left, settlement.dot))

    def run(self) -> None:
        while self.jobs:
            self.jobs.sort(key=lambda job: job[0])
            due, mail, dot = self.jobs.pop(0)
            self.now = max(self.now, due)
            claim = Claim("01m7", "outbound", "e-1", mail, b"", dot=dot)
            if dot and relay.asks_for_all(claim):
                self.ask(claim)
                continue
            passage = relay.begin(claim)
            step = relay.resume(passage, "died", "ask") if dot else None
            if step is not None:
                self.apply(step.settlement, passage.envelope)
                assert step.passage is not None
                passage = step.passage
            self.relay(passage)

    def ask(self, claim: Claim) -> None:
        chance = self.data.draw(st.floats(0, 1))
        finding = None
        if not self.trouble("silence"):
            found = [
                Found(str(number), frozenset(map(folded, recipients)))
                for number, (at, recipients) in enumerate(self.taken)
                if at + INDEXED_AFTER_S <= self.now
            ]
            finding = conclude(claim.envelope.recipients, claim.dot, found, [])
        step = follow(
            claim, finding, ask_for=ASK_FOR, unknown_outcome="hold", retry=RETRY, chance=chance
        )
        self.apply(step.settlement, claim.envelope)

    def relay(self, passage: relay.Passage | None) -> None:
        while passage is not None:
            recipients = passage.next_recipients
            if death := self.trouble("died, taken", "died, not taken"):
                if death == "died, taken":
                    self.take(recipients)
                self.jobs.append((self.now + 8.0, passage.envelope, recipients))
                return
            before = passage.envelope
            step = relay.advance(
                passage,
                self.transaction(recipients),
                fresh=True,
                retry=RETRY,
                unknown_outcome="ask",
                chance=0.5,
                ask_in=first_pause(ASK_FOR, 0.5),
            )
            self.apply(step.settlement, before)
            passage = step.passage

    def transaction(self, recipients: tuple[str, ...]) -> Judgement:
        refused = recipients[:1] if self.trouble("rcpt 5yz") else ()
        later = recipients[1:2] if self.trouble("rcpt 4yz") else ()
        rest = tuple(one for one in recipients if one not in refused and one not in later)
        judged = Judgement(dead=dict.fromkeys(refused, "550"), deferred=dict.fromkeys(later, "451"))
        words = dict.fromkeys(rest, "as it ended")
        match (
            self.trouble("reply lost", "dot lost", "dropped before the dot", "452") if rest else ""
        ):
            case "reply lost":
                self.take(rest)
                return replace(judged, unknown=words)
            case "dot lost":
                return replace(judged, unknown=words)
            case "dropped before the dot":
                return replace(judged, again=words, midway=True)
            case "452":
                return replace(judged, deferred={**judged.deferred, **words})
            case _:
                if rest:
                    self.take(rest)
                return replace(judged, sent=words)


@settings(deadline=None)
@given(st.data(), st.integers(1, 130), st.integers(0, 12))
def test_each_recipient_is_sent_once_or_dead(
    data: st.DataObject, count: int, troubles: int
) -> None:
    everybody = [f"r{number}@example.net" for number in range(count)]
    world = World(data, troubles)
    world.jobs.append((0.0, envelope(*everybody, accepted_at=0.0), ()))
    world.run()
    sent = [address for _, recipients in world.taken for address in recipients]
    assert sorted(sent + world.dead) == sorted(everybody)
