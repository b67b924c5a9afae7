"""Whether a refusal for policy (X.7.x to MAIL or RCPT) is about our login or about one message.

Both look alike. Our login is the likelier cause where nothing has passed with it lately; a message
that is refused again, after other mail or a fresh login has passed, is itself the cause.
Times are seconds, monotonic.
"""

from enum import Enum

TRUSTED_S = 600.0
"""How long a 250 speaks for the login it was given to."""

REFUSED_ALIKE = 3
"""Different messages refused, with no 250 between, that speak against the login after all."""

_REMEMBERED = 10_000


class Cause(Enum):
    """What a refusal is put down to."""

    ROUTE = "route"  # it pauses
    UNCLEAR = "unclear"  # tried again later, no attempt counted
    MESSAGE = "message"  # deferred, an attempt counted


class Suspicion:
    """What speaks for and against the login of one channel."""

    def __init__(self) -> None:
        self._accepted_at: float | None = None
        self._passed_at = float("-inf")  # a 250, or a fresh login
        self._refused: set[str] = set()  # messages since the last 250
        self._doubted: dict[str, float] = {}

    def accepted(self, now: float) -> None:
        """Note that a message was taken."""
        self._accepted_at = self._passed_at = now
        self._refused.clear()

    def logged_in(self, now: float) -> None:
        """Note that a fresh connection was let in."""
        self._passed_at = now

    def judge(self, message_id: str, now: float) -> Cause:
        """Return what a refusal of `message_id` is put down to."""
        doubted_at = self._doubted.get(message_id)
        if doubted_at is not None and self._passed_at > doubted_at:
            return Cause.MESSAGE
        if len(self._doubted) >= _REMEMBERED:
            self._doubted.clear()
        self._doubted[message_id] = now
        self._refused.add(message_id)
        trusted = self._accepted_at is not None and now - self._accepted_at < TRUSTED_S
        if trusted and len(self._refused) < REFUSED_ALIKE:
            return Cause.UNCLEAR
        return Cause.ROUTE
