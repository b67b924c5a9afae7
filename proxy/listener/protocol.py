"""Commands as they come in: read line by line, obeyed one by one, whatever they are.

No task stands behind a session. What comes in drives it: most commands are obeyed at once, and
one that has to wait for something returns a coroutine, at whose end the next line is obeyed.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from proxy import log
from proxy.listener import replies
from proxy.listener.connection import LINE_LIMIT, SmtpConnection
from proxy.listener.door import Door
from proxy.metrics.intake import DEFECTS, MESSAGES_REFUSED

_ENDLESS_LINE = 1_000_000  # octets of a command line: then it is not SMTP
_UNSENT = 200  # replies that are held back so that they leave together
_ERRORS = 30  # faulty commands in a row: then neither
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"HOST:"})


class SmtpProtocol(SmtpConnection):
    """What obeys the commands, which subclasses have as `smtp_NAME` methods."""

    __slots__ = ("_errors", "_skipped", "data_refused")

    # By octets as they come. What is given back is still to be done before the next line.
    commands: ClassVar[dict[bytes, Callable[[Any, str], Coroutine[Any, Any, None] | None]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.commands = {
            name[5:].encode("ascii"): getattr(cls, name)
            for name in dir(cls)
            if name.startswith("smtp_")
        }

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._errors = 0
        self._skipped = 0  # octets of a line whose end has not come
        self.data_refused = False  # the last command was DATA, and it was refused

    def go_on(self) -> None:
        """Obey what has come, until it is used up or something has to be waited for."""
        try:
            self._obey_what_came()
        except Exception as error:
            self._fail(error)
        if self._closing:
            self.end()
        else:
            self._write()

    def _obey_what_came(self) -> None:
        while not self._waits:
            if self.office.stopping and not self.in_transaction:
                self.say(replies.STOPPING)
                self._closing = True
                return
            if len(self._out) >= _UNSENT:
                # Of what came in one piece: memory for the replies, and a turn for the others.
                self._due = True
                self.loop.call_soon(self._next_turn)
                return
            line = self._reader.take_line()
            if line is None:
                self._await_line()
                return
            self._line_came(line)

    def _next_turn(self) -> None:
        self._due = False
        self.go_on()

    def _await_line(self) -> None:
        """Be idle until more comes.

        Of a line over LINE_LIMIT only the end is kept, which still is over it.
        """
        if self._reader.ended:
            self._closing = True
            return
        self._skipped += self._reader.keep_last(LINE_LIMIT + 1)
        if self._skipped > _ENDLESS_LINE:
            self.say(replies.LONG_LINE)
            self.say(replies.TOO_MANY_ERRORS)
            self._closing = True
        elif not self._rests and not self.in_transaction:
            self._rests = True
            self.office.crowd.rests(self)

    def _line_came(self, line: bytes) -> None:
        self._skipped = 0
        if self._rests:
            self._rests = False
            self.office.crowd.works(self)
        self.touch()
        if not self.crlf and line.endswith(b"\r\n"):
            self.crlf = True
        if len(line) > LINE_LIMIT:
            self.fault(replies.LONG_LINE)
        else:
            self._obey(line)

    def _obey(self, line: bytes) -> None:
        words = line.split(None, 1)
        verb = words[0].upper() if words else b""
        argument = words[1].strip() if len(words) > 1 else b""
        method = self.commands.get(verb)
        if method is None:
            self._no_command(verb)
            return
        self.data_refused = False
        try:
            work = method(self, argument.decode("utf-8", "surrogateescape"))
        except Exception as error:
            self.say(self.defect(error))
        else:
            if work is not None:
                self.begin(work)

    def _no_command(self, verb: bytes) -> None:
        if verb in _HTTP:
            # A web page in a browser on this host can make it send such requests, with a
            # body that is SMTP: nothing of it may be obeyed.
            MESSAGES_REFUSED.labels("http").inc()
            log.refused(self.address, reason="http", reply=replies.words(replies.NOT_SMTP))
            self.say(replies.NOT_SMTP)
            self._closing = True
        elif self.data_refused:
            # It sends its message all the same, as programs do that read no replies. The
            # session ends here, or what somebody wrote into that message would be obeyed.
            MESSAGES_REFUSED.labels("data").inc()
            log.refused(self.address, reason="data", reply=replies.words(replies.NOT_ASKED))
            self.say(replies.NOT_ASKED)
            self._closing = True
        else:
            self.fault(replies.UNKNOWN_COMMAND)

    def defect(self, error: Exception) -> bytes:
        """Log our own error, forget the mail, and return a reply that says nothing of it."""
        log.defect("listener", error=error)
        DEFECTS.labels("listener").inc()
        self.reset_transaction()
        return replies.OUR_FAULT

    def fault(self, answer: bytes) -> None:
        """Answer a command that makes no sense; after many of them in a row, end the session.

        The log has the answer, never the line: it may be a login.
        """
        MESSAGES_REFUSED.labels("syntax").inc()
        log.refused(self.address, reason="syntax", reply=replies.words(answer))
        self._errors += 1
        if self._errors >= _ERRORS:
            self.say(answer)
            self.say(replies.TOO_MANY_ERRORS)
            self._closing = True
        else:
            self.say(answer)
