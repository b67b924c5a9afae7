"""A look at the drop folder: whose turn it is, and what there is no letter.

Everybody on this host can fill it with files of any name and kind, as many as its disk has room
for. So what is remembered of a user's is bounded, and no one file ends a look.
"""

import os
import stat
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.drop.file import judge
from proxy.sendmail.drop import LISTENING, UNFINISHED

OF_ONE_USER = 1000
"""Letters of one user in one look: nobody's many keep the others' waiting."""

UNFINISHED_S = 86_400.0
"""A file that is still unfinished after this long never will be finished."""

_MOST_TROUBLES = 20  # named in one look: whoever fills the folder shall not fill the log, too
_MOST_HELD = 4 * OF_ONE_USER


@dataclass(frozen=True, slots=True)
class Found:
    """A letter's file: its name is the id under which the letter is kept once. `size` is octets."""

    once: str
    uid: int
    size: int


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the folder gave: what to take now, how many wait in all, what is no letter.

    `troubles` says of names why they are none; `passed` are the names passed over that are there.
    """

    letters: tuple[Found, ...] = ()
    waiting: int = 0
    troubles: Mapping[str, str] = field(default_factory=dict)
    passed: frozenset[str] = frozenset()


def look_at(place: int, but: frozenset[str]) -> Look:
    """Return what is in the folder open as `place`, but for the names to pass over.

    Of each user the oldest letters come first, and the users take turns, who has
    the oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    of_user: defaultdict[int, list[tuple[int, Found]]] = defaultdict(list)
    troubles: dict[str, str] = {}
    passed: list[str] = []
    waiting = 0
    for name in _names(place):
        if name in but:
            passed.append(name)
            continue
        try:
            status = os.stat(name, dir_fd=place, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:  # such as what a user has mounted there
            trouble = error.strerror or str(error)
        else:
            if name.startswith((LISTENING, UNFINISHED)):
                _clear(name, place, status)
                continue
            trouble = judge(name, status)
        if trouble:
            if len(troubles) < _MOST_TROUBLES:
                troubles[name] = trouble
            continue
        waiting += 1
        letters = of_user[status.st_uid]
        letters.append((status.st_ctime_ns, Found(name, status.st_uid, status.st_size)))
        if len(letters) > _MOST_HELD:
            _keep_oldest(letters)
    for letters in of_user.values():
        _keep_oldest(letters)
    first = sorted(of_user.values(), key=lambda letters: letters[0][0])
    queues = [deque(found for _, found in letters) for letters in first]
    return Look(tuple(_in_turns(queues)), waiting, troubles, frozenset(passed))


def _names(place: int) -> Iterator[str]:
    with os.scandir(place) as entries:
        for entry in entries:
            yield entry.name


def _keep_oldest(letters: list[tuple[int, Found]]) -> None:
    letters.sort(key=lambda one: one[0])
    del letters[OF_ONE_USER:]


def _in_turns(queues: list[deque[Found]]) -> Iterator[Found]:
    while queues:
        for queue in queues:
            yield queue.popleft()
        queues = [queue for queue in queues if queue]


def _clear(name: str, place: int, status: os.stat_result) -> None:
    """Remove what somebody began to write and never ended."""
    if name == LISTENING or stat.S_ISDIR(status.st_mode):
        return
    if time.time() - status.st_ctime > UNFINISHED_S:
        try:
            os.unlink(name, dir_fd=place)
        except OSError:
            return
