"""A refusal for policy: our login's fault, or one message's? By tables, with a clock of its own."""

from worker.suspicion import REFUSED_ALIKE, TRUSTED_S, Cause, Suspicion


def test_where_nothing_has_passed_yet_the_login_is_suspected_at_once() -> None:
    assert Suspicion().judge("a", 0.0) is Cause.ROUTE


def test_one_message_refused_while_others_pass_is_tried_again_before_anybody_is_blamed() -> None:
    suspicion = Suspicion()
    suspicion.accepted(0.0)
    assert suspicion.judge("a", 1.0) is Cause.UNCLEAR


def test_refused_again_after_other_mail_has_passed_it_is_the_messages_own_fault() -> None:
    suspicion = Suspicion()
    suspicion.accepted(0.0)
    suspicion.judge("a", 1.0)
    suspicion.accepted(2.0)
    assert suspicion.judge("a", 3.0) is Cause.MESSAGE


def test_refused_again_after_a_fresh_login_it_is_the_messages_own_fault() -> None:
    suspicion = Suspicion()
    assert suspicion.judge("a", 0.0) is Cause.ROUTE
    suspicion.logged_in(15.0)
    assert suspicion.judge("a", 16.0) is Cause.MESSAGE


def test_several_messages_refused_with_none_taken_between_speak_against_the_login() -> None:
    suspicion = Suspicion()
    suspicion.accepted(0.0)
    causes = [suspicion.judge(f"m{number}", 1.0) for number in range(REFUSED_ALIKE)]
    assert causes == [Cause.UNCLEAR] * (REFUSED_ALIKE - 1) + [Cause.ROUTE]


def test_a_250_of_long_ago_does_not_speak_for_the_login() -> None:
    suspicion = Suspicion()
    suspicion.accepted(0.0)
    assert suspicion.judge("a", TRUSTED_S + 1) is Cause.ROUTE
