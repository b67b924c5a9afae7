"""What the sandbox took, and what it made of it: messages, bounces, suppressions."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from proxy.sandbox import checks
from proxy.sandbox.account import Account
from proxy.sandbox.message import Taken

BOUNCE_TYPES = {
    "HardBounce": 1,
    "Transient": 2,
    "Unsubscribe": 16,
    "Subscribe": 32,
    "AutoResponder": 64,
    "AddressChange": 128,
    "DnsError": 256,
    "SpamNotification": 512,
    "OpenRelayTest": 1024,
    "Unknown": 2048,
    "SoftBounce": 4096,
    "VirusNotification": 8192,
    "ChallengeVerification": 16384,
    "BadEmailAddress": 100000,
    "SpamComplaint": 100001,
    "ManuallyDeactivated": 100002,
    "Unconfirmed": 100003,
    "Blocked": 100006,
    "SMTPApiError": 100007,
    "InboundError": 100008,
    "DMARCPolicy": 100009,
    "TemplateRenderingFailed": 100010,
}

_BY_PLAIN_NAME = {name.lower(): name for name in BOUNCE_TYPES}


@dataclass(frozen=True, slots=True)
class Bounce:
    """One bounce as Postmark's API shows it; `text` is what its dump begins with."""

    number: int
    type: str
    taken: Taken
    email: str
    description: str
    text: str
    at: float
    inactive: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """One AUTH: which user said so, how, whether it was right, and whether it was in the clear."""

    mechanism: str
    user: str
    accepted: bool
    tls: bool
    host: str
    port: int


class Entry:
    """A message together with the judgement on it, made when somebody asks."""

    def __init__(self, taken: Taken, judge: Callable[[Taken], checks.Finding]) -> None:
        self.taken = taken
        self._judge = judge

    @cached_property
    def finding(self) -> checks.Finding:
        """What Postmark makes of it."""
        return self._judge(self.taken)

    @property
    def delivered(self) -> tuple[str, ...]:
        """The recipients that the message goes to."""
        if self.finding.lost:
            return ()
        refused = self.finding.refused()
        return tuple(one for one in self.taken.recipients if one not in refused)


class Store:
    """Everything taken, newest last, bounded by number and by octets: the oldest are forgotten.

    Judgement is lazy, so that a load test pays for it only when somebody looks; it is always
    made in the order in which messages came, so that a suppression never acts on the past.
    """

    def __init__(self, account: Account, *, keep: int = 50_000, keep_octets: int = 400_000_000):
        self.account = account
        self.count = 0  # of everything ever taken
        self.logins: deque[Login] = deque(maxlen=10_000)
        self.suppressions: dict[str, dict[str, str]] = {}  # stream -> address -> reason
        self._entries: deque[Entry] = deque()
        self._waiting: deque[Entry] = deque()
        self._bounces: deque[Bounce] = deque(maxlen=keep)
        self._keep = keep
        self._keep_octets = keep_octets
        self._octets = 0
        self._bounce_numbers = itertools.count(1)

    def add(self, taken: Taken) -> Entry:
        """Keep one message."""
        entry = Entry(taken, self._examine)
        self.count += 1
        self._octets += len(taken.content)
        self._entries.append(entry)
        self._waiting.append(entry)
        while len(self._entries) > self._keep or (
            self._octets > self._keep_octets and len(self._entries) > 1
        ):
            self._octets -= len(self._entries.popleft().taken.content)
        if len(self._waiting) > self._keep:
            self._settle()
        return entry

    def clear(self) -> None:
        """Forget messages, bounces, suppressions and logins; the count starts again."""
        for kept in (self._entries, self._waiting, self._bounces, self.logins):
            kept.clear()
        self.suppressions.clear()
        self._octets = self.count = 0

    @property
    def messages(self) -> list[Taken]:
        """All messages kept, oldest first, whatever became of them."""
        return [entry.taken for entry in tuple(self._entries)]  # others look on from their threads

    def entries(self) -> list[Entry]:
        """All messages kept with the judgement on them, oldest first."""
        self._settle()
        return list(self._entries)

    def entry(self, message_id: str) -> Entry | None:
        """Return the message with Postmark's id `message_id`."""
        return next((one for one in self.entries() if one.taken.id == message_id), None)

    def bounces(self) -> list[Bounce]:
        """All bounces, newest first."""
        self._settle()
        return list(reversed(self._bounces))

    def suppress(self, stream: str, address: str, reason: str) -> None:
        """Put `address` on the stream's list: mail to it ends as an SMTPApiError from now on."""
        self._settle()
        self.suppressions.setdefault(stream, {})[address.lower()] = reason

    def release(self, stream: str, address: str) -> bool:
        """Take `address` off the stream's list; False when it was not on it."""
        self._settle()
        return self.suppressions.get(stream, {}).pop(address.lower(), None) is not None

    def judge(self, entry: Entry) -> checks.Finding:
        """Return what became of `entry`, and of all that came before it."""
        self._settle()
        return entry.finding

    def _examine(self, taken: Taken) -> checks.Finding:
        return checks.examine(taken, self.account, self.suppressions.get(taken.stream, {}))

    def _settle(self) -> None:
        while self._waiting:
            entry = self._waiting.popleft()
            self._bounces.extend(self._bounces_of(entry))

    def _bounces_of(self, entry: Entry) -> Iterator[Bounce]:
        taken = entry.taken
        for trouble in entry.finding.troubles:
            text = f"Error code {trouble.number}: {trouble.text}"
            for email in trouble.recipients:
                yield self._bounce("SMTPApiError", taken, email, "SMTP API error", text)
        for email, wanted in checks.wanted_bounces(entry.delivered):
            kind = _BY_PLAIN_NAME.get(wanted.replace("_", "").lower(), "HardBounce")
            kind = "HardBounce" if kind == "SpamComplaint" else kind
            text = f"Test bounce event of type {kind}"
            yield self._bounce(kind, taken, email, text, text, inactive=kind == "HardBounce")
            if kind == "HardBounce":
                self.suppressions.setdefault(taken.stream, {})[email.lower()] = "HardBounce"

    def _bounce(
        self,
        kind: str,
        taken: Taken,
        email: str,
        description: str,
        text: str,
        *,
        inactive: bool = False,
    ) -> Bounce:
        number = next(self._bounce_numbers)
        return Bounce(number, kind, taken, email, description, text, taken.at, inactive)
