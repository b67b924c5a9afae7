"""Metrics for Prometheus: names, help and labels. Values come from the other parts.

Each process shows only its own: `intake` holds the proxy's, `relaying` the worker's, each with
its own REGISTRY. No label ever holds an address, an id or a token; label sets are closed.
"""

from prometheus_client import disable_created_metrics

# A second series per counter with the time it was made says nothing that Prometheus uses.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library lacks the annotation
