"""Tests that cannot be run here, and which of them nobody could have prepared this machine for."""

from _pytest.outcomes import Skipped  # pytest.skip.Exception, as a type


class CannotHere(Skipped):
    """A skip, also where none is allowed: no package makes this machine able to; the text says why.

    Only for what was tried a moment ago, with nothing of Franker's in it.
    """
