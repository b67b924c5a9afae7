"""Fixtures shared by all tests: real parts only."""
