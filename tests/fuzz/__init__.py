"""Fuzzing: what each reader of foreign octets must hold; see `python -m tests.fuzz --help`."""
