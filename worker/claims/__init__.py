"""The queue as the worker sees it: an RQ worker's life cycle, batched, on asyncio."""

from worker.claims.claims import Claims
from worker.claims.claim import Claim, Settlement

__all__ = ["Claim", "Claims", "Settlement"]
