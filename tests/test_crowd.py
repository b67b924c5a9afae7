"""Who may hold how many connections, and who gives way: decided without sockets."""

from dataclasses import dataclass, field

import pytest

from proxy.listener.crowd import Crowd, client_share, is_local


@dataclass(eq=False)
class Member:
    """A connection of `uid` at `address`; `asked` counts the questions to the kernel."""

    address: str = "127.0.0.1"
    uid: int | None = 1000
    asked: int = field(default=0, init=False)
    gave_way: bool = field(default=False, init=False)

    def local_uid(self) -> int | None:
        self.asked += 1
        return self.uid

    def give_way(self) -> None:
        self.gave_way = True


def entered(
    crowd: Crowd, count: int, limit: int, *, idle: bool = False, **of: object
) -> list[Member]:
    """Let `count` connections in, all of which must be; with `idle` they wait for their clients."""
    members = [Member(**of) for _ in range(count)]  # type: ignore[arg-type]  # of: a Member's fields
    for member in members:
        assert crowd.enter(member, limit) is None
        if idle:
            crowd.rests(member)
    return members


@pytest.mark.parametrize(("limit", "share"), [(1, 1), (2, 1), (5, 4), (10, 8), (500, 400)])
def test_one_client_may_have_four_of_five_connections(limit: int, share: int) -> None:
    assert client_share(limit) == share


@pytest.mark.parametrize("uid", [1000, None])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "unix", "192.0.2.1"])
def test_a_client_whose_connections_are_all_busy_is_kept_at_its_part(
    address: str, uid: int | None
) -> None:
    crowd = Crowd()
    entered(crowd, 80, 100, address=address, uid=uid)
    assert crowd.enter(Member(address, uid), 100) == "connections_client"
    assert len(crowd) == 80
    entered(crowd, 20, 100, address="192.0.2.9")
    assert crowd.enter(Member("192.0.2.8"), 100) == "connections"


def test_other_users_of_this_host_have_what_one_leaves() -> None:
    crowd = Crowd()
    entered(crowd, 80, 100, uid=33)
    assert crowd.enter(Member(uid=33), 100) == "connections_client"
    assert crowd.enter(Member("127.0.0.2", uid=33), 100) == "connections_client"
    entered(crowd, 20, 100, uid=0)


def test_users_that_come_by_turns_are_told_apart_though_most_were_never_asked_of() -> None:
    crowd = Crowd()
    for _ in range(40):
        entered(crowd, 1, 100, uid=0)
        entered(crowd, 1, 100, uid=33)
    entered(crowd, 20, 100, uid=33)
    assert len(crowd) == 100
    crowd = Crowd()
    entered(crowd, 10, 100, uid=0)
    entered(crowd, 80, 100, uid=33)
    assert crowd.enter(Member(uid=33), 100) == "connections_client"
    assert crowd.enter(Member(uid=0), 100) is None


def test_the_kernel_is_not_asked_below_half_a_part_and_once_for_each_above() -> None:
    crowd = Crowd()
    few = entered(crowd, 40, 100)
    assert sum(one.asked for one in few) == 0
    more = entered(crowd, 40, 100)
    assert [one.asked for one in few + more] == [1] * 80
    remote = entered(crowd, 10, 100, address="192.0.2.1")
    assert sum(one.asked for one in remote) == 0


def test_the_longest_idle_connection_of_all_gives_way_at_the_limit() -> None:
    crowd = Crowd()
    busy = entered(crowd, 4, 10, address="192.0.2.1")
    idle = entered(crowd, 6, 10, address="192.0.2.2", idle=True)
    crowd.works(idle[0])
    crowd.rests(idle[0])  # it said something meanwhile
    entered(crowd, 1, 10, address="192.0.2.3")
    entered(crowd, 1, 10, address="192.0.2.4")
    assert [one.gave_way for one in idle] == [False, True, True, False, False, False]
    assert not any(one.gave_way for one in busy)
    assert len(crowd) == 10


def test_a_client_at_its_part_loses_its_own_longest_idle_and_nobody_elses() -> None:
    crowd = Crowd()
    others = entered(crowd, 2, 10, address="192.0.2.1", idle=True)
    own = entered(crowd, 8, 10, address="192.0.2.2", idle=True)
    entered(crowd, 1, 10, address="192.0.2.2")
    assert [one.gave_way for one in others] == [False, False]
    assert [one.gave_way for one in own] == [True] + [False] * 7


def test_the_longest_idle_is_known_among_connections_that_were_asked_of_late() -> None:
    crowd = Crowd()
    first, second, third = entered(crowd, 3, 10)
    for one in (third, first, second):
        crowd.rests(one)
    rest = entered(crowd, 5, 10, idle=True)
    entered(crowd, 1, 10)
    assert [one.gave_way for one in (first, second, third)] == [False, False, True]
    entered(crowd, 2, 10)
    assert [one.gave_way for one in (first, second, third)] == [True, True, True]
    assert not any(one.gave_way for one in rest)


def test_a_connection_that_left_counts_no_more_and_never_gives_way() -> None:
    crowd = Crowd()
    (gone,) = entered(crowd, 1, 2, address="192.0.2.1", idle=True)
    crowd.leave(gone)
    crowd.leave(gone)
    crowd.rests(gone)
    crowd.works(gone)
    assert len(crowd) == 0
    entered(crowd, 1, 2, address="192.0.2.1")
    entered(crowd, 1, 2, address="192.0.2.2")
    assert crowd.enter(Member("192.0.2.3"), 2) == "connections"
    assert not gone.gave_way


def test_a_limit_that_was_lowered_lets_nobody_in_before_there_is_room() -> None:
    crowd = Crowd()
    members = entered(crowd, 4, 10, address="192.0.2.1")
    assert crowd.enter(Member("192.0.2.2"), 3) == "connections"
    for member in members[:2]:
        crowd.leave(member)
    assert crowd.enter(Member("192.0.2.2"), 3) is None


def test_nothing_is_remembered_of_clients_that_are_gone() -> None:
    crowd = Crowd()
    for number in range(300):
        (member,) = entered(crowd, 1, 10, address=f"192.0.2.{number}", idle=True)
        crowd.leave(member)
    assert not any((crowd._clients, crowd._members, crowd._idle, crowd._unasked, crowd._local))


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("unix", True), ("12.0.0.1", False)],
)
def test_what_is_of_this_host_is_known_by_its_address(address: str, local: bool) -> None:
    assert is_local(address) is local
