"""`franker-sendmail`: what programs know as /usr/sbin/sendmail, mailq and newaliases.

Standard library only, and little of that: it is started for every message, by every user. So it
imports `_socket` and `_collections_abc`, of which `socket` and `collections.abc` are made: they
load in a tenth of the time.
"""

from proxy.sendmail.program import main

__all__ = ["main"]
