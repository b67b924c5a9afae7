"""`franker-sendmail`: what programs know as /usr/sbin/sendmail, mailq and newaliases.

Standard library only, and little of that: it is started for every message, by every user.
"""

from proxy.sendmail.program import main

__all__ = ["main"]
