"""The header of a message: one scan over octets, and the fields it found (RFC 5322 §2.2).

The body is never looked at here. Fields that nobody touches come out octet by octet as they went
in, but for white space between a name and its colon (RFC 5322 §4.5), which goes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.mail.repairs import Repair

Field = tuple[bytes, bytes]
"""A field's name as written, and all after its colon with its folding, but for the last CRLF."""

LONGEST_HEADER = 262_144
"""Octets that are looked through for the end of a header, so that memory stays bounded."""

HIDDEN = (b"bcc", b"resent-bcc")
"""Names, in lower case, of the fields that name recipients whom nobody may see."""

# With canonical line ends CR stands only before LF, so that "." may run over it and come back.
_FIELD = re.compile(rb"([!-9;-~]{1,256})[ \t]*:(.*(?:\n[ \t].*)*)\r\n")
_BEGINNING = re.compile(rb"[!-9;-~]{1,256}[ \t]*:")
_FURTHER = re.compile(_BEGINNING.pattern + rb"|[ \t]")
_BAD_LINES = 10  # running, amid a header
# A field of one of these names, not seen before, shows that the header goes on. HIDDEN ones do in
# any case: they must not come to stand in the text.
_TELLING = frozenset(
    b"from sender reply-to to cc subject date message-id mime-version content-type "
    b"content-transfer-encoding".split()
)
_FOLD = re.compile(rb"\r\n(?=[ \t])")


class Header:
    """The fields of one message, in order.

    Names given to its methods are in lower case; names in the message compare without regard to
    case. Fields put `on_top` come out first, in the order in which they were put there.
    """

    __slots__ = ("_fields", "_places", "_top")

    def __init__(self, fields: list[Field]) -> None:
        self._fields: list[Field | None] = [*fields]
        self._top: list[Field] = []
        self._places: dict[bytes, list[int]] = {}
        for place, field in enumerate(fields):
            name = field[0].lower()
            if name in self._places:
                self._places[name].append(place)
            else:
                self._places[name] = [place]

    def __contains__(self, name: bytes) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[Field]:
        yield from self._top
        for field in self._fields:
            if field is not None:
                yield field

    def names(self) -> list[bytes]:
        """Return the names of the fields that came with the message, in lower case, each once."""
        return list(self._places)

    def repeated(self) -> list[bytes]:
        """Return the names, in lower case, of which there are several fields."""
        return [name for name, places in self._places.items() if len(places) > 1]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all fields of this name, folded as they are."""
        found = [self._fields[place] for place in self._places.get(name, ())]
        return [field[1] for field in found if field is not None]

    def field(self, name: bytes) -> Field | None:
        """Return the first field of this name, as it is written."""
        places = self._places.get(name)
        return self._fields[places[0]] if places else None

    def first(self, name: bytes) -> bytes | None:
        """Return the value of the first field of this name, folded as it is."""
        field = self.field(name)
        return None if field is None else field[1]

    def remove(self, name: bytes) -> bool:
        """Remove all fields of this name; say whether there was one."""
        places = self._places.pop(name, ())
        for place in places:
            self._fields[place] = None
        return bool(places)

    def keep_first(self, name: bytes) -> None:
        """Remove all fields of this name but the first."""
        places = self._places.get(name, [])
        for place in places[1:]:
            self._fields[place] = None
        del places[1:]

    def set(self, name: bytes, value: bytes) -> None:
        """Give the field of this name another value in its place, or add it: one is left.

        `name` as it shall be written where it is new.
        """
        key = name.lower()
        self.keep_first(key)
        if key in self._places:
            place = self._places[key][0]
            old = self._fields[place]
            self._fields[place] = (name if old is None else old[0], value)
        else:
            self.add(name, value)

    def add(self, name: bytes, value: bytes) -> None:
        """Add a field after all others; `name` as it shall be written."""
        self._places.setdefault(name.lower(), []).append(len(self._fields))
        self._fields.append((name, value))

    def put_on_top(self, name: bytes, value: bytes) -> None:
        """Add a field before all that came with the message; `name` as it shall be written."""
        self._top.append((name, value))

    def octets(self) -> bytes:
        """Return all fields, without the empty line that ends a header."""
        return b"".join([b"%b:%b\r\n" % field for field in self])


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message taken apart: its fields, and where in `octets` its body begins.

    `kinds` says what had to be overlooked: a `From ` line before the fields, lines amid them that
    are none (left out), or fields and body with no empty line between them. Not `complete`: the
    header did not end within LONGEST_HEADER octets, and nothing else here may be relied on.
    """

    fields: list[Field]
    octets: bytes
    body_at: int
    kinds: tuple[Repair, ...]
    complete: bool = True

    @property
    def body(self) -> bytes:
        """The octets after the header."""
        return self.octets[self.body_at :]

    @property
    def rest(self) -> bytes:
        """All that comes after `fields`: an empty line and the body, or more of the header."""
        return b"\r\n" + self.body if self.complete else self.body

    def first(self, wanted: bytes) -> bytes | None:
        """Return the value of the first field of this name (in lower case), folded as it is."""
        for name, value in self.fields:
            if len(name) == len(wanted) and name.lower() == wanted:
                return value
        return None


def parse(octets: bytes, *, mbox: bool = True) -> Parsed:
    """Take apart a message with canonical line ends.

    The header ends at an empty line, or before the first line that is no field and continues none
    (as Postfix reads it), unless it clearly goes on behind that line. `mbox`: a `From ` line may
    stand before all fields.
    """
    at = 0
    kinds: tuple[Repair, ...] = ()
    if mbox and octets.startswith((b"From ", b">From ")):
        at = octets.index(b"\r\n") + 2
        kinds = ("mbox",)
    fields: list[Field] = []
    match = _FIELD.match
    reach = at + LONGEST_HEADER
    while True:
        while (found := match(octets, at, reach)) is not None:
            fields.append(found.groups())  # type: ignore[arg-type]  # both groups always take part
            at = found.end()
        if octets.startswith(b"\r\n", at):
            return Parsed(fields, octets, at + 2, kinds)
        if reach < len(octets) and (_FURTHER if fields else _BEGINNING).match(octets, at):
            return Parsed(fields, octets, at, kinds, complete=False)
        further = _goes_on(octets, at, fields)
        if not further:
            return Parsed(fields, octets, at, (*kinds, "blank_line"))
        if further >= reach:
            return Parsed(fields, octets, at, kinds, complete=False)
        at = further
        if "bad_line" not in kinds:
            kinds = (*kinds, "bad_line")


def _goes_on(octets: bytes, at: int, fields: list[Field]) -> int:
    """Return where the header goes on behind lines at `at` that are no fields; 0 if it does not.

    It is looked for in LONGEST_HEADER octets, those of lines that are no fields not counted.
    """
    behind, bad, reach = 0, 0, at + LONGEST_HEADER
    while bad < _BAD_LINES:
        found = _FIELD.match(octets, at, reach)
        if found is None:
            end = octets.find(b"\n", at) + 1
            if not end or octets.startswith(b"\r\n", at):
                return 0
            bad, at, reach = bad + 1, end, reach + end - at
            continue
        behind, at = behind or found.start(), found.end()
        name = found[1].lower()
        new = name in _TELLING and all(name != field[0].lower() for field in fields)
        if new or name in HIDDEN:
            return behind
    return 0


def unfolded(value: bytes) -> bytes:
    """Return a field's value as one line, without the white space around it."""
    if b"\r" in value:
        value = _FOLD.sub(b"", value)
    return value.strip(b" \t")
