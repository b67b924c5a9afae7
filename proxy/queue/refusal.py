"""Why a message was not kept, in words for the client that brought it."""

from typing import Literal, TypeAlias

from redis.exceptions import ResponseError

Kind: TypeAlias = Literal["away", "full", "not_durable", "unknown"]


class NotKept(Exception):
    """The message was not kept, and the client must be told so (4yz, never 5yz).

    `kind` "full" means 452, anything else 451; `text` is for the client. Of kind "unknown" it may
    be that it was kept after all: it is withdrawn when Redis answers, unless it went out already.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind: Kind = kind
        self.text = f"{text}; try again later"

    def again(self) -> "NotKept":
        """Return the same for another client: an exception that is raised twice grows."""
        return NotKept(self.kind, str(self))


def away() -> NotKept:
    """Redis does not answer."""
    return NotKept("away", "the mail store does not answer")


def unwritable() -> NotKept:
    """Redis answers that it cannot write."""
    return NotKept("away", "the mail store cannot write")


def ending() -> NotKept:
    """This process is about to end."""
    return NotKept("away", "shutting down")


def unknown() -> NotKept:
    """Redis was given the message and did not say in time that it has it."""
    return NotKept("unknown", "the mail store did not confirm in time")


def full(why: str) -> NotKept:
    """The store holds as much as it may; `why` has the limit, the use, and what sets the limit."""
    return NotKept("full", f"the mail store is full: {why}")


def not_durable(why: str) -> NotKept:
    """Redis does not keep what it confirms; `why` names the setting and how to set it right."""
    return NotKept("not_durable", f"the mail store is not durable: {why}")


def journal_full() -> NotKept:
    """Redis is away or full, and so is the journal."""
    return NotKept("full", "the mail store takes no mail and its journal is full")


def journal_failed() -> NotKept:
    """Redis is away, and the journal cannot be written."""
    return NotKept("away", "the mail store is away and its journal cannot be written")


_REFUSALS = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "BUSY", "NOAUTH", "NOPERM", "CLUSTERDOWN")


def before_running(error: ResponseError) -> bool:
    """Return whether the server refused a script because of its own state, before running it."""
    return type(error) is not ResponseError or str(error).startswith(_REFUSALS)
