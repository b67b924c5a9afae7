"""What this worker tells all workers of its Redis about its routes, and hears of them.

Everything travels with the heartbeat: what happened since the last one goes with the next, which is
hurried, and each brings the pauses of this worker's routes as they stand. A refused login and an
account that refuses everything concern whoever uses that account; a connection or a certificate
that fails concerns the workers of this host.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from worker.pauses import Pause, Scope

ANY_ROW = "*"
"""Stands for whatever row of refusals a route is in."""


class Member(Protocol):
    """A gate, as the board knows it."""

    @property
    def names(self) -> Mapping[Scope, str]:
        """What its route is called, for each scope; unique for the credentials it goes by."""
        ...

    def hear(self, scope: Scope, told: Mapping[str, Any] | None) -> None:
        """Take over how the route stands for all, as the record says; None: it is not paused."""
        ...

    def hear_row(self, row: str) -> None:
        """Hear the name of the row of refusals in which its account is; "": in none."""
        ...


class Board:
    """The gates of one worker, and what they have to say."""

    def __init__(self) -> None:
        self.hurry: Callable[[], None] = lambda: None
        """Called when there is something that should not wait for the next heartbeat."""
        self.has_heard = False
        """Whether Redis has ever told how the routes stand."""
        self._members: list[Member] = []
        self._apis_found: set[str] = set()  # by this worker
        self._apis_told: set[str] = set()
        self._rows: dict[str, str] = {}
        self._acts: list[list[Any]] = []
        self._underway: list[list[Any]] = []

    def join(self, member: Member) -> None:
        """Let `member` say and hear from now on."""
        self._members.append(member)

    def leave(self, member: Member) -> None:
        """Let `member` say and hear nothing any more."""
        self._members.remove(member)

    # -- said by gates -------------------------------------------------------------------------

    def closed(self, name: str, pause: Pause, now: float, facts: Mapping[str, Any]) -> None:
        """Say that a route is paused. `facts` (streams, host, where) are for people."""
        record = {
            **facts,
            "reason": pause.reason,
            "detail": pause.detail,
            "failures": pause.failures,
            "age": now - pause.since,
            "wait": max(0.0, pause.probe_at - now),
        }
        self._say("closed", name, record)

    def opened(self, name: str) -> None:
        """Say that a route is open."""
        self._say("opened", name)

    def probe(self, name: str) -> None:
        """Ask for a route to be tried now."""
        self._say("probe", name)

    def _say(self, *act: Any) -> None:
        what, name = act[:2]
        if what != "probe":  # what was said of it before is out of date
            self._acts = [earlier for earlier in self._acts if earlier[1] != name]
        self._acts.append(list(act))
        self.hurry()

    # -- carried by the heartbeat --------------------------------------------------------------

    def words(self) -> str:
        """Return what there is to say now, and all over again until `heard` is called."""
        self._underway, self._acts = self._underway + self._acts, []
        names = [name for member in self._members for name in member.names.values()]
        apis = sorted(self._apis_found - self._apis_told)
        return json.dumps({"routes": names, "acts": self._underway, "apis": apis})

    def heard(self, answer: bytes | str) -> None:
        """Hear how the routes stand, after everything that `words` returned."""
        self._underway = []
        self.has_heard = True
        told: dict[str, dict[str, Any]] = json.loads(answer)
        unsaid = {act[1] for act in self._acts}
        for member in self._members:
            for scope, name in dict(member.names).items():
                if name not in unsaid:  # else the answer is older than what we know
                    member.hear(scope, told.get(name))

    def heard_rows(self, told: Sequence[bytes]) -> None:
        """Hear which routes refuse mail just now: route, row as JSON, ...; with every answer."""
        if not told and not self._rows:
            return
        self._rows = {}
        for name, row in zip(told[::2], told[1::2], strict=True):
            try:
                said = json.loads(row)["id"]
            except (ValueError, LookupError, TypeError):
                said = None
            # What cannot be read is ended by the next message that is taken.
            self._rows[name.decode()] = said if isinstance(said, str) else ANY_ROW
        for member in self._members:
            member.hear_row(self._rows.get(member.names[Scope.ACCOUNT], ""))

    # -- ways to Postmark's API ------------------------------------------------------------------

    def found_api(self, name: str) -> None:
        """Say that there is a way to the API called `name`; said anew where Redis forgot it."""
        if name not in self._apis_found:
            self._apis_found.add(name)
            self.hurry()

    def knows_api(self, name: str) -> bool:
        """Tell whether any worker ever found a way to the API called `name`."""
        return name in self._apis_found or name in self._apis_told

    def heard_apis(self, told: Sequence[bytes]) -> None:
        """Hear to which APIs there is a way."""
        self._apis_told = {name.decode() for name in told}
