"""From the drop folder into the queue: the way of all mail, for letters that lie in files.

A letter goes through the same rules, limits and commit as mail that comes by SMTP, under the id
that is its file's name, so that a message of which the proxy had said nothing is kept once even if
it was kept then. The file goes when the letter is durably kept; what is refused for good is kept
as a dead letter, and its owner is told.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from proxy import log
from proxy.drop.complaints import Complaints
from proxy.drop.file import Dropped
from proxy.drop.folder import DropFolder
from proxy.drop.look import Found, Look
from proxy.listener import Intake, replies
from proxy.listener.commands import MAX_PATH
from proxy.listener.peer import user_name
from proxy.mail.envelope import Client, Envelope
from proxy.metrics.intake import DEFECTS, DROP_MESSAGES
from proxy.submission import Refusal

LOOK_EVERY_S = 2.0
_LOOK_AGAIN_S = 1.0  # in the middle of many letters: whoever comes then waits no longer
_AGAIN_S = (5.0, 60.0)  # after trouble: first pause and longest
_AT_ONCE = 20
_AT_ONCE_OCTETS = 4_000_000
_CHECKED_AT_ONCE = 500  # recipients: a few milliseconds
_ADDRESS = "127.0.0.1"  # as if it had come by SMTP: who hands mail in this way is on this host
_NO_ADDRESS = "501 5.1.3 Bad recipient address: it is too long"


@dataclass(frozen=True, slots=True)
class _Terms:
    """By what a letter is judged, the same for the whole of it."""

    intake: Intake
    recipients: int
    refuses: str


class DropReader:
    """Takes what is in `folder`.

    `refuses` is the reply, "" for none, that everybody on this host hears at a connect.
    `recipients` is how many one message may have; one with more becomes several.
    """

    def __init__(
        self,
        folder: DropFolder,
        intake: Intake,
        *,
        recipients: int,
        refuses: str = "",
        every: float = LOOK_EVERY_S,
    ) -> None:
        self._folder = folder
        self._terms = _Terms(intake, recipients, refuses)
        self._every = every
        self._pause = 0.0
        self._wake = asyncio.Event()
        self._complaints = Complaints()
        self._left: set[str] = set()  # names of what is no letter
        self._waiting = 0
        self._look_took = 0.0
        DROP_MESSAGES.set_function(lambda: self._waiting)

    def go_by(self, intake: Intake, *, recipients: int, refuses: str) -> None:
        """Go by these from the next letter on, and look at once, whatever the time is."""
        self._terms = _Terms(intake, recipients, refuses)
        self._wake.set()

    async def run(self) -> None:
        """Take letters until cancelled."""
        while True:
            try:
                kept_all = await self._turn()
            except OSError as error:
                self._complaints.say(f"drop.folder: {self._folder.path}: {error.strerror or error}")
                kept_all = False
            except Exception as error:  # a defect here must not end it for good
                DEFECTS.labels("drop").inc()
                log.defect("drop", error=error)
                kept_all = False
            # A folder that somebody has filled with rubbish must not keep us from all else.
            least = max(self._every, 10 * self._look_took)
            self._pause = 0.0 if kept_all else min(max(2 * self._pause, _AGAIN_S[0]), _AGAIN_S[1])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(least, self._pause))
            self._wake.clear()

    async def _turn(self) -> bool:
        """Take what is there; return False when some of it could not be kept now."""
        more = True
        while more:
            look, self._look_took = await asyncio.to_thread(self._look, frozenset(self._left))
            looked = time.monotonic()
            self._waiting = look.waiting
            self._left &= look.passed
            for name, trouble in look.troubles.items():
                self._complaints.leave_alone(name, trouble, looked)
            enough = looked + max(_LOOK_AGAIN_S, 5 * self._look_took)
            more = len(look.letters) < look.waiting
            for some in _parcels(look.letters):
                if time.monotonic() > enough:  # it may be somebody else's turn
                    more = True
                    break
                if not await self._take(some):
                    return False
            if more:
                await asyncio.sleep(self._look_took)  # others have work to do, too
        return True

    def _look(self, but: frozenset[str]) -> tuple[Look, float]:
        # Processor time: a process that stood still in the middle has not worked for so long.
        began = time.thread_time()
        return self._folder.look(but), time.thread_time() - began

    async def _take(self, some: Sequence[Found]) -> bool:
        """Keep some letters and remove their files; return False when one could not be kept now.

        What turns out to be no letter is passed over from now on.
        """
        letters, troubles = await asyncio.to_thread(self._folder.read, [one.once for one in some])
        self._waiting -= len(some) - len(letters)
        for once, trouble in troubles.items():
            self._left.add(once)
            self._complaints.leave_alone(once, trouble, time.monotonic())
        done = await asyncio.gather(*map(self._keep, letters))
        kept = [letter for letter, is_kept in zip(letters, done, strict=True) if is_kept]
        await asyncio.to_thread(self._folder.remove, kept)
        self._waiting -= len(kept)
        return all(done)

    async def _keep(self, dropped: Dropped) -> bool:
        letter, terms = dropped.letter, self._terms
        client = Client(
            address=_ADDRESS,
            helo="localhost",
            uid=dropped.uid,
            user=user_name(dropped.uid),
        )
        whole = Envelope(
            letter.sender,
            tuple(letter.recipients),
            client,
            notify=not letter.never_notify,
            once=dropped.once,
        )
        refused = await _refused(whole, terms)
        good = tuple(one for one in whole.recipients if one not in refused)
        for start in range(0, len(good), terms.recipients):
            part = _part(whole, good[start : start + terms.recipients])
            outcome = terms.intake.decide(part, letter.message, time.monotonic(), came=dropped.came)
            if not isinstance(outcome, bytes):
                answer = await terms.intake.keep(outcome)
                if not answer.startswith(b"2"):
                    return False
            elif not outcome.startswith(b"2"):
                refused |= dict.fromkeys(part.recipients, replies.words(outcome))
        if not refused:
            return True
        dead = replace(_part(whole, tuple(refused)), once=_once(whole.once, refused, "dead"))
        return await terms.intake.bury(dead, letter.message, refused, came=dropped.came)


async def _refused(envelope: Envelope, terms: _Terms) -> dict[str, str]:
    """Return those whom SMTP would have refused before the message came, and its replies."""
    words = terms.refuses
    sender = terms.intake.check_sender(envelope.reverse_path)
    if not words and sender is not None:
        words = str(sender)
    if words:
        return dict.fromkeys(envelope.recipients, words)
    refused: dict[str, str] = {}
    found: Refusal | str | None
    for number, one in enumerate(envelope.recipients, 1):
        if number % _CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)  # there may be hundreds of thousands
        found = _NO_ADDRESS if len(one) > MAX_PATH else terms.intake.check_recipient(one)
        if found is not None:
            refused[one] = str(found)
    return refused


def _part(whole: Envelope, recipients: tuple[str, ...]) -> Envelope:
    """Return the envelope for some of the recipients; alone its id tells it from the others."""
    if recipients == whole.recipients:
        return whole
    return replace(whole, recipients=recipients, once=_once(whole.once, recipients))


def _once(once: str, recipients: Sequence[str] | dict[str, str], what: str = "") -> str:
    text = "\n".join((what, *recipients)).encode("utf-8", "surrogatepass")
    return f"{once}-{hashlib.sha256(text).hexdigest()[:16]}"


def _parcels(letters: Sequence[Found]) -> Iterator[list[Found]]:
    """Yield letters to be taken together: some small ones, or one that is large."""
    parcel: list[Found] = []
    octets = 0
    for letter in letters:
        if parcel and (len(parcel) >= _AT_ONCE or octets + letter.size > _AT_ONCE_OCTETS):
            yield parcel
            parcel, octets = [], 0
        parcel.append(letter)
        octets += letter.size
    if parcel:
        yield parcel
