"""The SMTP listener: takes mail from programs on this host and answers 250 once it is kept.

The only place, but for the sandbox, that knows aiosmtpd.
"""

from proxy.listener.intake import Intake
from proxy.listener.limits import Limits
from proxy.listener.listener import Listener

__all__ = ["Intake", "Limits", "Listener"]
