"""Exit codes, as sysexits.h has them."""

EX_USAGE = 64
EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_INTERRUPTED = 130
"""As a shell says of a program that SIGINT ended."""
