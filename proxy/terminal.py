"""The terminal that a process was started in. Standard library only."""

import os


def has_terminal() -> bool:
    """Tell whether this process has a terminal that a person could type into."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
