"""Measurements of the whole program beside Postfix; `make bench`."""
