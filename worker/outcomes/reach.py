"""Whether there is a way from here to Postmark's API, as all workers of a Redis know it.

Where none was ever found (a firewall that lets only SMTP out) waiting for an answer gains nothing;
where one was, a silence is trouble that will pass. A worker that is new, and finds the API silent,
cannot tell one from the other: so it is found out as soon as a worker starts, before any mail is in
doubt, and kept in Redis for those that come after.
"""

import asyncio
import hashlib

from worker.board import Board
from worker.outcomes.api import Api, Unanswered
from worker.outcomes.asking import FIRST_S, LONGEST_S


class Reach:
    """The way to the API at `url`; what `api` finds out is shared by `board`."""

    def __init__(self, url: str, api: Api, board: Board) -> None:
        self._name = hashlib.blake2b(url.encode(), digest_size=8, person=b"franker").hexdigest()
        self._api = api
        self._board = board

    @property
    def known(self) -> bool:
        """Whether a connection to it ever came about, by whatever worker.

        True as well while Redis has not told yet.
        """
        self.note()
        return self._board.knows_api(self._name) or not self._board.has_heard

    def note(self) -> None:
        """Tell the others of a connection that came about."""
        if self._api.connected:
            self._board.found_api(self._name)

    async def look(self) -> None:
        """Look until there is a way, now and then; without a token."""
        pause = FIRST_S
        while not self._board.knows_api(self._name):
            try:
                await self._api.knock()
            except Unanswered:
                await asyncio.sleep(pause)
                pause = min(LONGEST_S, pause * 2)
            self.note()
