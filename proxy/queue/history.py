"""When a private server rewrites its append-only file: when half of it tells of mail that has left.

Of itself Redis does so whenever the file has doubled, also while everything in it still waits: a
growing queue would be written a second time again and again, to no use, beside the mail that comes.
What waits takes as much in the file as in memory (0.87 to 1.04 of it, measured with messages of 10
octets to 100 KB).
"""

REWRITE_FROM = 128 * 1024 * 1024
"""Octets of history that are read at a start in a second: shorter files are left alone."""

_RATIO = 2

_IDLE_FROM = 16_000_000  # octets of the file: read in a tenth of a second
_IDLE_RATIO = 4


def rewrite_from(mail: int) -> int:
    """Return from how many octets on the file may be rewritten while `mail` octets wait.

    A multiple of REWRITE_FROM, so that it seldom changes. To the server's own rule, doubling since
    it was last rewritten, this is added.
    """
    return max(1, -(-_RATIO * mail // REWRITE_FROM)) * REWRITE_FROM


def is_idle_work(size: int, mail: int) -> bool:
    """Tell whether a file of `size` octets is worth rewriting while nothing happens.

    `mail` are the octets that wait.
    """
    return size > max(_IDLE_FROM, _IDLE_RATIO * mail)
