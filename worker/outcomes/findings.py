"""What Postmark's answers say about recipients whose outcome is unknown. Pure.

One message of ours may stand at Postmark as several: each transaction is one there, and all carry
our id. Nobody counts as sent unless a message lists him that can only be of the transaction in
question: a wrong "sent" would be a loss, a wrong "not found" is a second copy.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.mail.address import AddressError, ascii_domain, split_address

ID_KEY = "franker-id"
"""The metadata field that carries our id."""

REFUSED_LATER = "SMTPApiError"
"""The type of bounce by which Postmark refuses what it took over SMTP."""

_NUMBER = re.compile(r"error code:?\s*(\d{1,9})(?!\d)", re.IGNORECASE)
# The token, the account, the server or the stream, or trouble at Postmark: not the mail's fault.
_NOT_THE_MAIL = frozenset({10, 100, 101, 405, 412, 413, 422, 429, 1226, 1235, 1236})


class AnswerError(ValueError):
    """An answer that is not what the API is documented to say."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message at Postmark that carries our id; `recipients` are folded, see `folded`."""

    id: str
    recipients: frozenset[str]


@dataclass(frozen=True, slots=True)
class Refused:
    """A bounce by which Postmark refused a message after its 250; `address` is folded."""

    id: str
    address: str
    words: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known now: each recipient is in one of three, or still unknown.

    Each maps an address to the words that say so. `dead` were refused for good, `absent` were
    refused for a reason that is not the mail's: they can be sent again. `ids` are Postmark's ids
    of the messages refused.
    """

    sent: Mapping[str, str] = field(default_factory=dict)
    dead: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()


def folded(address: str) -> str:
    """Return `address` in the form in which two spellings of one mailbox compare equal."""
    local, domain = split_address(address.strip())
    with contextlib.suppress(AddressError):
        domain = ascii_domain(domain)
    return f"{local}@{domain}".lower()


def rows(answer: object, name: str) -> list[Mapping[str, Any]]:
    """Return the rows that a search answered with.

    Raises:
        AnswerError: there are none, not even an empty list of them.
    """
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise AnswerError(f"the answer has no {name}")
    return found


def names_us(row: Mapping[str, Any], message_id: str) -> bool | None:
    """Tell whether a row's metadata holds our id; None when the row shows no metadata."""
    metadata = row.get("Metadata")
    if not isinstance(metadata, dict):
        return None
    return any(key.lower() == ID_KEY and value == message_id for key, value in metadata.items())


def message(row: Mapping[str, Any]) -> Found:
    """Return a row of the search for messages.

    Raises:
        AnswerError: it says not whose message it is.
    """
    listed = row.get("Recipients")
    if not isinstance(listed, list):
        mailboxes = [one for name in ("To", "Cc", "Bcc") for one in _list(row.get(name))]
        listed = [one.get("Email") for one in mailboxes if isinstance(one, dict)]
    number = row.get("MessageID")
    if not isinstance(number, str) or not all(isinstance(one, str) for one in listed):
        raise AnswerError("a message without id or recipients")
    return Found(number, frozenset(map(folded, listed)))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def refusal(row: Mapping[str, Any]) -> Refused | None:
    """Return a row of the search for bounces; None: it is none of the kind that refuses mail."""
    number, address = row.get("MessageID"), row.get("Email")
    if not isinstance(number, str) or not isinstance(address, str):
        return None
    if row.get("Type", REFUSED_LATER) != REFUSED_LATER:
        return None
    said = row.get("Details") or row.get("Description") or "no reason given"
    return Refused(number, folded(address), f"refused by Postmark after its 250: {said}")


def candidates(found: Iterable[Found], suspects: Collection[str]) -> list[Found]:
    """Return the messages that can be the transaction with `suspects` (all it was offered to).

    One that lists anybody else is another transaction of the same message, or lists what stands
    in the header and not who was to get it: neither tells anything about these recipients.
    """
    asked = set(map(folded, suspects))
    return [one for one in found if one.recipients <= asked]


def conclude(
    unknown: Iterable[str],
    suspects: Collection[str],
    found: Iterable[Found],
    refused: Iterable[Refused],
    *,
    settled: Collection[str] = (),
) -> Finding:
    """Return what `found` and `refused` say about the recipients in `unknown`.

    `suspects` are all of the transaction whose end is not known, also those settled meanwhile.
    `settled` are Postmark's ids of messages that tell of an earlier time.
    """
    here = {one.id: one for one in candidates(found, suspects) if one.id not in settled}
    said = {one.address: one for one in refused if one.id not in settled}
    sent, dead, absent = dict[str, str](), dict[str, str](), dict[str, str]()
    ids: list[str] = []
    for address in unknown:
        key = folded(address)
        if no := said.get(key):
            (absent if _not_the_mail(no.words) else dead)[address] = no.words
            ids.append(no.id)
        elif holder := next((one for one in here.values() if key in one.recipients), None):
            sent[address] = f"found at Postmark, MessageID {holder.id}"
    return Finding(sent, dead, absent, tuple(dict.fromkeys(ids)))


def _not_the_mail(words: str) -> bool:
    match = _NUMBER.search(words)
    return match is not None and int(match[1]) in _NOT_THE_MAIL
