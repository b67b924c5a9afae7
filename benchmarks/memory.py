"""Memory of the machine: what a host lends a virtual one only when it is used."""

import mmap
import os

_MOST = 2 * 1024**3
_PART = 4  # of what is free, no more


def use_and_free() -> int:
    """Use much of the free memory and give it back; return how many octets.

    The host of a virtual machine may lend it memory at the first use only, and take back what has
    been free for seconds. Whoever then uses it first waits for the host, which is no work of a mail
    system's. For a few seconds after this, what is used has been lent already.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    octets = min(_MOST, free // _PART) // mmap.PAGESIZE * mmap.PAGESIZE
    if octets:
        mmap.mmap(-1, octets, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    return octets
