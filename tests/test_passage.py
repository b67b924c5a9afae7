"""One transaction's judgement in, the next step of the message out: pure, by tables."""

from dataclasses import replace

import pytest

from proxy.config.model import Retry
from tests.support.mail_queue import envelope
from worker import relay
from worker.claims import Claim
from worker.verdict import Blame, Judgement

RETRY = Retry()
A, B, C = "a@example.net", "b@example.net", "c@example.net"


def passage_to(*recipients: str) -> relay.Passage:
    return relay.begin(
        Claim("01m7", "outbound", "e-1", envelope(*recipients, accepted_at=1.0), b"x")
    )


def advance(passage: relay.Passage, judgement: Judgement, **options: object) -> relay.Step:
    settled = {"fresh": False, "retry": RETRY, "unknown_outcome": "resend", "chance": 0.5}
    return relay.advance(passage, judgement, **(settled | options))  # type: ignore[arg-type]  # a table of options


def test_a_message_sent_to_everybody_is_gone() -> None:
    step = advance(passage_to(A, B), Judgement(sent={A: "250 ok", B: "250 ok"}))
    assert step.passage is None
    assert step.settlement.then == "gone"
    assert step.settlement.dead is None


def test_those_left_are_tried_next_and_the_message_stays_claimed() -> None:
    step = advance(passage_to(A, B), Judgement(sent={A: "250 ok"}))
    assert step.settlement.then == "keep"
    assert step.passage is not None
    assert step.passage.next_recipients == (B,)
    assert step.settlement.left is not None
    assert step.settlement.left.recipients == (B,)


def test_a_recipient_deferred_is_not_tried_again_in_the_same_round() -> None:
    first = advance(passage_to(A, B), Judgement(deferred={A: "451 later"}))
    assert first.passage is not None
    assert first.passage.next_recipients == (B,)
    second = advance(first.passage, Judgement(sent={B: "250 ok"}))
    assert second.passage is None
    assert second.settlement.then == "defer"
    assert second.settlement.left is not None
    assert second.settlement.left.recipients == (A,)
    assert second.settlement.left.replies == {A: "451 later"}


def test_a_deferral_adds_one_attempt_and_its_delay_to_the_age() -> None:
    step = advance(passage_to(A), Judgement(deferred={A: "451 later"}))
    assert step.delay == pytest.approx(RETRY.first)
    assert step.settlement.left is not None
    assert step.settlement.left.attempts == 1
    assert step.settlement.left.waited == pytest.approx(RETRY.first)


def test_the_dead_leave_as_a_letter_of_their_own_with_their_words() -> None:
    judgement = Judgement(sent={A: "250 ok"}, deferred={B: "451 later"}, dead={C: "550 no"})
    step = advance(passage_to(A, B, C), judgement)
    letter = step.settlement.dead
    assert letter is not None
    assert letter.recipients == (C,)
    assert letter.replies == {C: "550 no"}
    assert step.settlement.left is not None
    assert step.settlement.left.recipients == (B,)


def test_mail_that_waited_for_the_whole_horizon_dies() -> None:
    old = passage_to(A)
    old = replace(old, envelope=replace(old.envelope, waited=RETRY.horizon - 1, attempts=300))
    step = advance(old, Judgement(deferred={A: "451 later"}))
    assert step.settlement.then == "gone"
    assert step.settlement.dead is not None
    assert step.dead[A] == "given up after 301 attempts: 451 later"


def test_a_connection_lost_before_the_dot_costs_no_attempt() -> None:
    judgement = Judgement(again={A: "lost"}, blame=Blame.ENDPOINT, reason="lost", midway=True)
    step = advance(passage_to(A), judgement)
    assert step.passage is not None
    assert step.passage.envelope.attempts == 0
    assert step.passage.wants_fresh


def test_three_fresh_connections_lost_blame_the_message() -> None:
    judgement = Judgement(again={A: "lost"}, blame=Blame.ENDPOINT, reason="lost", midway=True)
    passage: relay.Passage | None = passage_to(A)
    for _ in range(2):
        assert passage is not None
        passage = advance(passage, judgement, fresh=True).passage
    assert passage is not None
    step = advance(passage, judgement, fresh=True)
    assert step.settlement.then == "defer"
    assert step.settlement.left is not None
    assert step.settlement.left.attempts == 1


def test_connections_that_were_in_use_before_do_not_count_against_the_message() -> None:
    judgement = Judgement(again={A: "lost"}, blame=Blame.ENDPOINT, reason="lost", midway=True)
    passage: relay.Passage | None = passage_to(A)
    for _ in range(10):
        assert passage is not None
        passage = advance(passage, judgement, fresh=False).passage
    assert passage is not None


def test_an_unknown_outcome_is_deferred_with_resend() -> None:
    step = advance(passage_to(A), Judgement(unknown={A: "no reply came"}))
    assert step.settlement.then == "defer"


def test_an_unknown_outcome_becomes_a_dead_letter_with_hold() -> None:
    step = advance(passage_to(A), Judgement(unknown={A: "no reply"}), unknown_outcome="hold")
    assert step.settlement.then == "gone"
    assert step.dead == {A: "the outcome is unknown: no reply"}


def test_a_claim_with_its_dot_out_goes_on_with_the_others_when_held() -> None:
    claim = Claim("01m7", "outbound", "e-1", envelope(A, B), b"x", dot=(A,))
    step = relay.resume(relay.begin(claim), "the worker died", "hold")
    assert step is not None
    assert step.passage is not None
    assert step.passage.next_recipients == (B,)
    assert step.settlement.dead is not None
    assert step.settlement.dead.recipients == (A,)


def test_a_claim_with_its_dot_out_is_tried_as_a_whole_when_resent() -> None:
    claim = Claim("01m7", "outbound", "e-1", envelope(A, B), b"x", dot=(A,))
    assert relay.resume(relay.begin(claim), "the worker died", "resend") is None


def test_at_most_50_recipients_are_offered_at_once() -> None:
    passage = passage_to(*(f"r{number}@example.net" for number in range(120)))
    sizes = []
    while passage:
        sizes.append(len(passage.next_recipients))
        step = advance(passage, Judgement(sent=dict.fromkeys(passage.next_recipients, "250 ok")))
        passage = step.passage  # type: ignore[assignment]  # None ends the loop
    assert sizes == [50, 50, 20]


def test_mail_postponed_keeps_its_attempts_and_its_age() -> None:
    step = relay.postpone(passage_to(A), "550 suspended", delay=30.0)
    assert step.settlement.then == "defer"
    assert step.settlement.left is not None
    assert (step.settlement.left.attempts, step.settlement.left.waited) == (0, 0.0)


def test_unknown_recipients_wait_to_be_asked_for_and_the_others_go_on() -> None:
    step = advance(
        passage_to(A, B, C), Judgement(unknown={A: "no reply"}), unknown_outcome="ask", ask_in=2.0
    )
    assert step.passage is not None
    assert step.passage.next_recipients == (B, C)
    assert step.settlement.then == "keep"
    asked = step.settlement.asked
    assert asked is not None
    assert (asked.recipients, asked.asked) == ((A,), 2.0)
    assert asked.replies == {A: "the outcome is unknown: no reply"}


def test_where_all_that_are_left_are_unknown_the_message_itself_waits() -> None:
    judgement = Judgement(sent={A: "250 ok"}, unknown={B: "no reply"}, dead={C: "550 no"})
    step = advance(passage_to(A, B, C), judgement, unknown_outcome="ask", ask_in=2.0)
    settlement = step.settlement
    assert (settlement.then, settlement.delay, settlement.dot) == ("defer", 2.0, (B,))
    assert settlement.asked is None
    assert settlement.left is not None
    assert settlement.left.recipients == (B,)
    assert settlement.left.attempts == 0
    assert settlement.dead is not None
    assert settlement.dead.recipients == (C,)
    assert not step.deferred


def test_those_deferred_keep_their_own_pause_beside_those_asked_for() -> None:
    judgement = Judgement(deferred={A: "451 later"}, unknown={B: "no reply"})
    step = advance(passage_to(A, B), judgement, unknown_outcome="ask", ask_in=2.0)
    assert (step.settlement.then, step.settlement.delay) == ("defer", RETRY.first)
    assert step.settlement.dot == ()
    assert step.settlement.left is not None
    assert step.settlement.left.recipients == (A,)
    assert step.settlement.asked is not None
    assert step.settlement.asked.recipients == (B,)


def test_a_claim_with_its_dot_out_goes_on_with_the_others_when_asked_for() -> None:
    claim = Claim("01m7", "outbound", "e-1", envelope(A, B), b"x", dot=(A,))
    assert not relay.asks_for_all(claim)
    step = relay.resume(relay.begin(claim), "the worker died", "ask")
    assert step is not None
    assert step.passage is not None
    assert step.passage.next_recipients == (B,)
    assert step.settlement.asked is not None
    assert step.settlement.asked.recipients == (A,)
    assert not step.dead


def test_a_claim_of_which_only_the_unknown_are_left_is_asked_for_as_a_whole() -> None:
    claim = Claim("01m7", "outbound", "e-1", envelope(A), b"x", dot=(A, B))
    assert relay.asks_for_all(claim)
