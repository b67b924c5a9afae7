"""What became of mail, as Postmark's HTTP API tells it."""

from worker.outcomes.outcomes import Outcomes

__all__ = ["Outcomes"]
