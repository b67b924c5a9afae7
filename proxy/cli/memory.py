"""The memory of large messages, kept from one to the next."""

import contextlib
import ctypes

KEPT = 16_000_000
"""Octets free at the top of the heap that stay with the process, and the largest block in it.

What is free below a block in use stays in any case, however much it is.
"""

_M_TRIM_THRESHOLD = -1  # from glibc's malloc.h
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that are free, to be used again.

    A message of 5 MB takes several times its size, and gives it back before the next one comes.
    If the system gets it back each time, it has to make 2,500 pages anew for the next message,
    nearly as much work as all else that the proxy does with it. A C library that knows no such
    setting is left as it is.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Each alone would end glibc's own adjusting of the other, which then stays at 128 KB.
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, KEPT)
