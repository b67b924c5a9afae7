"""What became of mail, as Postmark's HTTP API tells it."""

from worker.outcomes.outcomes import ENDED, Outcomes

__all__ = ["ENDED", "Outcomes"]
