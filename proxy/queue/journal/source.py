"""A journal on its way to Redis: the file, and how far it has been moved."""

from proxy.queue.journal.file import JournalFile
from proxy.queue.journal.record import HEADER_OCTETS


class Source:
    """A journal and how far it has been moved: up to `at`. `messages` are those still to move."""

    def __init__(self, file: JournalFile, messages: int = 0) -> None:
        self.file = file
        self.at = HEADER_OCTETS
        self.messages = messages
        self.moved = self.skipped = 0

    @property
    def left(self) -> int:
        """Octets not moved yet."""
        return self.file.end - self.at

    def begin_anew(self) -> None:
        """Note that the file is about to be emptied; mail may be written to it meanwhile."""
        self.at, self.messages, self.moved, self.skipped = HEADER_OCTETS, 0, 0, 0
