"""The far end asks to slow down: how many connections it is given then. Pure."""

from worker.congestion import Congestion


def test_congestion_halves_the_connections_and_lets_them_grow_again() -> None:
    congestion = Congestion()
    congestion.narrow(10, 0.0)
    assert [congestion.width(10, now) for now in (0.0, 9.9, 20.0, 60.0)] == [5, 5, 7, 10]
    assert congestion.width(12, 60.0) == 12


def test_without_congestion_the_whole_share_is_used() -> None:
    assert Congestion().width(7, 0.0) == 7


def test_what_several_connections_are_told_at_once_halves_them_once() -> None:
    congestion = Congestion()
    congestion.narrow(10, 5.0)
    congestion.narrow(5, 6.0)
    assert congestion.width(10, 6.0) == 5
    congestion.narrow(5, 6.1)
    assert congestion.width(10, 6.1) == 2


def test_one_connection_is_always_left() -> None:
    congestion = Congestion()
    congestion.narrow(1, 0.0)
    assert congestion.width(10, 0.0) == 1


def test_a_share_that_shrinks_is_never_exceeded() -> None:
    congestion = Congestion()
    congestion.narrow(10, 0.0)
    assert congestion.width(3, 0.0) == 3
