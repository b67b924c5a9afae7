"""The queue as the worker sees it: an RQ worker's life cycle, batched, on asyncio."""

from worker.claim import Claim, Leave, Settlement
from worker.claims.claims import Claims

__all__ = ["Claim", "Claims", "Leave", "Settlement"]
