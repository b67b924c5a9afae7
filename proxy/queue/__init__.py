"""The durable queue in Redis, in the form RQ reads: one message, one job."""
