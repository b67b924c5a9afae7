"""The table of who is to blame, row by row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.replies import ConnectFailure, Phase, Reply, TransactionReplies
from worker.verdict import Blame, Judgement, judge, judge_connect

A, B, C = "a@example.net", "b@example.net", "c@example.net"
OK = Reply(250, "2.0.0 Ok")
GO = Reply(354, "go on")


def reply(text: str) -> Reply:
    return Reply(int(text[:3]), text[4:])


def accounts(judgement: Judgement) -> dict[str, str]:
    """Return each recipient's account by name."""
    return {
        address: name
        for name in ("sent", "deferred", "dead", "again", "unknown")
        for address in getattr(judgement, name)
    }


def after_mail(text: str) -> Judgement:
    """What follows from a refused MAIL, with its echo at RCPT and DATA."""
    echo = reply("503 5.5.1 need MAIL")
    return judge(TransactionReplies(reply(text), {A: echo}, echo), (A,))


def after_rcpt(text: str, *, beside_accepted: bool = False) -> Judgement:
    """What follows from a refused RCPT for A, alone or with B accepted and sent."""
    if not beside_accepted:
        data = reply("554 5.5.1 no valid recipients")
        return judge(TransactionReplies(OK, {A: reply(text)}, data), (A,))
    replies = TransactionReplies(OK, {A: reply(text), B: OK}, GO, OK, dot_sent=True)
    judgement = judge(replies, (A, B))
    assert judgement.sent == {B: "250 2.0.0 Ok"}
    return judgement


def after_data(text: str) -> Judgement:
    """What follows from a refused DATA."""
    return judge(TransactionReplies(OK, {A: OK}, reply(text)), (A,))


def after_dot(text: str) -> Judgement:
    """What follows from the reply to the final dot."""
    return judge(TransactionReplies(OK, {A: OK}, GO, reply(text), dot_sent=True), (A,))


def test_250_to_the_dot_is_sent_with_the_far_ends_words() -> None:
    judgement = after_dot("250 2.0.0 Ok: queued as 4XyZ")
    assert judgement == Judgement(sent={A: "250 2.0.0 Ok: queued as 4XyZ"})


@pytest.mark.parametrize(
    ("text", "account", "blame"),
    [
        ("421 4.3.2 closing", "again", Blame.ENDPOINT),
        ("530 5.7.0 log in", "again", Blame.CREDENTIALS),
        ("534 5.7.9 weak", "again", Blame.CREDENTIALS),
        ("535 no", "again", Blame.CREDENTIALS),
        ("538 encrypt", "again", Blame.CREDENTIALS),
        ("554 5.7.1 relay access denied", "again", Blame.CREDENTIALS),
        ("450 4.7.1 slow down", "deferred", Blame.CONGESTION),
        ("451 4.3.0 later", "deferred", Blame.CONGESTION),
        ("452 4.3.1 no room", "deferred", Blame.CONGESTION),
        ("454 4.7.0 no auth now", "deferred", Blame.CONGESTION),
        ("500 5.5.2 what", "deferred", Blame.US),
        ("501 5.5.4 what", "deferred", Blame.US),
        ("503 5.5.1 order", "deferred", Blame.US),
        ("504 no", "deferred", Blame.US),
        ("555 5.5.4 SIZE", "deferred", Blame.US),
        ("550 5.5.0 what", "deferred", Blame.US),
        ("550 5.1.8 sender refused", "dead", Blame.MESSAGE),
        ("552 5.3.4 too big", "dead", Blame.MESSAGE),
        ("550 no", "dead", Blame.MESSAGE),
    ],
)
def test_a_refused_mail(text: str, account: str, blame: Blame) -> None:
    judgement = after_mail(text)
    assert accounts(judgement) == {A: account}
    assert judgement.blame is blame
    assert judgement.reason == text
    assert getattr(judgement, account) == {A: text}
    assert (judgement.refusal is not None) == (account == "dead")


@pytest.mark.parametrize(
    ("text", "account", "blame"),
    [
        ("421 4.3.2 closing", "again", Blame.ENDPOINT),
        ("530 5.7.0 log in", "again", Blame.CREDENTIALS),
        ("554 5.7.1 relay access denied", "again", Blame.CREDENTIALS),
        ("450 4.2.1 mailbox busy", "deferred", Blame.MESSAGE),
        ("450 4.7.1 greylisted", "deferred", Blame.CONGESTION),
        ("452 4.5.3 too many", "deferred", Blame.MESSAGE),
        ("452 4.2.2 over quota", "deferred", Blame.MESSAGE),
        ("552 5.5.3 too many", "deferred", Blame.MESSAGE),
        ("503 5.5.1 order", "deferred", Blame.US),
        ("550 5.1.1 no such user", "dead", Blame.MESSAGE),
        ("552 5.2.2 over quota", "dead", Blame.MESSAGE),
        ("553 5.1.3 bad address", "dead", Blame.MESSAGE),
    ],
)
def test_a_refused_recipient_alone(text: str, account: str, blame: Blame) -> None:
    judgement = after_rcpt(text)
    assert accounts(judgement) == {A: account}
    assert judgement.blame is blame
    assert judgement.refusal is None


@pytest.mark.parametrize(
    ("text", "account", "blame"),
    [
        ("450 4.2.1 mailbox busy", "deferred", Blame.MESSAGE),
        ("550 5.1.1 no such user", "dead", Blame.MESSAGE),
        ("452 4.5.3 too many", "again", Blame.NOBODY),
        ("452 too many", "again", Blame.NOBODY),
        ("552 5.5.3 too many", "again", Blame.NOBODY),
        ("452 4.2.2 over quota", "deferred", Blame.MESSAGE),
        ("552 5.2.2 over quota", "dead", Blame.MESSAGE),
        ("554 5.7.1 not for you", "deferred", Blame.MESSAGE),
    ],
)
def test_a_refused_recipient_beside_one_that_was_sent(
    text: str, account: str, blame: Blame
) -> None:
    judgement = after_rcpt(text, beside_accepted=True)
    assert accounts(judgement) == {A: account, B: "sent"}
    assert judgement.blame is blame


@pytest.mark.parametrize(
    ("text", "account", "blame"),
    [
        ("421 4.3.2 closing", "again", Blame.ENDPOINT),
        ("451 4.3.0 later", "deferred", Blame.MESSAGE),
        ("451 4.7.1 slow down", "deferred", Blame.CONGESTION),
        ("550 5.5.2 bare LF", "deferred", Blame.US),
        ("554 5.7.1 spam", "dead", Blame.MESSAGE),
        ("554 5.6.0 bad content", "dead", Blame.MESSAGE),
        ("552 5.3.4 too big", "dead", Blame.MESSAGE),
        ("530 5.7.0 log in", "again", Blame.CREDENTIALS),
    ],
)
def test_a_refused_content(text: str, account: str, blame: Blame) -> None:
    for judgement in (after_dot(text), after_data(text)):
        assert accounts(judgement) == {A: account}
        assert judgement.blame is blame
        assert (judgement.refusal is not None) == (account == "dead")


def test_a_refusal_of_the_whole_is_told_with_its_codes() -> None:
    judgement = after_dot("554 5.7.1 spam")
    assert judgement.refusal is not None
    assert (judgement.refusal.code, judgement.refusal.enhanced) == (554, "5.7.1")


def test_a_dot_without_a_reply_is_unknown_and_the_refused_are_not() -> None:
    replies = TransactionReplies(
        OK, {A: OK, B: reply("550 5.1.1 no")}, GO, dot_sent=True, broken="lost", owed=True
    )
    judgement = judge(replies, (A, B))
    assert accounts(judgement) == {A: "unknown", B: "dead"}
    assert judgement.unknown == {A: "lost"}
    assert judgement.blame is Blame.ENDPOINT
    assert not judgement.midway


@pytest.mark.parametrize("data", [Reply(250, "2.0.0 Ok"), Reply(354, "go on"), None])
def test_without_the_dot_nothing_is_sent_whatever_was_said(data: Reply | None) -> None:
    for final in (None, OK):
        judgement = judge(TransactionReplies(OK, {A: OK}, data, final, broken="lost"), (A,))
        assert accounts(judgement) == {A: "again"}


def test_a_drop_before_the_dot_costs_no_attempt_but_keeps_what_was_said() -> None:
    replies = TransactionReplies(OK, {A: reply("550 5.1.1 no"), B: OK}, broken="lost", owed=True)
    judgement = judge(replies, (A, B, C))
    assert accounts(judgement) == {A: "dead", B: "again", C: "again"}
    assert judgement.blame is Blame.ENDPOINT
    assert judgement.midway


def test_a_message_that_only_rode_along_is_not_suspected() -> None:
    judgement = judge(TransactionReplies(broken="lost"), (A,))
    assert accounts(judgement) == {A: "again"}
    assert judgement.blame is Blame.ENDPOINT
    assert not judgement.midway


def test_what_we_broke_off_is_nobodys_fault() -> None:
    judgement = judge(TransactionReplies(OK, {A: OK}, GO, broken="no", ours=True), (A,))
    assert accounts(judgement) == {A: "again"}
    assert judgement.blame is Blame.NOBODY
    assert not judgement.midway


def test_a_stop_while_the_reply_to_the_dot_is_owed_leaves_it_unknown() -> None:
    replies = TransactionReplies(OK, {A: OK}, GO, dot_sent=True, broken="stop", ours=True)
    judgement = judge(replies, (A,))
    assert accounts(judgement) == {A: "unknown"}
    assert judgement.blame is Blame.NOBODY


def test_421_in_the_middle_makes_the_message_a_suspect() -> None:
    replies = TransactionReplies(OK, {A: OK, B: reply("421 4.3.2 bye")}, broken="421", owed=True)
    judgement = judge(replies, (A, B, C))
    assert accounts(judgement) == {A: "again", B: "again", C: "again"}
    assert judgement.blame is Blame.ENDPOINT
    assert judgement.midway


def test_the_gravest_blame_of_several_is_named() -> None:
    replies = TransactionReplies(
        OK, {A: reply("550 5.1.1 no"), B: reply("450 4.7.1 slow"), C: OK}, GO, OK, dot_sent=True
    )
    judgement = judge(replies, (A, B, C))
    assert judgement.blame is Blame.CONGESTION
    assert judgement.reason == "450 4.7.1 slow"


CODES = st.sampled_from(
    [250, 251, 354, 421, 432, 450, 451, 452, 454, 500, 503, 530, 535, 550, 552, 554, 555, 571]
)
REPLIES = st.builds(
    Reply,
    CODES,
    st.sampled_from(["", "ok", "4.5.3 x", "5.7.1 x", "4.7.0 x", "5.5.1 x", "5.1.1 x", "2.0.0 x"]),
)
MAYBE = st.none() | REPLIES


@given(MAYBE, st.lists(MAYBE, min_size=1, max_size=4), MAYBE, MAYBE, st.booleans(), st.booleans())
def test_every_recipient_has_exactly_one_account_whatever_was_said(
    mail: Reply | None,
    answers: list[Reply | None],
    data: Reply | None,
    final: Reply | None,
    dot_sent: bool,
    ours: bool,
) -> None:
    recipients = tuple(f"r{number}@example.net" for number in range(len(answers)))
    said = {a: r for a, r in zip(recipients, answers, strict=True) if r is not None}
    replies = TransactionReplies(mail, said, data, final, dot_sent, "lost", ours, owed=True)
    judgement = judge(replies, recipients)
    held = [
        address
        for name in ("sent", "deferred", "dead", "again", "unknown")
        for address in getattr(judgement, name)
    ]
    assert sorted(held) == sorted(recipients)
    # The two that cannot be mended: sent needs a 2yz, dead needs a 5yz.
    assert all(words.startswith("2") for words in judgement.sent.values())
    assert all(words.startswith("5") for words in judgement.dead.values())
    assert not any(words.startswith(("530", "535", "500", "503")) for words in judgement.dead)


@pytest.mark.parametrize("phase", Phase)
def test_a_connection_that_fails_is_never_the_messages_fault(phase: Phase) -> None:
    for said in (None, reply("554 5.7.1 no"), reply("421 4.3.2 no")):
        blame = judge_connect(ConnectFailure(phase, said, "x"))
        assert blame in (Blame.ENDPOINT, Blame.HOST, Blame.CREDENTIALS)


def test_only_trust_is_the_hosts_fault_and_only_the_login_the_credentials() -> None:
    refused = reply("535 5.7.8 no")
    by_blame: dict[Blame, set[Phase]] = {}
    for phase in Phase:
        by_blame.setdefault(judge_connect(ConnectFailure(phase, refused, "x")), set()).add(phase)
    assert by_blame[Blame.HOST] == {Phase.OFFER, Phase.CERTIFICATE}
    assert by_blame[Blame.CREDENTIALS] == {Phase.MECHANISM, Phase.PROOF, Phase.AUTH}
