"""[[rules]]: which mail it is, and what is done with it."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from proxy.config.fields import OptionalMailbox, listed, network
from proxy.config.section import Section
from proxy.config.units import Duration

TAG_CHARACTERS = 1000
METADATA_FIELDS = 9
"""Postmark takes ten; the tenth is our own franker-id."""
METADATA_KEY_CHARACTERS = 20
METADATA_VALUE_CHARACTERS = 80
_NAME_CHARACTERS = 60
_HEADER_OCTETS = 900  # with its name and our ": " it stays one line of RFC 5322 (998 octets)

_PRINTABLE = re.compile(r"[ -~]*")
_METADATA_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 §2.2: printable ASCII without the colon
_OURS = re.compile(r"(?i)x-pm-.*|x-postmark-.*")
_INSTEAD = {
    "from": 'it is set by the rule\'s key "from"',
    "bcc": "the envelope alone decides who gets a message",
    "resent-bcc": "the envelope alone decides who gets a message",
    "content-type": "it says how to read the body, which a rule cannot change",
    "content-transfer-encoding": "it says how to read the body, which a rule cannot change",
    "mime-version": "it says how to read the body, which a rule cannot change",
    "received": "it is the trace of the message's way",
}


def _selected(value: object) -> object:
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


def _uids_as_text(value: object) -> object:
    value = _selected(value)
    if not isinstance(value, list | tuple):
        return value
    return tuple(
        str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in value
    )


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if "" in values:
        raise ValueError('text that is not empty; the null sender is written "<>"')
    return values


def _clients(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "unix":
            network(value)
    return values


def _tag(value: str) -> str:
    if len(value) > TAG_CHARACTERS or not _PRINTABLE.fullmatch(value):
        raise ValueError(f"a tag is at most {TAG_CHARACTERS} printable ASCII characters")
    return value


def _metadata(values: dict[str, str]) -> dict[str, str]:
    if len(values) > METADATA_FIELDS:
        raise ValueError(
            f"at most {METADATA_FIELDS} fields ({len(values)} here): Postmark takes 10, one is ours"
        )
    seen: set[str] = set()
    for key, value in values.items():
        low = key.lower()
        if low == "franker-id":
            raise ValueError('the field "franker-id" is Franker\'s own; choose another name')
        if low in seen:
            raise ValueError(f'the field "{key}" stands twice: case does not matter in names')
        seen.add(low)
        if len(key) > METADATA_KEY_CHARACTERS or not _METADATA_KEY.fullmatch(key):
            raise ValueError(
                f'a field\'s name is 1 to {METADATA_KEY_CHARACTERS} of A-Z a-z 0-9 "-" "_", '
                f'unlike "{key[:40]}"'
            )
        if not 0 < len(value) <= METADATA_VALUE_CHARACTERS or not _PRINTABLE.fullmatch(value):
            raise ValueError(
                f"a field's value is 1 to {METADATA_VALUE_CHARACTERS} printable ASCII characters; "
                f'"{key}" has {len(value)}'
            )
    return values


def _field_name(name: str) -> None:
    if not _FIELD_NAME.fullmatch(name) or len(name) > METADATA_VALUE_CHARACTERS:
        raise ValueError(f'"{name[:40]}" is no header field\'s name; write "X-Site", no colon')
    if _OURS.fullmatch(name):
        raise ValueError(
            f'"{name[:40]}" is Franker\'s to set, by the keys stream, tag, metadata, keep_id, '
            "track_opens and track_links"
        )
    if name.lower() in _INSTEAD:
        raise ValueError(f'"{name}" cannot be changed here: {_INSTEAD[name.lower()]}')


def _set_headers(values: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name, value in values.items():
        _field_name(name)
        if name.lower() in seen:
            raise ValueError(f'"{name}" stands twice: case does not matter in names')
        seen.add(name.lower())
        if not value.strip() or len(value.encode()) > _HEADER_OCTETS or not value.isprintable():
            raise ValueError(
                f'the text for "{name}" is one line of 1 to {_HEADER_OCTETS} octets without '
                "control characters"
            )
    return values


def _remove_headers(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        _field_name(name)
    return names


Patterns = Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(_not_empty)]
"""Texts of which one must match; "*" stands for any run of characters."""


def _name(value: str) -> str:
    if not 0 < len(value) <= _NAME_CHARACTERS or not value.isprintable() or "@" in value:
        raise ValueError(
            f"1 to {_NAME_CHARACTERS} printable characters and no @, since metrics show it"
        )
    return value


class Rule(Section):
    """One rule. In a file `name` may be left out: it is "rule-1", "rule-2", ... by position."""

    name: Annotated[str, AfterValidator(_name)]
    sender: Patterns = ()
    recipient: Patterns = ()
    client: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(_clients)] = ()
    user: Annotated[
        tuple[str, ...], BeforeValidator(_uids_as_text), AfterValidator(_not_empty)
    ] = ()
    login: Patterns = ()
    subject: Patterns = ()
    stream: str = "outbound"
    tag: Annotated[str, AfterValidator(_tag)] = ""
    metadata: Annotated[dict[str, str], AfterValidator(_metadata)] = Field(default_factory=dict)
    from_: OptionalMailbox = Field(default="", alias="from")
    keep_id: bool = True
    track_opens: bool | None = None
    track_links: Literal["None", "HtmlAndText", "HtmlOnly", "TextOnly", ""] = ""
    set_headers: Annotated[dict[str, str], AfterValidator(_set_headers)] = Field(
        default_factory=dict
    )
    remove_headers: Annotated[
        tuple[str, ...], BeforeValidator(listed), AfterValidator(_remove_headers)
    ] = ()
    owner: OptionalMailbox = ""
    expires: Duration | None = None
    action: Literal["relay", "reject", "discard"] = "relay"

    @property
    def selects_all(self) -> bool:
        """Whether no key narrows what the rule matches."""
        return not (
            self.sender or self.recipient or self.client or self.user or self.login or self.subject
        )
