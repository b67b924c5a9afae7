"""What Postmark's answers say about recipients whose outcome is unknown, and what follows. Pure."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.model import Retry
from tests.support.mail_queue import envelope
from worker.claims import Claim
from worker.outcomes import asking
from worker.outcomes.findings import (
    AnswerError,
    Finding,
    Found,
    Refused,
    conclude,
    folded,
    message,
    names_us,
    refusal,
    rows,
)
from worker.relay import Step

A, B, C = "a@example.net", "b@example.net", "c@example.net"
ASK_FOR = 300.0
QUESTIONS = settings(deadline=None)
RETRY = Retry()
OUR_ID = "01m7w9xfgkes0ytxfc75fx2xys"


def found(*recipients: str, number: str = "m-1") -> Found:
    return Found(number, frozenset(map(folded, recipients)))


def refused(address: str, words: str = "error code 300: no", number: str = "m-1") -> Refused:
    return Refused(number, folded(address), words)


def claim_of(*recipients: str, dot: tuple[str, ...] = (), **more: float) -> Claim:
    mail = envelope(*recipients, accepted_at=1.0, asked=more.pop("asked", 2.0), **more)
    return Claim(OUR_ID, "outbound", "e-1", mail, b"", dot=dot or recipients)


def follow(claim: Claim, finding: Finding | None, **options: object) -> Step:
    settled = {
        "ask_for": ASK_FOR,
        "unknown_outcome": "resend",
        "retry": RETRY,
        "chance": 0.5,
        "silence": "503",
    }
    return asking.follow(claim, finding, **(settled | options))  # type: ignore[arg-type]  # a table


# -- answers


def test_only_those_that_the_found_message_lists_are_sent() -> None:
    finding = conclude((A, B), (A, B), [found(A)], [])
    assert list(finding.sent) == [A]
    assert not finding.dead


def test_a_message_that_lists_others_too_is_another_transaction_and_tells_nothing() -> None:
    assert not conclude((A,), (A,), [found(A, B)], []).sent


def test_those_of_the_transaction_that_were_settled_meanwhile_may_be_listed() -> None:
    assert list(conclude((B,), (A, B), [found(A, B)], []).sent) == [B]


def test_a_refusal_after_the_250_goes_before_the_listing() -> None:
    finding = conclude((A, B), (A, B), [found(A, B)], [refused(A)])
    assert list(finding.sent) == [B]
    assert finding.dead == {A: "error code 300: no"}
    assert finding.ids == ("m-1",)


@pytest.mark.parametrize("number", [10, 101, 405, 413, 429, 1235])
def test_a_refusal_that_is_not_the_mails_fault_makes_no_dead_letter(number: int) -> None:
    finding = conclude((A,), (A,), [], [refused(A, f"Error code {number}: not now")])
    assert not finding.dead
    assert list(finding.absent) == [A]


def test_what_was_accounted_for_before_tells_nothing_now() -> None:
    finding = conclude((A,), (A,), [found(A)], [refused(A)], settled=("m-1",))
    assert finding == Finding()


@pytest.mark.parametrize(
    ("one", "other"),
    [(A, "A@Example.NET"), ("x@xn--bcher-kva.example", "x@bücher.example"), (A, f" {A} ")],
)
def test_one_mailbox_in_two_spellings_is_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_a_row_without_recipients_is_read_from_its_address_fields() -> None:
    row = {"MessageID": "m", "To": [{"Email": A}], "Cc": [], "Bcc": [{"Email": B}]}
    assert message(row).recipients == {A, B}


def test_metadata_tells_ours_from_all_others_and_its_absence_tells_nothing() -> None:
    assert names_us({"Metadata": {"Franker-ID": OUR_ID}}, OUR_ID)
    assert names_us({"Metadata": {"franker-id": "another"}}, OUR_ID) is False
    assert names_us({}, OUR_ID) is None


def test_a_bounce_of_another_type_is_no_refusal() -> None:
    assert refusal({"MessageID": "m", "Email": A, "Type": "HardBounce"}) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Messages", "MessageID", "Recipients", "To", "Email", "Metadata"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_an_answer_holds_it_is_read_or_refused(answer: object) -> None:
    try:
        for row in rows(answer, "Messages"):
            names_us(row, OUR_ID)
            refusal(row)
            message(row)
    except AnswerError:
        pass


# -- what follows


def test_found_for_all_the_message_is_gone() -> None:
    step = follow(claim_of(A, B), Finding(sent={A: "found", B: "found"}))
    assert step.settlement.then == "gone"
    assert list(step.sent) == [A, B]


def test_refused_later_is_a_dead_letter_and_remembers_as_what_it_died() -> None:
    step = follow(claim_of(A), Finding(dead={A: "error code 300"}, ids=("m-1",)))
    assert step.settlement.then == "gone"
    assert step.settlement.dead is not None
    assert step.settlement.dead.settled == ("m-1",)
    assert step.settlement.dead.asked == 0.0
    assert step.dead == {A: "error code 300"}


def test_not_found_yet_is_asked_again_with_its_whole_transaction_noted() -> None:
    step = follow(claim_of(B, dot=(A, B)), Finding())
    assert step.settlement.then == "defer"
    assert step.settlement.dot == (A, B)
    assert step.settlement.left is not None
    assert step.settlement.left.asked == 2.0 + step.delay
    assert step.settlement.left.attempts == 0
    assert not step.deferred


def test_pauses_double_up_to_a_minute_and_end_when_it_was_asked_for_long_enough() -> None:
    claim, pauses = claim_of(A), []
    while (step := follow(claim, Finding(), chance=0.0)).settlement.dot:
        assert step.settlement.left is not None
        pauses.append(round(step.delay))
        claim = replace(claim, envelope=step.settlement.left)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60, 56]
    assert step.settlement.then == "back"
    assert step.settlement.left is not None
    assert step.settlement.left.attempts == 1
    assert step.settlement.left.waited == 300
    assert step.settlement.left.asked == 0.0
    assert list(step.deferred) == [A]


@QUESTIONS
@given(st.floats(0, 1), st.floats(0.01, 1e5))
def test_asking_ends_whatever_chance_says(chance: float, ask_for: float) -> None:
    claim = claim_of(A, asked=asking.first_pause(ask_for, chance))
    questions = 0
    while (step := follow(claim, Finding(), chance=chance, ask_for=ask_for)).settlement.dot:
        assert step.settlement.left is not None
        claim = replace(claim, envelope=step.settlement.left)
        questions += 1
    assert questions <= 10 + ask_for / 50
    assert claim.envelope.asked <= ask_for * 1.3 + 10


def test_found_for_some_the_rest_is_asked_for_again() -> None:
    step = follow(claim_of(A, B, C), Finding(sent={A: "found"}, dead={B: "no"}, ids=("m",)))
    assert step.settlement.then == "defer"
    assert step.settlement.dot == (A, B, C)
    assert step.settlement.left is not None
    assert step.settlement.left.recipients == (C,)
    assert step.settlement.dead is not None
    assert step.settlement.dead.recipients == (B,)
    assert (list(step.sent), list(step.dead)) == ([A], [B])


def test_a_message_refused_for_the_accounts_sake_is_sent_again_after_the_usual_pause() -> None:
    step = follow(claim_of(A), Finding(absent={A: "error code 405"}, ids=("m-1",)))
    assert step.settlement.then == "defer"
    assert step.settlement.dot == ()
    assert step.settlement.left is not None
    assert step.settlement.left.settled == ("m-1",)
    assert step.delay == pytest.approx(RETRY.first)


def test_without_an_answer_it_is_asked_for_twelve_times_as_long_and_then_sent_again() -> None:
    claim = claim_of(A)
    while (step := follow(claim, None, chance=0.0)).settlement.dot:
        assert step.settlement.left is not None
        assert step.settlement.left.asked == 2.0
        claim = replace(claim, envelope=step.settlement.left)
    assert claim.envelope.unanswered == 12 * ASK_FOR
    assert step.settlement.then == "defer"
    assert list(step.deferred) == [A]


def test_where_there_is_no_way_to_the_api_it_is_not_waited_for_long() -> None:
    claim = claim_of(A, unanswered=ASK_FOR / 4)
    assert follow(claim, None, reachable=True).settlement.dot
    step = follow(claim, None, reachable=False)
    assert not step.settlement.dot
    assert list(step.deferred) == [A]


def test_without_an_answer_it_is_held_where_that_is_configured() -> None:
    step = follow(claim_of(A, unanswered=12 * ASK_FOR), None, unknown_outcome="hold")
    assert step.settlement.then == "gone"
    assert "503" in step.dead[A]


def test_an_answer_ends_the_count_of_silence() -> None:
    step = follow(claim_of(A, unanswered=50.0), Finding())
    assert step.settlement.left is not None
    assert step.settlement.left.unanswered == 0.0


def test_mail_that_was_sent_again_for_the_whole_horizon_dies_with_the_last_words() -> None:
    claim = claim_of(A, asked=ASK_FOR, waited=RETRY.horizon - 1)
    step = follow(claim, Finding())
    assert step.settlement.then == "gone"
    assert step.settlement.dead is not None
    assert step.settlement.dead.attempts == 1
    assert "not found at Postmark" in step.dead[A]
