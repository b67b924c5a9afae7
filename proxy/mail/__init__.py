"""Mail as octets and envelopes: pure functions and frozen values, no I/O."""
