"""What a rule has done to a message: the values that rewriting applies."""

from dataclasses import dataclass

from proxy.mail.fields import Field


@dataclass(frozen=True, slots=True)
class Treatment:
    """Ready to be written: texts are checked and encoded once, when the rules are compiled.

    Values of fields begin with their space; names in `remove` are in lower case. Empty means: as
    the client has it.
    """

    stream_id: str
    tag: bytes = b""
    metadata: tuple[tuple[bytes, bytes], ...] = ()
    from_: str = ""
    keep_id: bool = True
    track_opens: bytes = b""
    track_links: bytes = b""
    set_fields: tuple[Field, ...] = ()
    remove: tuple[bytes, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return the names of the fields that it sets, but for those that every message gets."""
        names = [name for name, _ in self.set_fields]
        names += [b"X-PM-Metadata-" + key for key, _ in self.metadata]
        for name, value in (
            (b"X-PM-Tag", self.tag),
            (b"X-PM-TrackOpens", self.track_opens),
            (b"X-PM-TrackLinks", self.track_links),
        ):
            if value:
                names.append(name)
        return tuple(name.decode("ascii") for name in names)
