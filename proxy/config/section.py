"""What all tables of the configuration share."""

from typing import get_args

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One table: frozen, and a key that it does not know is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def section_in(annotation: object) -> type[Section] | None:
    """Return the table that a key with `annotation` holds, alone or in a list or table of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (section_in(inner) for inner in get_args(annotation))
    return next((table for table in found if table is not None), None)
