"""Who holds the connections: so many in all, and of those at most 80 % for one client.

A client is a remote address, and on this host a user: all its programs share an address, and one
of them that opens connections without end must leave some to the others. The kernel is asked whose
a connection is (20 µs) only from half a client's part on; below that nobody can hold too many.

No I/O but by its members. Nothing here takes longer when there are more connections.
"""

from collections import OrderedDict
from collections.abc import Hashable
from operator import itemgetter
from typing import Literal, Protocol, TypeAlias

CLIENT_PERCENT = 80
"""Of all connections, the most that one client may hold."""

Refusal: TypeAlias = Literal["connections", "connections_client"]


class Member(Hashable, Protocol):
    """A connection. `address` is its client's, "unix" for one that has none."""

    address: str

    def local_uid(self) -> int | None:
        """Return the user of this host whose connection it is; None: the kernel does not say."""

    def give_way(self) -> None:
        """End: another needs the place. There is no mail in hand."""


def client_share(limit: int) -> int:
    """Return how many of `limit` connections one client may hold."""
    return max(1, limit * CLIENT_PERCENT // 100)


def is_local(address: str) -> bool:
    """Return whether `address`, in its shortest form, is one that only this host has."""
    return address.startswith("127.") or address in ("::1", "unix")


class _Client:
    __slots__ = ("held", "idle", "key", "mixed")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.held = 0
        self.idle: _Idle = OrderedDict()
        self.mixed = False  # `idle` is out of order: some became this client's later


_Idle: TypeAlias = OrderedDict["Member", int]  # the longest idle first, by when they became so

_UNASKED = object()  # the key of local connections of which the kernel was not asked yet
_ASK_AT_ONCE = 2  # of those, with each connection that comes: so all are known when it matters


class Crowd:
    """The connections that count, and which of them wait for a client without mail in hand."""

    def __init__(self) -> None:
        self._members: dict[Member, _Client] = {}
        self._clients: dict[Hashable, _Client] = {}
        self._idle: _Idle = OrderedDict()
        self._moments = 0
        self._unasked: OrderedDict[Member, None] = OrderedDict()
        self._local = 0

    def __len__(self) -> int:
        """Return how many connections count now."""
        return len(self._members)

    def enter(self, member: Member, limit: int) -> Refusal | None:
        """Let `member` in, or return which limit keeps it out.

        At a limit the longest idle connection gives way: one of the client's own where it has its
        part of `limit`, anybody's at `limit` itself.
        """
        share = client_share(limit)
        key = self._key_of(member, share)
        client = self._clients.get(key)
        if client is not None and client.held >= share:
            if client.mixed:
                client.idle = OrderedDict(sorted(client.idle.items(), key=itemgetter(1)))
                client.mixed = False
            if not self._room_from(client.idle):
                return "connections_client"
        if len(self._members) >= limit and not self._room_from(self._idle):
            return "connections"
        self._join(member, key)
        self._local += is_local(member.address)
        if key is _UNASKED:
            self._unasked[member] = None
        return None

    def leave(self, member: Member) -> None:
        """Count `member` no more; a second time changes nothing."""
        if member in self._members:
            self.works(member)
            self._part(member)
            self._unasked.pop(member, None)
            self._local -= is_local(member.address)

    def rests(self, member: Member) -> None:
        """Note that `member` has no mail in hand, and waits for its client from now on."""
        client = self._members.get(member)
        if client is not None:
            self._moments += 1
            self._idle[member] = client.idle[member] = self._moments

    def works(self, member: Member) -> None:
        """Note that `member` has something to do."""
        client = self._members.get(member)
        if client is not None and self._idle.pop(member, None) is not None:
            del client.idle[member]

    def _room_from(self, idle: _Idle) -> bool:
        if not idle:
            return False
        longest = next(iter(idle))
        self.leave(longest)
        longest.give_way()
        return True

    def _key_of(self, member: Member, share: int) -> Hashable:
        if not is_local(member.address):
            return member.address
        # Fewer than half a part are never asked of. Each that comes beyond that asks of itself and
        # of two of those: when a part is full, all are known.
        if self._local < share // 2:
            return _UNASKED
        for _ in range(min(_ASK_AT_ONCE, len(self._unasked))):
            self._ask_of_the_first()
        return _user_of(member)

    def _ask_of_the_first(self) -> None:
        member, _none = self._unasked.popitem(last=False)
        since = self._members[member].idle.pop(member, None)
        self._part(member)
        client = self._join(member, _user_of(member))
        if since is not None:
            client.idle[member] = since
            client.mixed = True

    def _join(self, member: Member, key: Hashable) -> _Client:
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(key)
        client.held += 1
        self._members[member] = client
        return client

    def _part(self, member: Member) -> None:
        client = self._members.pop(member)
        client.held -= 1
        if not client.held:
            del self._clients[client.key]


def _user_of(member: Member) -> Hashable:
    uid = member.local_uid()
    return member.address if uid is None else uid
