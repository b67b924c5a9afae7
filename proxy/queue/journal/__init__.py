"""Mail kept on this host's own disk while Redis is away, and moved there when it is back."""
