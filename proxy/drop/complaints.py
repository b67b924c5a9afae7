"""What is said of the drop folder: each thing once, and of a flood only its first lines."""

import math

from proxy import log

_MOST_SAID = 1000
_MOST_NAMED = 20  # files that are no letters
_NAMED_WITHIN_S = 60.0


class Complaints:
    """Log lines that whoever fills the folder must not make a flood of."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._named, self._named_since = 0, -math.inf

    def leave_alone(self, name: str, trouble: str, now: float) -> None:
        """Say why a file is left alone; of a flood of them the first of each minute.

        `now` is in seconds, of a clock that never goes back.
        """
        text = f"drop: left alone: {name}: {trouble}"
        if text in self._said:
            return
        if now - self._named_since > _NAMED_WITHIN_S:
            self._named, self._named_since = 0, now
        self._named += 1
        if self._named <= _MOST_NAMED:
            self.say(text)
        elif self._named == _MOST_NAMED + 1:
            log.notice("drop: left alone: more files that are no letters")

    def say(self, text: str) -> None:
        """Say `text` unless it was said before."""
        if text not in self._said:
            if len(self._said) >= _MOST_SAID:
                self._said.clear()
            self._said.add(text)
            log.notice(text)
