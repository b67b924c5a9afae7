"""Postmark's own fields (X-PM-*): those of the rule, and what is let through of the client's."""

from proxy.mail.fields import Field, Header, unfolded
from proxy.mail.limits import METADATA_FIELDS, METADATA_KEY, METADATA_VALUE, TAG
from proxy.mail.repairs import Repair
from proxy.mail.treatment import Treatment
from proxy.mail.words import decode_words, encode_text

ID_FIELD = b"X-PM-Metadata-franker-id"
OWN = (b"x-pm-", b"x-postmark-server-token")
"""How the names of Postmark's own fields begin, in lower case."""

_METADATA = b"x-pm-metadata-"
_BOOLEANS = {b"true": b" true", b"false": b" false"}
_TRACK_LINKS = {
    value.lower(): b" " + value for value in (b"None", b"HtmlAndText", b"HtmlOnly", b"TextOnly")
}


def mark(header: Header, treatment: Treatment, message_id: str) -> set[Repair]:
    """Put the stream, our id and what the rule says on top; take off what may not stay.

    The rule's tag, tracking and metadata go before the client's own. The header must be ASCII.
    Returns the kinds of repair that the client's fields took: "marks" where one said nothing that
    Postmark takes, or what the rule decides; "limits" where one was beyond Postmark's limits.
    """
    client = _Own(header)
    top = header.put_on_top
    top(b"X-PM-Message-Stream", b" " + treatment.stream_id.encode("ascii"))
    top(ID_FIELD, b" " + message_id.encode("ascii"))
    keep_id = client.choice(b"x-pm-keepid", _BOOLEANS)
    if treatment.keep_id and keep_id != b" false":
        top(b"X-PM-KeepID", b" true")
    own_tag = client.tag()
    if tag := treatment.tag or own_tag:
        top(b"X-PM-Tag", tag)
    own_opens = client.choice(b"x-pm-trackopens", _BOOLEANS)
    if opens := treatment.track_opens or own_opens:
        top(b"X-PM-TrackOpens", opens)
    own_links = client.choice(b"x-pm-tracklinks", _TRACK_LINKS)
    if links := treatment.track_links or own_links:
        top(b"X-PM-TrackLinks", links)
    for key, value in treatment.metadata:
        top(b"X-PM-Metadata-" + key, value)
    if client.fields:
        taken = {key.lower() for key, _ in treatment.metadata} | {b"franker-id"}
        for key, value in client.metadata(taken, METADATA_FIELDS - 1 - len(treatment.metadata)):
            top(b"X-PM-Metadata-" + key, value)
        if client.fields:
            client.kinds.add("marks")
    return client.kinds


class _Own:
    """The client's X-PM-* fields, taken off the header; what nobody asks for is dropped."""

    __slots__ = ("fields", "kinds")

    def __init__(self, header: Header) -> None:
        self.kinds: set[Repair] = set()
        self.fields: dict[bytes, Field] = {}
        for name in header.names():
            if name.startswith(OWN) and (field := header.field(name)) is not None:
                self.fields[name] = field
                header.remove(name)

    def choice(self, name: bytes, values: dict[bytes, bytes]) -> bytes:
        """Return the value that Postmark knows for what the field says, "" for none."""
        field = self.fields.pop(name, None) if self.fields else None
        if field is None:
            return b""
        known = values.get(unfolded(field[1]).lower(), b"")
        if not known:
            self.kinds.add("marks")
        return known

    def tag(self) -> bytes:
        """Return the tag, cut to what Postmark takes."""
        field = self.fields.pop(b"x-pm-tag", None) if self.fields else None
        if field is None:
            return b""
        text = _text(field[1])
        if len(text) <= TAG:
            return field[1]
        self.kinds.add("limits")
        return encode_text(text[:TAG], b"X-PM-Tag")

    def metadata(self, taken: set[bytes], room: int) -> list[tuple[bytes, bytes]]:
        """Return keys and values of at most `room` metadata fields whose keys are not `taken`."""
        found: list[tuple[bytes, bytes]] = []
        for name in [name for name in self.fields if name.startswith(_METADATA)]:
            written, value = self.fields.pop(name)
            key = written[len(_METADATA) :]
            if key.lower() in taken:
                self.kinds.add("marks")
            elif (
                not 0 < len(key) <= METADATA_KEY
                or len(_text(value)) > METADATA_VALUE
                or len(found) >= room
            ):
                self.kinds.add("limits")
            else:
                found.append((key, value))
        return found


def _text(value: bytes) -> str:
    return decode_words(unfolded(value).decode("utf-8", errors="replace"))
